//! Views of data sets: which samples, under which labels, through which transforms.

use std::sync::Arc;

use ndarray::Array4;

use super::gather::gather_rows;
use super::transform::rearrange;
use super::{Dataset, Group, Pixels, Transform, TransformGroups};
use crate::pixels::PixelRowRef;
use crate::rng::CounterKey;

/// The entry of a pixel map for a position outside the source image: a zero pixel.
pub const OUTSIDE: u32 = u32::MAX;

/// A view of samples of one or several [`Dataset`]s of the same shape; a clone shares everything.
///
/// Sample i has an image, a target and a task label. The builder methods return a changed view and
/// copy no pixel. Where pictures lie on the disk, what reads one that cannot be read unwinds with the
/// [`Error`](crate::Error), which [`Tape::guard`](crate::tape::Tape::guard), and so every training and
/// evaluation, turns back into one.
///
/// ```
/// use unforget::data::{ClassificationDataset, Dataset, Group, TransformGroups};
/// let data = Dataset::from_u8("dots", [1, 1, 2], vec![0, 255, 255, 0], vec![0, 1], 2)?;
/// let view = ClassificationDataset::new(data, TransformGroups::default()).subset(&[1]);
/// let mut image = [0.0; 2];
/// view.write_sample(0, Group::Eval, &mut image);
/// assert_eq!((view.target(0), view.source_index(0), image), (1, 1, [1.0, 0.0]));
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClassificationDataset {
    sources: Arc<[Source]>,
    samples: Arc<[Sample]>,
    n_classes: usize,
}

/// What the samples of one origin have in common.
#[derive(Clone, Debug)]
struct Source {
    dataset: Dataset,
    pixel_map: Option<Arc<[u32]>>,
    task_label: u32,
    transforms: Arc<TransformGroups>,
    /// Of an image after its transform.
    shape: [usize; 3],
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    source: u32,
    index: u32,
    target: u32,
}

impl ClassificationDataset {
    /// All samples of `dataset` in order, task label 0.
    ///
    /// # Panics
    /// If the transforms do not fit the images: see [`TransformGroups::fit`], which tells before.
    #[track_caller]
    pub fn new(dataset: Dataset, transforms: TransformGroups) -> Self {
        Self::with_shared_transforms(dataset, Arc::new(transforms))
    }

    /// As [`ClassificationDataset::new`], with transforms that other views use too.
    ///
    /// # Panics
    /// As [`ClassificationDataset::new`].
    #[track_caller]
    pub fn with_shared_transforms(dataset: Dataset, transforms: Arc<TransformGroups>) -> Self {
        let (fitted, shape) = match transforms.fit(dataset.shape()) {
            Ok(fitted) => fitted,
            Err(error) => panic!("data set {}: {error}", dataset.name()),
        };
        let costly = transforms.train.is_costly() || transforms.eval.is_costly();
        let transforms = if costly { Arc::new(fitted) } else { transforms };
        let targets = (0..).zip(dataset.targets());
        ClassificationDataset {
            samples: targets
                .map(|(index, &target)| Sample {
                    source: 0,
                    index,
                    target,
                })
                .collect(),
            n_classes: dataset.n_classes(),
            sources: Arc::new([Source {
                dataset,
                pixel_map: None,
                task_label: 0,
                transforms,
                shape,
            }]),
        }
    }

    /// The samples at `indices` of this view, in that order.
    ///
    /// # Panics
    /// If an index is out of range.
    #[track_caller]
    pub fn subset(&self, indices: &[u32]) -> Self {
        let mut samples = Vec::with_capacity(indices.len());
        for &i in indices {
            let n = self.len();
            assert!((i as usize) < n, "subset: sample {i} of a data set of {n}");
            samples.push(self.samples[i as usize]);
        }
        ClassificationDataset {
            samples: samples.into(),
            ..self.clone()
        }
    }

