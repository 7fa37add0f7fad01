//! Changes of an image's geometry, some of them random.

use std::sync::Arc;

use super::resize::{Axis, Pixel, resize};
use super::rotation::pillow_rotated;
use crate::pixels::Cutout;
use crate::rng::CounterRng;

/// One change, on pixels as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Scaled to height and width.
    Resize([usize; 2]),
    /// The middle part of height and width.
    CenterCrop([usize; 2]),
    /// A part of height and width at a random place of the image with zeros around it.
    RandomCrop { size: [usize; 2], padding: usize },
    /// Mirrored left to right with this probability.
    RandomHorizontalFlip(f32),
    /// Turned counter-clockwise by an angle between these, in degrees.
    RandomRotation([f64; 2]),
}

/// A step made ready for images of one size.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    step: Step,
    pub input: [usize; 2],
    pub output: [usize; 2],
    axes: Option<Arc<[Axis; 2]>>,
}

/// Memory of a thread, which only grows.
#[derive(Default)]
pub(super) struct Scratch<T> {
    pub image: Vec<T>,
    next: Vec<T>,
    between: Vec<T>,
}

impl<T: Pixel> Scratch<T> {
    /// Puts `image` through `stages`; without a generator the random ones rest.
    pub fn run(&mut self, stages: &[Stage], mut rng: Option<CounterRng>) {
        for stage in stages {
            if stage.apply(&self.image, rng.as_mut(), &mut self.between, &mut self.next) {
                std::mem::swap(&mut self.image, &mut self.next);
            }
        }
    }
}

impl Stage {
    /// The step for images of this height and width, or what it expects of them.
    pub fn new(step: &Step, input: [usize; 2]) -> Result<Self, String> {
        let mut axes = None;
        let output = match *step {
            Step::Resize(size) => {
                axes = Some(Arc::new([0, 1].map(|d| Axis::new(input[d], size[d]))));
                size
            }
            Step::CenterCrop(size) => size,
            Step::RandomCrop { size, padding } => {
                if [0, 1].iter().any(|&d| size[d] > input[d] + 2 * padding) {
                    return Err(format!(
                        "images of at least {} x {} for a random crop with padding {padding}",
                        size[0], size[1]
                    ));
                }
                size
            }
            Step::RandomHorizontalFlip(_) | Step::RandomRotation(_) => input,
        };
        Ok(Stage {
            step: step.clone(),
            input,
            output,
            axes,
        })
    }

    /// Writes the changed image to `out`; false if it is to stay as it is.
    fn apply<T: Pixel>(
        &self,
        image: &[T],
        rng: Option<&mut CounterRng>,
        between: &mut Vec<T>,
        out: &mut Vec<T>,
    ) -> bool {
        let [height, width] = self.input;
        out.clear();
        match self.step {
            Step::Resize(_) => {
                if let Some(axes) = &self.axes {
                    resize(image, self.input, axes, between, out);
                }
            }
            Step::CenterCrop(_) | Step::RandomCrop { .. } => {
                window(image, self.input, self.offset(rng), self.output, out);
            }
            Step::RandomHorizontalFlip(p) => {
                if !flips(p, rng) {
                    return false;
                }
                for row in image.chunks_exact(width) {
                    out.extend(row.iter().rev());
                }
            }
            Step::RandomRotation([low, high]) => {
                let Some(rng) = rng else { return false };
                let degrees = low + uniform(rng) * (high - low);
                for plane in image.chunks_exact(height * width) {
                    pillow_rotated(height, width, degrees, |source| {
                        out.push(source.map_or(T::default(), |p| plane[p]));
                    });
                }
            }
        }
        true
    }

    /// The same on what is shown of an image; false if that is not a part of it any more.
    pub fn cut(&self, cutout: &mut Cutout, rng: Option<&mut CounterRng>) -> bool {
        match self.step {
            Step::Resize(_) => return false,
            Step::CenterCrop(_) | Step::RandomCrop { .. } => {
                cutout.crop(self.offset(rng), self.output);
            }
            Step::RandomHorizontalFlip(p) => {
                if flips(p, rng) {
                    cutout.mirror();
                }
            }
            Step::RandomRotation(_) => return rng.is_none(),
        }
        true
    }

    /// Where a crop begins: in the middle, or at random.
    fn offset(&self, rng: Option<&mut CounterRng>) -> [isize; 2] {
        match (&self.step, rng) {
            // Rows first, then columns, as torchvision draws them.
            (Step::RandomCrop { size, padding }, Some(rng)) => [0, 1].map(|d| {
                let places = self.input[d] + 2 * padding - size[d] + 1;
                below(rng, places) as isize - *padding as isize
            }),
            _ => [0, 1].map(|d| centred(self.input[d], self.output[d])),
        }
    }
}

/// Whether an image is mirrored; never at rest.
fn flips(p: f32, rng: Option<&mut CounterRng>) -> bool {
    rng.is_some_and(|rng| uniform(rng) < f64::from(p))
}

/// Where a part of `size` begins in the middle of `from` pixels, before them if it is longer; halves
/// to even, as torchvision's `CenterCrop` rounds.
pub(super) fn centred(from: usize, size: usize) -> isize {
    if from >= size {
        ((from - size) as f64 / 2.0).round_ties_even() as isize
    } else {
        -(((size - from) / 2) as isize)
    }
}

