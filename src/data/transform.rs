//! From stored pixels to what the network sees.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;

use super::augment::{Scratch, Stage, Step};
use super::resize::Pixel;
use super::view::OUTSIDE;
use crate::pixels::{Cutout, PixelRowRef, look_up};
use crate::rng::{CounterKey, CounterRng};
use crate::{Error, Result};

/// Which of the two transforms of a [`TransformGroups`] a sample goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// While training and when a sample is replayed.
    Train,
    /// For evaluation and for the logits that are stored with replay samples; random steps rest.
    Eval,
}

/// Maps stored pixels to f32: the steps that change the geometry run on the pixels as they are
/// stored, in the order in which they were added; then bytes are divided by 255 (floats stay as they
/// are); then each channel is normalised if a mean and standard deviation were given.
///
/// The arithmetic is torchvision's `ToTensor` followed by `Normalize`, operation by operation in
/// f32: `(b / 255 - mean) / std`.
///
/// What a random step does to a sample follows from a [`CounterKey`] alone (seed of the run, training
/// step, row of the mini-batch), so it does not depend on threads or on what was drawn before.
/// Without a key, random steps rest: crops are taken from the middle, nothing is mirrored or turned.
///
/// ```
/// use unforget::data::Transform;
/// let mut out = [0.0; 2];
/// Transform::default().write_u8(&[0, 255], None, &mut out);
/// assert_eq!(out, [0.0, 1.0]);
/// // What CIFAR-10 is trained with.
/// let train = Transform::cifar10().random_crop(32, 32, 4).random_horizontal_flip(0.5);
/// assert!(train.is_random());
/// ```
#[derive(Clone, Debug)]
pub struct Transform {
    steps: Vec<Step>,
    /// The steps for the size of image that this transform was fitted to.
    stages: Vec<Stage>,
    /// Mean and standard deviation of each channel.
    normalize: Option<Box<[(f32, f32)]>>,
    /// What each byte becomes: one table a channel, or a single one without normalisation.
    tables: Arc<[[f32; 256]]>,
}

impl Default for Transform {
    /// Bytes to [0, 1], floats unchanged.
    fn default() -> Self {
        Transform {
            steps: Vec::new(),
            stages: Vec::new(),
            normalize: None,
            tables: Arc::new([std::array::from_fn(|b| b as f32 / 255.0)]),
        }
    }
}

impl Transform {
    /// To [0, 1] (bytes only), then `(x - mean) / std` with one mean and one standard deviation a
    /// channel.
    ///
    /// # Panics
    /// If the lengths differ or are zero, a mean is not finite, or a standard deviation is not
    /// finite and positive.
    #[track_caller]
    pub fn normalize(mean: &[f32], std: &[f32]) -> Self {
        assert!(
            !mean.is_empty() && mean.len() == std.len(),
            "normalize: {} means for {} standard deviations",
            mean.len(),
            std.len()
        );
        assert!(
            mean.iter().all(|m| m.is_finite()) && std.iter().all(|&s| s.is_finite() && s > 0.0),
            "normalize: mean {mean:?} must be finite and std {std:?} positive"
        );
        let stats: Box<[_]> = mean.iter().copied().zip(std.iter().copied()).collect();
        Transform {
            steps: Vec::new(),
            stages: Vec::new(),
            tables: stats
                .iter()
                .map(|&(mean, std)| std::array::from_fn(|b| (b as f32 / 255.0 - mean) / std))
                .collect(),
            normalize: Some(stats),
        }
    }

    /// The constants of MNIST: mean 0.1307, standard deviation 0.3081.
    pub fn mnist() -> Self {
        Self::normalize(&[0.1307], &[0.3081])
    }

    /// The constants of Fashion-MNIST: mean 0.2860, standard deviation 0.3530.
    pub fn fmnist() -> Self {
        Self::normalize(&[0.2860], &[0.3530])
    }

    /// The constants of CIFAR-10 (red, green, blue).
    pub fn cifar10() -> Self {
        Self::normalize(&[0.4914, 0.4822, 0.4465], &[0.2023, 0.1994, 0.2010])
    }