    /// The same images with their pixels rearranged: position p (row-major) of every channel shows
    /// what position `map[p]` showed before, or a zero pixel for [`OUTSIDE`].
    ///
    /// # Panics
    /// If the map does not have height x width entries, or one points outside the image otherwise
    /// than by [`OUTSIDE`].
    #[track_caller]
    pub fn with_pixel_map(&self, map: impl Into<Arc<[u32]>>) -> Self {
        let map: Arc<[u32]> = map.into();
        let [_, height, width] = self.sources[0].dataset.shape();
        let plane = height * width;
        assert!(
            map.len() == plane
                && map.iter().all(|&p| p == OUTSIDE || (p as usize) < plane)
                && (self.sources.iter()).all(|s| s.dataset.shape()[1..] == [height, width]),
            "with_pixel_map: {} entries, the largest {:?}, for images of {height} x {width}",
            map.len(),
            map.iter().filter(|&&p| p != OUTSIDE).max()
        );
        self.map_sources(|source| Source {
            pixel_map: Some(match &source.pixel_map {
                None => map.clone(),
                Some(first) => map
                    .iter()
                    .map(|&p| if p == OUTSIDE { p } else { first[p as usize] })
                    .collect(),
            }),
            ..source.clone()
        })
    }

    /// The same images under other labels; [`ClassificationDataset::n_classes`] becomes the largest
    /// of them + 1.
    ///
    /// # Panics
    /// If there is not one target a sample.
    #[track_caller]
    pub fn with_targets(&self, targets: &[u32]) -> Self {
        let (given, n) = (targets.len(), self.len());
        assert!(given == n, "with_targets: {given} targets for {n} samples");
        let relabelled = |(sample, &target): (&Sample, &u32)| Sample { target, ..*sample };
        ClassificationDataset {
            sources: self.sources.clone(),
            samples: self.samples.iter().zip(targets).map(relabelled).collect(),
            n_classes: targets.iter().max().map_or(0, |&t| t as usize + 1),
        }
    }

    /// The same samples, all with this task label.
    pub fn with_task_label(&self, task_label: u32) -> Self {
        self.map_sources(|source| Source {
            task_label,
            ..source.clone()
        })
    }

    /// All samples of all `parts`, one part after the other.
    ///
    /// # Panics
    /// If there is no part, or their images differ in shape.
    #[track_caller]
    pub fn concat(parts: &[ClassificationDataset]) -> Self {
        let shape = parts.first().expect("concat: no part").shape();
        let (mut sources, mut samples) = (Vec::new(), Vec::new());
        for part in parts {
            let other = part.shape();
            assert!(
                other == shape,
                "concat: images of {shape:?} and of {other:?}"
            );
            let offset = sources.len() as u32;
            sources.extend_from_slice(&part.sources);
            let moved = |s: &Sample| Sample {
                source: s.source + offset,
                ..*s
            };
            samples.extend(part.samples.iter().map(moved));
        }
        ClassificationDataset {
            sources: sources.into(),
            samples: samples.into(),
            n_classes: parts.iter().map(|p| p.n_classes).max().unwrap_or(0),
        }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Channels, height and width of every image after its transform.
    pub fn shape(&self) -> [usize; 3] {
        self.sources[0].shape
    }

    /// The number of classes that the labels are numbered for; every target is below it.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The label of sample `i`.
    #[track_caller]
    pub fn target(&self, i: usize) -> u32 {
        self.samples[i].target
    }

    /// All labels in order.
    pub fn targets(&self) -> Vec<u32> {
        self.samples.iter().map(|sample| sample.target).collect()
    }

    /// The task label of sample `i`.
    #[track_caller]
    pub fn task_label(&self, i: usize) -> u32 {
        self.source(i).task_label
    }

    /// The place of sample `i` in the [`Dataset`] that it comes from.
    #[track_caller]
    pub fn source_index(&self, i: usize) -> u32 {
        self.samples[i].index
    }

    /// The transforms of sample `i`.
    #[track_caller]
    pub fn transforms(&self, i: usize) -> &Arc<TransformGroups> {
        &self.source(i).transforms
    }

    /// Writes the image of sample `i`, transformed for `group`, to `out` (channels x height x
    /// width); random steps rest. Allocates nothing once warm.
    ///
    /// # Panics
    /// If `i` is out of range or `out` has another length.
    #[track_caller]
    pub fn write_sample(&self, i: usize, group: Group, out: &mut [f32]) {
        self.write(i, group, None, out);
    }

    /// Writes a mini-batch: the images of `samples`, row after row, transformed for `group`, to `out`.
    ///
    /// In training, random steps are drawn for row r from `key` with its sample moved on by r, so
    /// that a row depends on neither the others nor on the threads that costly transforms run on.
    /// In evaluation they rest.
    ///
    /// # Panics
    /// If a sample is out of range or `out` has another length.
    #[track_caller]
    pub fn gather(&self, samples: &[usize], group: Group, key: CounterKey, out: &mut [f32]) {
        gather_rows(
            samples.len(),
            self.is_costly(group),
            group,
            key,
            out,
            |row, key, out| {
                self.write(samples[row], group, key, out);
            },
        );
    }

    /// Whether rows of it are worth several threads.
    pub(crate) fn is_costly(&self, group: Group) -> bool {
        let costly = |s: &Source| s.dataset.is_on_disk() || s.transforms.get(group).is_costly();
        self.sources.iter().any(costly)
    }

    /// Whether all its rows are stored bytes that are looked up and no more.
    pub(crate) fn is_looked_up(&self, group: Group) -> bool {
        let bytes = |s: &Source| matches!(s.dataset.pixels(), Pixels::U8(_));
        self.sources.iter().all(bytes) && !self.is_costly(group)
    }

    /// How many views share the samples of this one.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.samples)
    }