/// The part of `size` from `offset` on of each plane, zero outside of the image.
fn window<T: Pixel>(
    image: &[T],
    [height, width]: [usize; 2],
    [top, left]: [isize; 2],
    [rows, columns]: [usize; 2],
    out: &mut Vec<T>,
) {
    // The columns that lie inside, counted within the part.
    let first = ((-left).max(0) as usize).min(columns);
    let end = (width as isize - left).clamp(first as isize, columns as isize) as usize;
    for plane in image.chunks_exact(height * width) {
        for y in 0..rows {
            let start = out.len();
            out.resize(start + columns, T::default());
            let source = top + y as isize;
            if (0..height as isize).contains(&source) && first < end {
                let from = source as usize * width + (left + first as isize) as usize;
                out[start + first..start + end].copy_from_slice(&plane[from..from + end - first]);
            }
        }
    }
}

/// Uniform in `0..n`, from 32 random bits.
fn below(rng: &mut CounterRng, n: usize) -> u32 {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as u32
}

/// Uniform in [0, 1), from 32 random bits.
fn uniform(rng: &mut CounterRng) -> f64 {
    f64::from(rng.next_u32()) / (1u64 << 32) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{CounterKey, Purpose};

    fn rng(sample: u32) -> CounterRng {
        CounterRng::new(CounterKey {
            seed: 1,
            purpose: Purpose::Augmentation,
            step: 2,
            sample,
        })
    }

    fn run(step: Step, size: [usize; 2], image: &[u8], rng: Option<CounterRng>) -> Vec<u8> {
        let stage = Stage::new(&step, size).unwrap();
        let mut scratch = Scratch {
            image: image.to_vec(),
            ..Scratch::default()
        };
        scratch.run(&[stage], rng);
        scratch.image
    }

    /// A 2 x 3 image, two channels.
    const IMAGE: [u8; 12] = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16];

    #[test]
    fn a_crop_shows_every_place_of_the_padded_image_equally_often() {
        let step = Step::RandomCrop {
            size: [2, 3],
            padding: 1,
        };
        // The 4 x 5 image with zeros around it, cut at every one of 3 x 3 places.
        let padded = |channel: usize, y: usize, x: usize| match (y, x) {
            (1..=2, 1..=3) => IMAGE[6 * channel + 3 * (y - 1) + x - 1],
            _ => 0,
        };
        let mut places = Vec::new();
        for (top, left) in (0..9).map(|place| (place / 3, place % 3)) {
            let pixels = (0..12).map(|p| padded(p / 6, top + p % 6 / 3, left + p % 3));
            places.push(pixels.collect::<Vec<u8>>());
        }
        let mut counts = [0f64; 9];
        for sample in 0..9000 {
            let got = run(step.clone(), [2, 3], &IMAGE, Some(rng(sample)));
            let at = places.iter().position(|place| *place == got);
            counts[at.expect("a part of the padded image")] += 1.0;
        }
        // 8 degrees of freedom; beyond 26.1 once in a thousand.
        let chi: f64 = counts.iter().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi <= 26.1, "chi-square {chi}: {counts:?}");
        assert_eq!(run(step, [2, 3], &IMAGE, None), IMAGE, "at rest");
    }

    #[test]
    fn flips_mirror_rows_with_their_probability() {
        let flip = |p, sample| {
            let step = Step::RandomHorizontalFlip(p);
            run(step, [2, 3], &IMAGE, Some(rng(sample)))
        };
        let mirrored = [3, 2, 1, 6, 5, 4, 13, 12, 11, 16, 15, 14];
        assert_eq!(
            (flip(1.0, 0), flip(0.0, 0)),
            (mirrored.to_vec(), IMAGE.to_vec())
        );
        let flipped = (0..10_000).filter(|&s| flip(0.5, s) == mirrored).count();
        // Five standard deviations of 50.
        assert!((4750..=5250).contains(&flipped), "{flipped} of 10000");
        let step = Step::RandomHorizontalFlip(1.0);
        assert_eq!(run(step, [2, 3], &IMAGE, None), IMAGE, "at rest");
    }

    #[test]
    fn rotations_turn_between_their_angles() {
        let square = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let turned = |low, high, rng| run(Step::RandomRotation([low, high]), [3, 3], &square, rng);
        assert_eq!(
            turned(90.0, 90.0, Some(rng(0))),
            [3, 6, 9, 2, 5, 8, 1, 4, 7]
        );
        assert_eq!(turned(90.0, 90.0, None), square, "at rest");
        let images: std::collections::BTreeSet<_> = (0..200)
            .map(|s| turned(-45.0, 45.0, Some(rng(s))))
            .collect();
        assert!(images.len() > 2, "angles differ: {images:?}");
        assert!(images.iter().all(|i| i[4] == 5), "about the centre");
    }

    /// torchvision's `CenterCrop`: offsets 2 (1.5 to even) and 0 (0.5 to even), padding 1 | 2.
    #[test]
    fn the_middle_is_torchvisions() {
        assert_eq!([centred(5, 2), centred(3, 2), centred(6, 2)], [2, 0, 2]);
        assert_eq!([centred(2, 5), centred(2, 2)], [-1, 0]);
        let crop = |size| run(Step::CenterCrop(size), [2, 3], &IMAGE[..6], None);
        assert_eq!(crop([1, 1]), [2]);
        assert_eq!(crop([2, 1]), [2, 5]);
        assert_eq!(crop([4, 2]), [0, 0, 1, 2, 4, 5, 0, 0]);
        assert_eq!(crop([1, 6]), [0, 1, 2, 3, 0, 0]);
    }

    #[test]
    fn a_crop_larger_than_the_image_is_refused() {
        let step = |size| Step::RandomCrop { size, padding: 2 };
        assert!(Stage::new(&step([6, 7]), [2, 3]).is_ok());
        let message = Stage::new(&step([6, 8]), [2, 3]).unwrap_err();
        assert!(message.contains("at least 6 x 8"), "{message}");
    }
}