    /// The constants of CIFAR-100 (red, green, blue).
    pub fn cifar100() -> Self {
        Self::normalize(&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762])
    }

    /// Adds scaling to `height` x `width`, torchvision's `Resize((height, width))` on images: Pillow's
    /// bilinear filter with anti-aliasing, to the bit on bytes.
    ///
    /// # Panics
    /// If a dimension is zero.
    #[track_caller]
    pub fn resize(self, height: usize, width: usize) -> Self {
        self.step(Step::Resize(checked("resize", height, width)))
    }

    /// Adds torchvision's `CenterCrop((height, width))`; zeros around an image that is smaller.
    ///
    /// # Panics
    /// If a dimension is zero.
    #[track_caller]
    pub fn center_crop(self, height: usize, width: usize) -> Self {
        self.step(Step::CenterCrop(checked("center_crop", height, width)))
    }

    /// Adds torchvision's `RandomCrop((height, width), padding)`: `padding` zeros on every side, then
    /// a part at a place that is uniform among all.
    ///
    /// # Panics
    /// If a dimension is zero or the padding exceeds 2^16.
    #[track_caller]
    pub fn random_crop(self, height: usize, width: usize, padding: usize) -> Self {
        assert!(padding <= 1 << 16, "random_crop: padding {padding}");
        let size = checked("random_crop", height, width);
        self.step(Step::RandomCrop { size, padding })
    }

    /// Adds torchvision's `RandomHorizontalFlip(p)`: mirrored left to right with probability `p`.
    ///
    /// # Panics
    /// If `p` is not in [0, 1].
    #[track_caller]
    pub fn random_horizontal_flip(self, p: f32) -> Self {
        let range = 0.0..=1.0;
        assert!(
            range.contains(&p),
            "random_horizontal_flip: probability {p}"
        );
        self.step(Step::RandomHorizontalFlip(p))
    }

    /// Adds torchvision's `RandomRotation((low, high))` on images: counter-clockwise by an angle uniform
    /// between `low` and `high` degrees, nearest pixel, same size, zeros outside.
    ///
    /// # Panics
    /// If the angles are not finite or `low` exceeds `high`.
    #[track_caller]
    pub fn random_rotation(self, low: f64, high: f64) -> Self {
        let fit = low.is_finite() && high.is_finite() && low <= high;
        assert!(fit, "random_rotation: from {low} to {high} degrees");
        self.step(Step::RandomRotation([low, high]))
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self.stages.clear();
        self
    }

    /// Whether the same sample may come out differently.
    pub fn is_random(&self) -> bool {
        let rests = |s: &Step| matches!(s, Step::Resize(_) | Step::CenterCrop(_));
        !self.steps.iter().all(rests)
    }

    /// Whether there are steps that change the geometry: worth several threads.
    pub fn is_costly(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The transform for images of `shape` (channels, height, width), with the shape that they get.
    ///
    /// # Errors
    /// [`Error::Config`] if it normalises another number of channels, or a random crop is larger
    /// than the image with its padding.
    pub fn fit(&self, shape: [usize; 3]) -> Result<(Self, [usize; 3])> {
        let [channels, height, width] = shape;
        if let Some(wanted) = self.channels().filter(|&wanted| wanted != channels) {
            return Err(Error::config(
                "transform",
                format!("images of {wanted} channels for a normalisation of {wanted}"),
                format!("images of {shape:?}"),
            ));
        }
        let (mut size, mut stages) = ([height, width], Vec::with_capacity(self.steps.len()));
        for step in &self.steps {
            let stage = Stage::new(step, size).map_err(|expected| {
                Error::config("transform", expected, format!("{} x {}", size[0], size[1]))
            })?;
            size = stage.output;
            stages.push(stage);
        }
        let fitted = Transform {
            stages,
            ..self.clone()
        };
        Ok((fitted, [channels, size[0], size[1]]))
    }

    /// The constants of CIFAR-10 in the paper of DER; [`cifar10`](Self::cifar10) has Avalanche's.
    pub fn cifar10_paper() -> Self {
        Self::normalize(&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2615])
    }

    /// The constants of CIFAR-100 in the paper of DER; [`cifar100`](Self::cifar100) has Avalanche's.
    pub fn cifar100_paper() -> Self {
        Self::normalize(&[0.5071, 0.4867, 0.4408], &[0.2675, 0.2565, 0.2761])
    }

    /// The constants of Tiny-ImageNet in the paper of DER; Avalanche takes CIFAR-10's.
    pub fn tiny_imagenet_paper() -> Self {
        Self::normalize(&[0.4802, 0.4480, 0.3975], &[0.2770, 0.2691, 0.2821])
    }

    /// The constants of ImageNet (red, green, blue), also for CORe50.
    pub fn imagenet() -> Self {
        Self::normalize(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])
    }

    /// The number of channels that this transform was made for; `None` fits any.
    pub fn channels(&self) -> Option<usize> {
        self.normalize.as_ref().map(|stats| stats.len())
    }

    /// Writes the transformed `pixels` (channels x positions) to `out`; random steps rest.
    ///
    /// With a `map`, position p of each channel takes the source position `map[p]`, or a zero pixel
    /// where that is [`OUTSIDE`]; the map is applied before everything else.
    ///
    /// # Panics
    /// If the lengths do not fit, or there are steps and the transform was not
    /// [fitted](Transform::fit) to a size of image.
    #[track_caller]
    pub fn write_u8(&self, pixels: &[u8], map: Option<&[u32]>, out: &mut [f32]) {
        self.write(pixels, map, None, out);
    }

    /// As [`Transform::write_u8`], from floats, which are not divided by 255.
    ///
    /// # Panics
    /// As [`Transform::write_u8`].
    #[track_caller]
    pub fn write_f32(&self, pixels: &[f32], map: Option<&[u32]>, out: &mut [f32]) {
        self.write(pixels, map, None, out);
    }

    /// As [`Transform::write_u8`] from either kind of pixels, with random steps drawn from `key`.
    #[track_caller]
    pub(super) fn write<T: Stored>(
        &self,
        pixels: &[T],
        map: Option<&[u32]>,
        key: Option<CounterKey>,
        out: &mut [f32],
    ) {
        if self.steps.is_empty() {
            return self.finish(pixels, map, out);
        }
        let fitted = self.steps.len() == self.stages.len();
        assert!(
            fitted,
            "transform: steps that were not fitted to a size of image"
        );
        T::SCRATCH.with_borrow_mut(|scratch| {
            rearrange(pixels, map, &mut scratch.image);
            scratch.run(&self.stages, key.map(CounterRng::new));
            self.finish(&scratch.image, None, out);
        });
    }

    /// What [`write`](Self::write) makes of stored bytes, as a [`PixelRow`](crate::pixels::PixelRow): those from `first` on are
    /// the `len` of this image. `None` if that is more than a part of it.
    ///
    /// # Panics
    /// If the transform was not [fitted](Transform::fit) to a size of image.
    #[track_caller]
    pub(super) fn pixel_row<'a>(
        &'a self,
        pixels: &'a Arc<[u8]>,
        first: usize,
        len: usize,
        map: Option<&'a Arc<[u32]>>,
        key: Option<CounterKey>,
    ) -> Option<PixelRowRef<'a>> {
        let plane = map.map_or(len / self.tables.len(), |map| map.len());
        let mut cutout = Cutout::whole([1, plane]);
        if !self.steps.is_empty() {
            cutout = Cutout::whole(self.stages.first().expect("a fitted transform").input);
        }
        let mut rng = key.map(CounterRng::new);
        (self.stages.iter())
            .all(|stage| stage.cut(&mut cutout, rng.as_mut()))
            .then_some(PixelRowRef {
                pixels,
                first,
                map,
                tables: &self.tables,
                cutout,
            })
    }

    /// To f32 and normalised.
    #[track_caller]
    fn finish<T: Stored>(&self, pixels: &[T], map: Option<&[u32]>, out: &mut [f32]) {
        let plane = self.plane(pixels.len(), map, out.len());
        let channels = pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane));
        for (c, (source, out)) in channels.enumerate() {
            T::finish(self, c, source, map, out);
        }
    }

    /// The number of positions of one channel.
    #[track_caller]
    fn plane(&self, pixels: usize, map: Option<&[u32]>, out: usize) -> usize {
        let channels = self.tables.len();
        let plane = map.map_or(pixels / channels, <[u32]>::len);
        assert!(
            plane > 0
                && pixels == out
                && pixels.is_multiple_of(plane)
                && (self.normalize.is_none() || pixels == plane * channels),
            "transform: {pixels} pixels to {out} values, {channels} channels of {plane}"
        );
        plane
    }
}

