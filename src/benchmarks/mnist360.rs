//! MNIST-360: digits that turn while they come and go.

use rayon::prelude::*;

use super::{Benchmark, Experience, Stream, check_datasets};
use crate::data::{
    ClassificationDataset, Dataset, OUTSIDE, Pixels, TransformGroups, pillow_rotation_map,
};
use crate::rng::TorchGenerator;
use crate::{Error, Result};

/// Nine is left out: turned, it is a six.
const DIGITS: usize = 9;
const ROUNDS: usize = 3;
/// Each digit is in two pairs of every round.
const CHUNKS: usize = 2 * ROUNDS;

/// Which test images MNIST-360 shows. In each case every digit is drawn as often as it has test
/// images, and the k-th of its n draws is turned by k·360/n degrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mnist360Evaluation {
    /// Every test image once, in the order of the data set.
    #[default]
    EveryImage,
    /// As the authors' code did for the paper: mini-batches of images drawn at random, each from all
    /// images of the digit, so that some come several times and others never.
    RandomBatches,
    /// As the authors' code does since: only the first mini-batch of images of each digit, again and
    /// again.
    FirstBatch,
}

/// Builds MNIST-360, the General Continual Learning stream of the paper of DER (P. Buzzega et al.,
/// NeurIPS 2020, section 4.1 and supplement), as the authors' code makes it.
///
/// The digits 0 to 8 come in pairs, (0, 1), (1, 2), ... (8, 0), three times round. The training images
/// of a digit are cut into six chunks, of which each of its pairs uses one, the last chunk first. A
/// mini-batch is divided between the two digits in the proportion of what their chunks have left, the
/// first digit's samples first, and a pair ends when either chunk is used up; what the other has left
/// is never shown. Each sample is drawn from its whole chunk, so images repeat: of about 54,050 draws
/// on full MNIST 63 % are different images. The k-th draw of digit j, which has n images, is turned
/// counter-clockwise by (j - 1)·60 + k·360/n degrees, as Pillow turns images. Pixels are from 0 to 1, not normalised.
///
/// The stream prescribes its mini-batches: the training stream is a single experience whose
/// [`batches`](Experience::batches) are to be learned in order, once.
///
/// ```
/// use unforget::benchmarks::Mnist360;
/// let (train, test) = unforget::data::embedded::mnist_tenth();
/// let benchmark = Mnist360::from_datasets(train, test).batch_size(8).build()?;
/// let experience = &benchmark.train_stream()[0];
/// let batches = experience.batches().expect("prescribed");
/// assert_eq!(batches[0], 0..8);
/// assert_eq!(batches.last().map(|last| last.end), Some(experience.dataset().len()));
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Mnist360 {
    train: Dataset,
    test: Dataset,
    batch_size: usize,
    seed: u64,
    evaluation: Mnist360Evaluation,
}

impl Mnist360 {
    /// Starts from MNIST's training and test data.
    pub fn from_datasets(train: Dataset, test: Dataset) -> Self {
        Mnist360 {
            train,
            test,
            batch_size: 16,
            seed: 0,
            evaluation: Mnist360Evaluation::default(),
        }
    }

    /// The number of samples in a mini-batch; 16 if not given. At the end of a pair it can be smaller.
    pub fn batch_size(mut self, n: usize) -> Self {
        self.batch_size = n;
        self
    }

    /// The seed of the draws; 0 if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Which test images are shown.
    pub fn evaluation(mut self, evaluation: Mnist360Evaluation) -> Self {
        self.evaluation = evaluation;
        self
    }

    /// The benchmark: one training experience with its mini-batches, one test experience.
    ///
    /// # Errors
    /// [`Error::Config`] if the batch size is zero or a digit has too few images for six chunks.
    pub fn build(self) -> Result<Benchmark> {
        let transforms = TransformGroups::default();
        check_datasets(&self.train, &self.test, &transforms)?;
        if self.batch_size == 0 {
            return Err(Error::config("batch_size", "at least 1", 0));
        }
        let mut generator = TorchGenerator::manual_seed(self.seed);
        let by_digit = by_digit(&self.train)?;
        let (draws, lengths) = stream(&by_digit, self.batch_size, &mut generator);
        let test = self.test_draws(&mut generator)?;
        let experience = |data: &Dataset, draws: &[Draw], name| {
            let view = ClassificationDataset::new(turned(data, draws)?, transforms.clone());
            Ok(Experience::from_dataset(view, 0, name))
        };
        let train = experience(&self.train, &draws, "train")?.with_batches(&lengths);
        let test = experience(&self.test, &test, "test")?;
        Ok(Benchmark::from_streams(
            "MNIST-360",
            Stream::new("train", vec![train]),
            Stream::new("test", vec![test]),
        ))
    }

