//! The same classes in every experience, under pixels rearranged anew.

use std::sync::Arc;

use super::{Benchmark, Experience, Stream, check_datasets, check_n_experiences};
use crate::data::{
    ClassificationDataset, Dataset, Transform, TransformGroups, pillow_rotation_map, rotation_map,
};
use crate::rng::{NumpyRandomState, python_set_order};
use crate::{Error, Result};

/// What both benchmarks are built from.
#[derive(Clone, Debug)]
struct Parts {
    name: &'static str,
    train: Dataset,
    test: Dataset,
    transform: Transform,
    n_experiences: Option<usize>,
    seed: u64,
    return_task_id: bool,
}

impl Parts {
    fn new(name: &'static str, train: Dataset, test: Dataset) -> Self {
        Parts {
            name,
            train,
            test,
            transform: Transform::mnist(),
            n_experiences: None,
            seed: 0,
            return_task_id: false,
        }
    }

    /// As the paper of DER has it: 20 experiences of pixels from 0 to 1.
    fn paper(self) -> Self {
        Parts {
            transform: Transform::default(),
            n_experiences: Some(20),
            ..self
        }
    }

    /// NumPy's generator for the seed, of which it takes 32 bits and no more.
    fn generator(&self) -> Result<NumpyRandomState> {
        let seed = u32::try_from(self.seed)
            .map_err(|_| Error::config("seed", "0 to 4294967295, as NumPy does", self.seed))?;
        Ok(NumpyRandomState::new(seed))
    }

    /// One experience for each pixel map, normalised after it.
    fn build(self, maps: Vec<Arc<[u32]>>) -> Result<Benchmark> {
        let transforms = TransformGroups::same(self.transform.clone());
        check_datasets(&self.train, &self.test, &transforms)?;
        let transforms = Arc::new(transforms);
        let stream = |name, data: Dataset| {
            let whole = ClassificationDataset::with_shared_transforms(data, transforms.clone());
            let experiences = maps.iter().enumerate().map(|(id, map)| {
                let view = grouped(&whole, id).with_pixel_map(map.clone());
                let task_label = if self.return_task_id { id as u32 } else { 0 };
                Experience::from_dataset(view.with_task_label(task_label), id, name)
            });
            Stream::new(name, experiences.collect())
        };
        let train = stream("train", self.train);
        let test = stream("test", self.test);
        Ok(Benchmark::from_streams(self.name, train, test))
    }
}

/// The samples in the order that Avalanche gives them in experience `id`: class by class, in the
/// order in which a Python set holds the classes once those of earlier experiences are counted off
/// (digit d of experience i is class 10·i + d), and in data set order within a class.
fn grouped(whole: &ClassificationDataset, id: usize) -> ClassificationDataset {
    let first = id as u32 * whole.n_classes() as u32;
    let shifted: Vec<u32> = (first..first + whole.n_classes() as u32).collect();
    let targets = whole.targets();
    let samples = |class: u32| {
        (0u32..)
            .zip(&targets)
            .filter(move |(_, target)| **target == class - first)
    };
    let order = python_set_order(&shifted);
    let indices: Vec<u32> = order
        .into_iter()
        .flat_map(samples)
        .map(|(i, _)| i)
        .collect();
    whole.subset(&indices)
}

/// Builds PermutedMNIST: all ten digits in every experience, under one permutation of the pixels
/// each.
///
/// The permutations are successive draws of `numpy.random.RandomState(seed).permutation(784)`; pixel
/// p shows the original pixel `permutation[p]`. They are applied before the normalisation, to
/// training and test images. Avalanche permutes the first experience too, and so does this.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct PermutedMnist(Parts);

impl PermutedMnist {
    /// Starts from MNIST's training and test data.
    pub fn from_datasets(train: Dataset, test: Dataset) -> Self {
        PermutedMnist(Parts::new("PermutedMNIST", train, test))
    }

    /// P-MNIST of the paper of DER (P. Buzzega et al., NeurIPS 2020): 20 tasks, each under its own
    /// permutation, the first too; pixels from 0 to 1, not normalised.
    ///
    /// The permutations are those of [`from_datasets`](Self::from_datasets); the authors drew theirs
    /// from NumPy's global generator, mostly without a seed.
    pub fn paper(train: Dataset, test: Dataset) -> Self {
        PermutedMnist(Parts::new("P-MNIST", train, test).paper())
    }

    /// The number of experiences; must be given, except for the paper's 20.
    pub fn n_experiences(mut self, n: usize) -> Self {
        self.0.n_experiences = Some(n);
        self
    }