    /// As [`gather`](Self::gather), all on this thread: for a thread that is one of many.
    #[track_caller]
    pub(crate) fn gather_alone(
        &self,
        samples: &[usize],
        group: Group,
        key: CounterKey,
        out: &mut [f32],
    ) {
        gather_rows(samples.len(), false, group, key, out, |row, key, out| {
            self.write(samples[row], group, key, out);
        });
    }

    /// What [`gather`](Self::gather) writes for sample `i`, for a device that makes rows itself; `None` if
    /// the pixels are not bytes in memory, or the transform does more than cut out and mirror.
    ///
    /// # Panics
    /// If `i` is out of range.
    #[track_caller]
    pub fn pixel_row(
        &self,
        i: usize,
        group: Group,
        key: Option<CounterKey>,
    ) -> Option<PixelRowRef<'_>> {
        let source = self.source(i);
        let Pixels::U8(pixels) = source.dataset.pixels() else {
            return None;
        };
        let range = self.pixel_range(i);
        let (transform, map) = (source.transforms.get(group), source.pixel_map.as_ref());
        transform.pixel_row(pixels, range.start, range.len(), map, key)
    }

    #[track_caller]
    fn write(&self, i: usize, group: Group, key: Option<CounterKey>, out: &mut [f32]) {
        let source = self.source(i);
        let transform = source.transforms.get(group);
        let map = source.pixel_map.as_deref();
        let range = self.pixel_range(i);
        match source.dataset.pixels() {
            Pixels::U8(pixels) => transform.write(&pixels[range], map, key, out),
            Pixels::F32(pixels) => transform.write(&pixels[range], map, key, out),
            Pixels::Files(files) => {
                let index = self.samples[i].index as usize;
                files.with(index, |pixels| transform.write(pixels, map, key, out));
            }
        }
    }

    /// A copy of the image of sample `i` as it is stored, with its pixels rearranged but not
    /// normalised.
    ///
    /// # Panics
    /// If `i` is out of range.
    #[track_caller]
    pub fn raw(&self, i: usize) -> RawSample {
        let source = self.source(i);
        let map = source.pixel_map.as_deref();
        let range = self.pixel_range(i);
        match source.dataset.pixels() {
            Pixels::U8(pixels) => RawSample::U8(rearranged(&pixels[range], map)),
            Pixels::F32(pixels) => RawSample::F32(rearranged(&pixels[range], map)),
            Pixels::Files(files) => {
                let index = self.samples[i].index as usize;
                RawSample::U8(files.with(index, |pixels| rearranged(pixels, map)))
            }
        }
    }

    /// All images, transformed for `group`: samples x channels x height x width.
    pub fn images(&self, group: Group) -> Array4<f32> {
        let [channels, height, width] = self.shape();
        let mut images = Array4::zeros((self.len(), channels, height, width));
        for (i, mut image) in images.outer_iter_mut().enumerate() {
            let out = image.as_slice_mut().expect("a fresh array is contiguous");
            self.write_sample(i, group, out);
        }
        images
    }

    #[track_caller]
    fn source(&self, i: usize) -> &Source {
        &self.sources[self.samples[i].source as usize]
    }

    fn pixel_range(&self, i: usize) -> std::ops::Range<usize> {
        let size = self.source(i).dataset.shape().iter().product::<usize>();
        let start = self.samples[i].index as usize * size;
        start..start + size
    }

    fn map_sources(&self, change: impl Fn(&Source) -> Source) -> Self {
        ClassificationDataset {
            sources: self.sources.iter().map(change).collect(),
            ..self.clone()
        }
    }
}