#[track_caller]
fn checked(name: &str, height: usize, width: usize) -> [usize; 2] {
    let fit = (1..=1 << 16).contains(&height) && (1..=1 << 16).contains(&width);
    assert!(fit, "{name}: {height} x {width} pixels");
    [height, width]
}

/// A pixel as data sets hold it.
pub(super) trait Stored: Pixel {
    const SCRATCH: &'static LocalKey<RefCell<Scratch<Self>>>;

    /// Channel `c`, from stored pixels to what the network sees.
    fn finish(transform: &Transform, c: usize, from: &[Self], map: Option<&[u32]>, to: &mut [f32]);
}

thread_local! {
    static BYTES: RefCell<Scratch<u8>> = RefCell::default();
    static FLOATS: RefCell<Scratch<f32>> = RefCell::default();
}

impl Stored for u8 {
    const SCRATCH: &'static LocalKey<RefCell<Scratch<u8>>> = &BYTES;

    fn finish(transform: &Transform, c: usize, from: &[u8], map: Option<&[u32]>, to: &mut [f32]) {
        let table = &transform.tables[c.min(transform.tables.len() - 1)];
        look_up(table, from, map, to);
    }
}

impl Stored for f32 {
    const SCRATCH: &'static LocalKey<RefCell<Scratch<f32>>> = &FLOATS;