    /// The seed of the permutations, at most 2^32 - 1; 0 if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = seed;
        self
    }

    /// Whether the task label is the experience's id (else 0).
    pub fn return_task_id(mut self, yes: bool) -> Self {
        self.0.return_task_id = yes;
        self
    }

    /// The benchmark.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option that does not fit.
    pub fn build(self) -> Result<Benchmark> {
        let n = check_n_experiences(self.0.n_experiences)?;
        let mut generator = self.0.generator()?;
        let [_, height, width] = self.0.train.shape();
        let plane = (height * width) as u32;
        let maps = (0..n).map(|_| generator.permutation(plane).into());
        let maps = maps.collect();
        self.0.build(maps)
    }
}

/// Builds RotatedMNIST: all ten digits in every experience, rotated by one angle each.
///
/// The angles are whole degrees, successive draws of
/// `numpy.random.RandomState(seed).randint(-180, 181)`, or given as a list. Images turn
/// counter-clockwise with torchvision's nearest-neighbour sampling: no expansion, zeros outside,
/// before the normalisation.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RotatedMnist {
    parts: Parts,
    rotations_list: Option<Vec<f64>>,
    draw: fn(&mut NumpyRandomState) -> f64,
    turn: fn(usize, usize, f64) -> Vec<u32>,
}

impl RotatedMnist {
    /// Starts from MNIST's training and test data.
    pub fn from_datasets(train: Dataset, test: Dataset) -> Self {
        RotatedMnist {
            parts: Parts::new("RotatedMNIST", train, test),
            rotations_list: None,
            draw: |generator| f64::from(generator.randint(-180, 181)),
            turn: rotation_map,
        }
    }

    /// R-MNIST of the paper of DER (P. Buzzega et al., NeurIPS 2020): 20 tasks, each turned
    /// counter-clockwise by an angle uniform in [0, 180) degrees (`numpy.random.uniform(0, 180)` after
    /// the seed), not ordered; nearest pixel as Pillow turns images, black outside; pixels from 0 to 1, not normalised.
    pub fn paper(train: Dataset, test: Dataset) -> Self {
        RotatedMnist {
            parts: Parts::new("R-MNIST", train, test).paper(),
            rotations_list: None,
            draw: |generator| 180.0 * generator.random_sample(),
            turn: pillow_rotation_map,
        }
    }

    /// The number of experiences; must be given, except for the paper's 20.
    pub fn n_experiences(mut self, n: usize) -> Self {
        self.parts.n_experiences = Some(n);
        self
    }