    fn test_draws(&self, generator: &mut TorchGenerator) -> Result<Vec<Draw>> {
        let mut draws = Vec::with_capacity(self.test.len());
        for images in indices_by_digit(&self.test)? {
            let n = images.len();
            let mut batch = Vec::new();
            for k in 0..n {
                let place = k % self.batch_size;
                let at = match self.evaluation {
                    Mnist360Evaluation::EveryImage => k,
                    Mnist360Evaluation::FirstBatch => place % n,
                    Mnist360Evaluation::RandomBatches => {
                        if place == 0 {
                            batch = generator.randperm(n);
                        }
                        batch[place % n] as usize
                    }
                };
                draws.push(Draw {
                    index: images[at],
                    degrees: k as f64 * 360.0 / n as f64,
                });
            }
        }
        Ok(draws)
    }
}

/// An image and how far it is turned.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Draw {
    index: u32,
    degrees: f64,
}

/// The places of the images of each digit.
fn indices_by_digit(data: &Dataset) -> Result<Vec<Vec<u32>>> {
    let mut digits = vec![Vec::new(); DIGITS];
    for (index, &target) in (0..).zip(data.targets()) {
        if let Some(images) = digits.get_mut(target as usize) {
            images.push(index);
        }
    }
    match digits.iter().position(Vec::is_empty) {
        None => Ok(digits),
        Some(digit) => Err(Error::config(
            format!("data set {}", data.name()),
            "images of each digit from 0 to 8",
            format!("none of {digit}"),
        )),
    }
}

/// As [`indices_by_digit`], enough of each digit that all six chunks hold some.
fn by_digit(data: &Dataset) -> Result<Vec<Vec<u32>>> {
    let digits = indices_by_digit(data)?;
    for (digit, images) in digits.iter().enumerate() {
        if (CHUNKS - 1) * chunk_size(images.len()) >= images.len() {
            return Err(Error::config(
                format!("data set {}", data.name()),
                "at least 31 images of each digit, for MNIST-360's six chunks",
                format!("{} of {digit}", images.len()),
            ));
        }
    }
    Ok(digits)
}

fn chunk_size(images: usize) -> usize {
    images / CHUNKS + 1
}

/// The draws of the training stream and the lengths of its mini-batches.
fn stream(
    digits: &[Vec<u32>],
    batch_size: usize,
    generator: &mut TorchGenerator,
) -> (Vec<Draw>, Vec<usize>) {
    let mut stacks: Vec<Vec<&[u32]>> = (digits.iter())
        .map(|images| images.chunks(chunk_size(images.len())).collect())
        .collect();
    let mut counters = [0usize; DIGITS];
    let (mut draws, mut lengths) = (Vec::new(), Vec::new());
    for pair in 0..ROUNDS * DIGITS {
        let pair = [pair % DIGITS, (pair + 1) % DIGITS];
        let chunks = pair.map(|digit| stacks[digit].pop().unwrap_or_default());
        let mut rest = chunks.map(<[u32]>::len);
        while rest[0] > 0 && rest[1] > 0 {
            let share = batch_size as f64 * rest[0] as f64 / (rest[0] + rest[1]) as f64;
            let first = (share.round_ties_even() as usize).min(rest[0]);
            let taken = [first, (batch_size - first).min(rest[1])];
            for (i, digit) in pair.into_iter().enumerate() {
                for _ in 0..taken[i] {
                    // The first element of a permutation of the chunk, as PyTorch draws it.
                    let at = generator.next_u32() as usize % chunks[i].len();
                    let turned = counters[digit] as f64 * 360.0 / digits[digit].len() as f64;
                    counters[digit] += 1;
                    draws.push(Draw {
                        index: chunks[i][at],
                        degrees: ((digit as f64 - 1.0) * 60.0 + turned).rem_euclid(360.0),
                    });
                }
                rest[i] -= taken[i];
            }
            lengths.push(taken[0] + taken[1]);
        }
    }
    (draws, lengths)
}