    fn finish(transform: &Transform, c: usize, from: &[f32], map: Option<&[u32]>, to: &mut [f32]) {
        match map {
            None => to.copy_from_slice(from),
            Some(map) => (to.iter_mut().zip(map)).for_each(|(o, &p)| *o = pick(from, p)),
        }
        if let Some(stats) = &transform.normalize {
            let (mean, std) = stats[c];
            to.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }
}

/// The pixels in the places that `map` gives them.
pub(super) fn rearrange<T: Copy + Default>(pixels: &[T], map: Option<&[u32]>, out: &mut Vec<T>) {
    out.clear();
    match map {
        None => out.extend_from_slice(pixels),
        Some(map) => {
            for channel in pixels.chunks_exact(map.len()) {
                out.extend(map.iter().map(|&p| pick(channel, p)));
            }
        }
    }
}

/// The pixel at `position`, or zero outside the image.
#[inline]
fn pick<T: Copy + Default>(channel: &[T], position: u32) -> T {
    if position == OUTSIDE {
        T::default()
    } else {
        channel[position as usize]
    }
}

/// The transforms of a data set: one for training, one for evaluation.
#[derive(Clone, Debug, Default)]
pub struct TransformGroups {
    /// For training and for replayed samples, each of which is varied anew.
    pub train: Transform,
    /// For evaluation and for stored logits; random steps rest.
    pub eval: Transform,
}

impl TransformGroups {
    /// The same transform for both.
    pub fn same(transform: Transform) -> Self {
        TransformGroups {
            train: transform.clone(),
            eval: transform,
        }
    }

    /// Both transforms [fitted](Transform::fit) to images of `shape`, with the shape that they get.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Transform::fit`], or if the two give images of different shapes.
    pub fn fit(&self, shape: [usize; 3]) -> Result<(Self, [usize; 3])> {
        let (train, seen) = self.train.fit(shape)?;
        let (eval, evaluated) = self.eval.fit(shape)?;
        if seen != evaluated {
            return Err(Error::config(
                "evaluation transform",
                format!("images of {seen:?}, as the training transform gives"),
                format!("{evaluated:?}"),
            ));
        }
        Ok((TransformGroups { train, eval }, seen))
    }