    /// The seed of the angles, at most 2^32 - 1; 0 if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.parts.seed = seed;
        self
    }

    /// Whether the task label is the experience's id (else 0).
    pub fn return_task_id(mut self, yes: bool) -> Self {
        self.parts.return_task_id = yes;
        self
    }

    /// The angle of each experience in degrees; nothing is drawn then.
    pub fn rotations_list(mut self, degrees: Vec<f64>) -> Self {
        self.rotations_list = Some(degrees);
        self
    }

    /// The benchmark.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option that does not fit.
    pub fn build(self) -> Result<Benchmark> {
        let n = check_n_experiences(self.parts.n_experiences)?;
        let angles = match self.rotations_list {
            Some(angles) if angles.len() == n && angles.iter().all(|a| a.is_finite()) => angles,
            Some(angles) => {
                let expected = format!("{n} finite angles, one an experience");
                return Err(Error::config(
                    "rotations_list",
                    expected,
                    format!("{angles:?}"),
                ));
            }
            None => {
                let mut generator = self.parts.generator()?;
                (0..n).map(|_| (self.draw)(&mut generator)).collect()
            }
        };
        let [_, height, width] = self.parts.train.shape();
        let maps = angles
            .iter()
            .map(|&angle| (self.turn)(height, width, angle).into());
        self.parts.build(maps.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Group, RawSample};

    /// Three images of 28 x 28 in which pixel p of image i is (p + i) mod 251.
    fn images() -> Dataset {
        let pixels = (0..3 * 784)
            .map(|x| ((x % 784 + x / 784) % 251) as u8)
            .collect();
        Dataset::from_u8("images", [1, 28, 28], pixels, vec![0, 1, 9], 10).unwrap()
    }

    fn pixels(view: &ClassificationDataset, i: usize) -> Vec<u8> {
        match view.raw(i) {
            RawSample::U8(pixels) => pixels.to_vec(),
            RawSample::F32(_) => panic!("the images are bytes"),
        }
    }

    #[test]
    fn permutations_are_avalanches() {
        for (seed, first) in [
            (0, [693, 85, 647, 392]),
            (1, [649, 265, 111, 301]),
            (42, [598, 590, 209, 637]),
        ] {
            let builder = PermutedMnist::from_datasets(images(), images()).n_experiences(2);
            let benchmark = builder.seed(seed).return_task_id(true).build().unwrap();
            let view = benchmark.train_stream()[0].dataset();
            assert_eq!(
                pixels(view, 1)[..4],
                first.map(|p: u32| ((p + 1) % 251) as u8)
            );
            assert_eq!(view.targets(), [0, 1, 9]);
            if seed == 0 {
                let second = benchmark.test_stream()[1].dataset();
                let want = [378, 159, 524, 744].map(|p: u32| (p % 251) as u8);
                assert_eq!(pixels(second, 0)[..4], want);
            }
            assert_eq!(benchmark.test_stream()[1].task_label(), 1);
            assert_eq!((benchmark.n_classes(), benchmark.n_experiences()), (10, 2));
        }
    }

    #[test]
    fn samples_come_class_by_class_in_set_order() {
        let pixels = vec![0; 20 * 784];
        let targets = (0..20).map(|i| i % 10).collect();
        let data = Dataset::from_u8("digits", [1, 28, 28], pixels, targets, 10).unwrap();
        let benchmark = PermutedMnist::from_datasets(data.clone(), data).n_experiences(4);
        let benchmark = benchmark.build().unwrap();
        let view = benchmark.train_stream()[0].dataset();
        assert_eq!(view.targets()[..4], [0, 0, 1, 1]);
        let view = benchmark.train_stream()[3].dataset();
        // Classes 30 to 39: a set of ten holds 32 to 39 in front of 30 and 31.
        let want = [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 0, 0, 1, 1];
        assert_eq!(view.targets(), want);
        assert_eq!((view.source_index(0), view.source_index(1)), (2, 12));
    }

    #[test]
    fn angles_are_avalanches() {
        for (seed, angles) in [
            (0, [-8.0, -133.0, -63.0, 12.0, 143.0, 71.0]),
            (1, [-143.0, 55.0, -108.0, 75.0, 23.0, -47.0]),
            (42, [-78.0, 168.0, 90.0, -74.0, -109.0, 8.0]),
        ] {
            let rotated = || RotatedMnist::from_datasets(images(), images()).n_experiences(6);
            let drawn = rotated().seed(seed).build().unwrap();
            let listed = rotated().rotations_list(angles.to_vec()).build().unwrap();
            for (a, b) in drawn.train_stream().iter().zip(listed.train_stream()) {
                assert_eq!(a.dataset().raw(2), b.dataset().raw(2));
            }
        }
    }

    /// `RandomState(3).uniform(0, 180, 3)` and permutations as above.
    #[test]
    fn the_papers_streams_have_twenty_tasks_of_plain_pixels() {
        let rotated = RotatedMnist::paper(images(), images()).seed(3);
        let rotated = rotated.build().unwrap();
        let listed = RotatedMnist::paper(images(), images()).n_experiences(3);
        let listed = listed.rotations_list(vec![
            99.143_622_463_423_6,
            127.466_608_071_258_88,
            52.362_853_004_329_98,
        ]);
        let listed = listed.build().unwrap();
        for (a, b) in rotated.test_stream().iter().zip(listed.test_stream()) {
            assert_eq!(a.dataset().raw(1), b.dataset().raw(1));
        }
        let permuted = PermutedMnist::paper(images(), images()).build().unwrap();
        let view = permuted.train_stream()[0].dataset();
        let want = [693, 85, 647, 392].map(|p: u32| (p % 251) as u8);
        assert_eq!(pixels(view, 0)[..4], want, "the first task is permuted too");
        for benchmark in [rotated, permuted] {
            assert_eq!((benchmark.n_experiences(), benchmark.n_classes()), (20, 10));
            let view = benchmark.train_stream()[0].dataset();
            let image = view.images(Group::Train);
            for (x, byte) in image.iter().zip(pixels(view, 0)) {
                assert_eq!(*x, f32::from(byte) / 255.0);
            }
        }
    }

    #[test]
    fn the_background_is_normalised_after_the_rotation() {
        let builder = RotatedMnist::from_datasets(images(), images()).n_experiences(1);
        let benchmark = builder.rotations_list(vec![45.0]).build().unwrap();
        let image = benchmark.test_stream()[0].dataset().images(Group::Eval);
        assert_eq!(image[[0, 0, 0, 0]], (0.0 - 0.1307) / 0.3081);
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let permuted = || PermutedMnist::from_datasets(images(), images());
        let rotated = || RotatedMnist::from_datasets(images(), images()).n_experiences(2);
        for (result, want) in [
            (permuted().build(), "none given"),
            (permuted().n_experiences(0).build(), "at least 1"),
            (
                permuted().n_experiences(1).seed(1 << 32).build(),
                "found 4294967296",
            ),
            (
                rotated().rotations_list(vec![1.0]).build(),
                "2 finite angles",
            ),
            (
                rotated().rotations_list(vec![1.0, f64::NAN]).build(),
                "2 finite angles",
            ),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