/// The images of `draws`, turned.
fn turned(data: &Dataset, draws: &[Draw]) -> Result<Dataset> {
    let shape = data.shape();
    let targets = draws.iter().map(|draw| data.targets()[draw.index as usize]);
    let targets = targets.collect();
    match data.pixels() {
        Pixels::U8(pixels) => {
            let pixels = turned_pixels(pixels, shape, draws);
            Dataset::from_u8("mnist-360", shape, pixels, targets, DIGITS)
        }
        Pixels::F32(pixels) => {
            let pixels = turned_pixels(pixels, shape, draws);
            Dataset::from_f32("mnist-360", shape, pixels, targets, DIGITS)
        }
        Pixels::Files(_) => Err(Error::config(
            "data",
            "digits in memory for mnist-360",
            format!("{}, files that are read when they are wanted", data.name()),
        )),
    }
}

/// Images do not depend on one another, so it does not matter which thread turns which.
fn turned_pixels<T: Copy + Default + Send + Sync>(
    pixels: &[T],
    [channels, height, width]: [usize; 3],
    draws: &[Draw],
) -> Vec<T> {
    let plane = height * width;
    let size = channels * plane;
    let mut out = vec![T::default(); draws.len() * size];
    let images = out.par_chunks_exact_mut(size).zip(draws);
    images.for_each(|(out, draw)| {
        let image = &pixels[draw.index as usize * size..][..size];
        let map = pillow_rotation_map(height, width, draw.degrees);
        let channels = out.chunks_exact_mut(plane).zip(image.chunks_exact(plane));
        for (out, channel) in channels {
            for (pixel, &place) in out.iter_mut().zip(&map) {
                if place != OUTSIDE {
                    *pixel = channel[place as usize];
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::RawSample;
    use std::collections::BTreeSet;

    /// How often each digit occurs in MNIST.
    const TRAIN: [usize; 10] = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949];
    const TEST: [usize; 10] = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009];

    /// As many samples of each digit as `counts` says, digit after digit in turns; the only pixel is 1.
    fn digits(counts: [usize; 10]) -> Dataset {
        let most = counts.into_iter().max().unwrap();
        let turns = (0..most).flat_map(|k| (0..10u32).filter(move |&d| k < counts[d as usize]));
        let targets: Vec<u32> = turns.collect();
        Dataset::from_u8("digits", [1, 1, 1], vec![1; targets.len()], targets, 10).unwrap()
    }

    fn draws(batch_size: usize, seed: u64) -> (Vec<Draw>, Vec<usize>) {
        let digits = by_digit(&digits(TRAIN)).unwrap();
        stream(&digits, batch_size, &mut TorchGenerator::manual_seed(seed))
    }

    #[test]
    fn the_batch_counts_are_the_authors() {
        for (size, batches, samples) in [
            (16, 3387, 54_051),
            (8, 6764, 54_050),
            (4, 13_516, 54_048),
            (1, 54_024, 54_024),
        ] {
            let (draws, lengths) = draws(size, 0);
            assert_eq!((lengths.len(), draws.len()), (batches, samples), "{size}");
            assert_eq!(lengths.iter().sum::<usize>(), samples);
            assert!(lengths.iter().all(|&n| (1..=size).contains(&n)));
            let benchmark = Mnist360::from_datasets(digits(TRAIN), digits(TEST));
            let benchmark = benchmark.batch_size(size).build().unwrap();
            let experience = &benchmark.train_stream()[0];
            assert_eq!(experience.batches().unwrap().len(), batches);
            assert_eq!(experience.dataset().len(), samples);
            assert_eq!(benchmark.n_classes(), 9);
        }
    }

    /// With replacement: 1 - 1/e of the draws are different images.
    #[test]
    fn draws_repeat_images() {
        for seed in 0..3 {
            let (draws, _) = draws(16, seed);
            let distinct: BTreeSet<u32> = draws.iter().map(|draw| draw.index).collect();
            let share = distinct.len() as f64 / draws.len() as f64;
            assert!((share - 0.632).abs() <= 0.005, "{share}");
        }
    }

    #[test]
    fn pairs_follow_each_other_and_use_the_last_chunk_first() {
        let data = digits(TRAIN);
        let by_digit = by_digit(&data).unwrap();
        let (draws, lengths) = draws(16, 1);
        let targets: Vec<u32> = (draws.iter())
            .map(|draw| data.targets()[draw.index as usize])
            .collect();
        let mut pairs: Vec<BTreeSet<u32>> = Vec::new();
        let mut start = 0;
        for length in lengths {
            let batch = &targets[start..start + length];
            let first = batch.iter().take_while(|&&t| t == batch[0]).count();
            assert!(batch[first..].iter().all(|&t| t == batch[length - 1]));
            let pair: BTreeSet<u32> = batch.iter().copied().collect();
            if pair.len() == 2 && pairs.last() != Some(&pair) {
                pairs.push(pair);
            }
            start += length;
        }
        let expected = (0..27).map(|p| BTreeSet::from([p % 9, (p + 1) % 9]));
        assert_eq!(pairs, expected.collect::<Vec<_>>());
        // Chunks of 988: the first 983 draws of 0 are from the last chunk, which is shorter.
        let zeros: Vec<u32> = (draws.iter().zip(&targets))
            .filter_map(|(draw, &t)| (t == 0).then_some(draw.index))
            .collect();
        assert!(zeros[..983].iter().all(|i| by_digit[0][4940..].contains(i)));
        assert!(
            zeros[983..1971]
                .iter()
                .all(|i| by_digit[0][3952..4940].contains(i))
        );
    }

    #[test]
    fn digits_turn_once_from_their_own_start() {
        let data = digits(TRAIN);
        let (draws, _) = draws(16, 1);
        for (digit, start) in [(0, 300.0), (1, 0.0), (3, 120.0), (8, 60.0)] {
            let n = TRAIN[digit];
            let angles = (draws.iter())
                .filter(|draw| data.targets()[draw.index as usize] as usize == digit)
                .map(|draw| draw.degrees);
            for (k, angle) in angles.enumerate() {
                let want = (start + k as f64 * 360.0 / n as f64) % 360.0;
                let difference = (angle - want).abs();
                assert!(
                    difference.min(360.0 - difference) <= 1e-9,
                    "{digit}, {k}: {angle}"
                );
            }
        }
    }

    #[test]
    fn evaluation_shows_every_image_once_or_as_the_authors_did() {
        let draws = |evaluation| {
            let benchmark = Mnist360::from_datasets(digits(TRAIN), digits(TEST));
            let benchmark = benchmark.evaluation(evaluation);
            let draws = benchmark
                .test_draws(&mut TorchGenerator::manual_seed(0))
                .unwrap();
            assert_eq!(draws.len(), 8991);
            assert_eq!((draws[1].degrees, draws[980].degrees), (360.0 / 980.0, 0.0));
            let images: BTreeSet<u32> = draws.iter().map(|draw| draw.index).collect();
            (images.len(), draws)
        };
        let (distinct, all) = draws(Mnist360Evaluation::EveryImage);
        assert_eq!(distinct, 8991);
        let (distinct, first) = draws(Mnist360Evaluation::FirstBatch);
        assert_eq!(distinct, 9 * 16);
        assert_eq!((first[15], first[16].index), (all[15], all[0].index));
        let (distinct, random) = draws(Mnist360Evaluation::RandomBatches);
        assert!(
            (5500..5900).contains(&distinct),
            "{distinct} of 8991, about 63 %"
        );
        let batch: BTreeSet<u32> = random[16..32].iter().map(|draw| draw.index).collect();
        assert_eq!(batch.len(), 16, "within a batch there is no repetition");
    }

    #[test]
    fn images_are_turned_as_they_are_drawn() {
        let side = 5;
        let pixels = (0..400 * 25).map(|p| (p % 25) as u8 + 1).collect();
        let targets = (0..400).map(|i| i % 10).collect();
        let data = Dataset::from_u8("turning", [1, side, side], pixels, targets, 10).unwrap();
        let benchmark = Mnist360::from_datasets(data.clone(), data).build().unwrap();
        let view = benchmark.test_stream()[0].dataset();
        // 40 images a digit: the tenth is turned by a quarter.
        let (RawSample::U8(start), RawSample::U8(turned)) = (view.raw(0), view.raw(10)) else {
            panic!("the images are bytes")
        };
        assert_eq!(start[..5], [1, 2, 3, 4, 5]);
        assert_eq!(turned[..5], [5, 10, 15, 20, 25]);
        assert_eq!((view.target(39), view.target(40)), (0, 1));
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let build = |train, test| Mnist360::from_datasets(digits(train), digits(test));
        for (builder, want) in [
            (
                build(TRAIN, TEST).batch_size(0),
                "batch_size: expected at least 1",
            ),
            (build([30; 10], TEST), "found 30 of 0"),
            (build(TRAIN, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]), "none of 8"),
        ] {
            let message = builder.build().unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
        assert!(build([31; 10], [1; 10]).build().is_ok());
    }
}