    /// The transform of `group`.
    pub fn get(&self, group: Group) -> &Transform {
        match group {
            Group::Train => &self.train,
            Group::Eval => &self.eval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Normalize(0.1307, 0.3081)` of `b / 255` in f32, each operation rounded.
    #[test]
    fn bytes_are_normalised_as_by_torchvision() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut out = [0.0; 256];
        Transform::mnist().write_u8(&bytes, None, &mut out);
        for (b, x) in out.into_iter().enumerate() {
            assert_eq!(x, (b as f32 / 255.0f32 - 0.1307f32) / 0.3081f32);
        }
        assert!((out[0] + 0.4242).abs() < 1e-4 && (out[255] - 2.8215).abs() < 1e-4);
    }

    #[test]
    fn each_channel_has_its_own_constants_and_the_map_comes_first() {
        let transform = Transform::normalize(&[0.5, 0.0], &[0.5, 2.0]);
        let mut out = [9.0; 4];
        transform.write_u8(&[0, 255, 0, 255], Some(&[1, OUTSIDE]), &mut out);
        assert_eq!(out, [1.0, -1.0, 0.5, 0.0]);
        transform.write_f32(&[0.0, 4.0, 0.0, 4.0], Some(&[1, OUTSIDE]), &mut out);
        assert_eq!(out, [7.0, -1.0, 2.0, 0.0]);
        Transform::default().write_u8(&[0, 255, 51, 255], Some(&[1, 0]), &mut out);
        assert_eq!(out, [1.0, 0.0, 1.0, 0.2]);
    }

    /// What a crop pulls in from outside is black before the normalisation, not after it.
    #[test]
    fn steps_come_before_the_normalisation() {
        let transform = Transform::normalize(&[0.5], &[0.25])
            .center_crop(1, 4)
            .random_horizontal_flip(1.0);
        let (transform, shape) = transform.fit([1, 1, 2]).unwrap();
        assert_eq!((shape, transform.is_random()), ([1, 1, 4], true));
        let mut out = [9.0; 4];
        transform.write_u8(&[0, 255], Some(&[1, OUTSIDE]), &mut out);
        assert_eq!(out, [-2.0, 2.0, -2.0, -2.0]);
        let key = CounterKey {
            seed: 0,
            purpose: crate::rng::Purpose::Augmentation,
            step: 0,
            sample: 0,
        };
        transform.write(&[0.5f32, 1.0], Some(&[1, 0]), Some(key), &mut out);
        assert_eq!(out, [-2.0, 0.0, 2.0, -2.0]);
    }

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let crop = Transform::default().random_crop(4, 4, 1);
        let groups = TransformGroups {
            train: crop.clone(),
            eval: Transform::default(),
        };
        for (result, want) in [
            (crop.fit([1, 1, 2]).map(|_| ()), "at least 4 x 4"),
            (
                Transform::cifar10().fit([1, 8, 8]).map(|_| ()),
                "3 channels",
            ),
            (
                groups.fit([1, 3, 3]).map(|_| ()),
                "[1, 4, 4], as the training",
            ),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
        assert!(groups.fit([1, 4, 4]).is_ok());
        // Steps follow one another: after scaling there is room.
        let scaled = Transform::default().resize(2, 2).random_crop(4, 4, 1);
        assert_eq!(scaled.fit([1, 9, 9]).unwrap().1, [1, 4, 4]);
    }

    #[test]
    #[should_panic(expected = "not fitted")]
    fn steps_need_a_size_of_image() {
        Transform::default()
            .center_crop(1, 1)
            .write_u8(&[0; 4], None, &mut [0.0; 1]);
    }

    #[test]
    #[should_panic(expected = "3 pixels to 3 values, 2 channels")]
    fn channels_that_do_not_fit_are_a_callers_bug() {
        Transform::normalize(&[0.0; 2], &[1.0; 2]).write_f32(&[0.0; 3], None, &mut [0.0; 3]);
    }
}