fn rearranged<T: Copy + Default, Out>(pixels: &[T], map: Option<&[u32]>) -> Out
where
    Out: From<Vec<T>> + for<'a> From<&'a [T]>,
{
    if map.is_none() {
        return pixels.into();
    }
    let mut out = Vec::with_capacity(pixels.len());
    rearrange(pixels, map, &mut out);
    out.into()
}

/// One image in its stored form, owned: what a replay buffer keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum RawSample {
    /// Bytes, channels x height x width; shared, so that a device that has a copy knows them again.
    U8(Arc<[u8]>),
    /// Floats, channels x height x width.
    F32(Box<[f32]>),
}

impl RawSample {
    /// Writes the transformed image to `out`; random steps are drawn from `key`, or rest.
    ///
    /// # Panics
    /// If `out` has another length.
    #[track_caller]
    pub fn write(&self, transform: &Transform, key: Option<CounterKey>, out: &mut [f32]) {
        match self {
            RawSample::U8(pixels) => transform.write(pixels, None, key, out),
            RawSample::F32(pixels) => transform.write(pixels, None, key, out),
        }
    }

    /// The same for a device that makes rows itself, as [`ClassificationDataset::pixel_row`].
    pub fn pixel_row<'a>(
        &'a self,
        transform: &'a Transform,
        key: Option<CounterKey>,
    ) -> Option<PixelRowRef<'a>> {
        match self {
            RawSample::U8(pixels) => transform.pixel_row(pixels, 0, pixels.len(), None, key),
            RawSample::F32(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(n: usize) -> Dataset {
        let pixels = (0..n * 4).map(|x| x as f32).collect();
        Dataset::from_f32("counting", [2, 1, 2], pixels, (0..n as u32).collect(), n).unwrap()
    }

    fn image(view: &ClassificationDataset, i: usize) -> Vec<f32> {
        let mut out = vec![0.0; 4];
        view.write_sample(i, Group::Train, &mut out);
        let mut replayed = vec![0.0; 4];
        view.raw(i)
            .write(&view.transforms(i).train, None, &mut replayed);
        assert_eq!(out, replayed, "the stored form gives the same image");
        out
    }

    #[test]
    fn views_compose() {
        let whole = ClassificationDataset::new(counting(5), TransformGroups::default());
        let swapped = whole
            .subset(&[4, 1])
            .with_pixel_map([1, 0])
            .with_task_label(7);
        assert_eq!(image(&swapped, 0), [17.0, 16.0, 19.0, 18.0]);
        assert_eq!(
            image(&swapped.with_pixel_map([OUTSIDE, 0]), 1),
            [0.0, 5.0, 0.0, 7.0]
        );

        let both = ClassificationDataset::concat(&[whole.subset(&[2]), swapped]);
        assert_eq!(both.targets(), [2, 4, 1]);
        assert_eq!([0, 1, 2].map(|i| both.task_label(i)), [0, 7, 7]);
        let picked = both.subset(&[2, 0]).with_targets(&[0, 9]);
        assert_eq!((picked.targets(), picked.n_classes()), (vec![0, 9], 10));
        assert_eq!([picked.source_index(0), picked.source_index(1)], [1, 2]);
        assert_eq!(image(&picked, 0), [5.0, 4.0, 7.0, 6.0]);
        let images = both.images(Group::Eval);
        assert_eq!(images.shape(), [3, 2, 1, 2]);
        assert_eq!(images[[1, 1, 0, 0]], 19.0);
    }

    /// A device makes the rows that the host makes, from the same random numbers.
    #[test]
    fn pixel_rows_are_the_rows_that_are_written() {
        let pixels: Vec<u8> = (0..2 * 3 * 5 * 6).map(|i| (i * 37 % 256) as u8).collect();
        let data = Dataset::from_u8("data", [3, 5, 6], pixels, vec![0, 1], 2).unwrap();
        let map: Vec<u32> = (0..30)
            .map(|p| if p % 7 == 0 { OUTSIDE } else { 29 - p })
            .collect();
        let colours = Transform::normalize(&[0.5, 0.1, 0.3], &[0.2, 0.4, 0.3]);
        for transform in [
            Transform::default(),
            colours.clone(),
            colours
                .clone()
                .random_crop(5, 6, 2)
                .random_horizontal_flip(0.5),
            colours
                .clone()
                .random_horizontal_flip(0.5)
                .random_crop(4, 8, 3),
            Transform::default().center_crop(3, 2).random_crop(3, 2, 1),
            colours
                .random_crop(7, 7, 4)
                .center_crop(9, 3)
                .random_horizontal_flip(0.7),
        ] {
            let view = ClassificationDataset::new(data.clone(), TransformGroups::same(transform));
            for view in [view.clone(), view.with_pixel_map(map.clone())] {
                let size = view.shape().iter().product();
                let [mut want, mut row, mut raw] = [(); 3].map(|()| vec![9.0; size]);
                for (i, sample) in (0..60).map(|sample| (sample as usize % 2, sample)) {
                    let key = (sample < 50).then_some(CounterKey {
                        seed: 3,
                        purpose: crate::rng::Purpose::Augmentation,
                        step: 8,
                        sample,
                    });
                    view.write(i, Group::Train, key, &mut want);
                    let described = view
                        .pixel_row(i, Group::Train, key)
                        .expect("bytes")
                        .to_row();
                    described.write(&mut row);
                    let stored = view.raw(i);
                    let stored = stored.pixel_row(&view.transforms(i).train, key);
                    stored.expect("bytes").to_row().write(&mut raw);
                    assert_eq!(row, want, "{described:?}");
                    assert_eq!(raw, want, "{described:?}");
                }
            }
        }
        let turned = Transform::default().random_rotation(0.0, 9.0);
        let view = ClassificationDataset::new(data, TransformGroups::same(turned));
        let key = CounterKey {
            seed: 0,
            purpose: crate::rng::Purpose::Augmentation,
            step: 0,
            sample: 0,
        };
        assert!(view.pixel_row(0, Group::Train, Some(key)).is_none());
        assert!(view.pixel_row(0, Group::Eval, None).is_some());
        let floats = ClassificationDataset::new(counting(1), TransformGroups::default());
        assert!(floats.pixel_row(0, Group::Train, None).is_none());
    }

    #[test]
    #[should_panic(expected = "a normalisation of 1, found images of [2, 1, 2]")]
    fn normalisation_of_other_channels_is_a_callers_bug() {
        ClassificationDataset::new(counting(1), TransformGroups::same(Transform::mnist()));
    }
}
