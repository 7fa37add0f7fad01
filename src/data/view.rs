//! What an experience sees of a data set.

use super::transform::mapped;
use super::{Dataset, Group, RawSample, TransformGroups, ZERO_PIXEL};
use crate::{Error, Result};
use ndarray::Array4;
use std::sync::Arc;

/// How samples of a base data set appear in a view: pixels moved, labels renamed, a task label,
/// and the transforms to apply.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// Output pixel p of each channel takes source pixel `pixel_map[p]`, or 0 at
    /// [`ZERO_PIXEL`]: exact permutations and nearest-neighbour rotations.
    pub pixel_map: Option<Arc<[u32]>>,
    /// The label shown for each label of the base data set.
    pub target_map: Option<Arc<[u32]>>,
    /// The task label of every sample.
    pub task_label: u32,
    /// The transforms.
    pub transforms: Arc<TransformGroups>,
}

impl ViewOptions {
    /// Pixels and labels as they are, task label 0.
    pub fn new(transforms: Arc<TransformGroups>) -> Self {
        ViewOptions { pixel_map: None, target_map: None, task_label: 0, transforms }
    }
}

/// A selection of samples, each with its label, task label and transforms.
///
/// It holds positions, not pixels, so subsets and concatenations are cheap, and cloning shares the
/// memory.
#[derive(Clone, Debug)]
pub struct ClassificationDataset {
    sources: Arc<[Source]>,
    samples: Arc<[Sample]>,
    targets: Arc<[u32]>,
    shape: [usize; 3],
}

#[derive(Clone, Debug)]
struct Source {
    base: Dataset,
    options: ViewOptions,
}

/// Sample `index` of the base data set of `sources[source]`.
#[derive(Clone, Copy, Debug)]
struct Sample {
    source: u32,
    index: u32,
}

impl ClassificationDataset {
    /// The samples `indices` of `base`, in this order, seen through `options`.
    ///
    /// # Errors
    /// [`Error::Config`] if an index, a pixel of the map or a label has no counterpart, or the
    /// normalisation does not fit the channels.
    pub fn new(base: &Dataset, indices: &[u32], options: ViewOptions) -> Result<Self> {
        let name = |what: &str| format!("{}: {what}", base.name());
        let [channels, height, width] = base.shape();
        for (group, transform) in
            [("train", &options.transforms.train), ("eval", &options.transforms.eval)]
        {
            if !transform.fits(channels) {
                let what = name(&format!("normalisation for {group}"));
                let expected = format!("constants for {channels} channels");
                return Err(Error::config(what, expected, "another number"));
            }
        }
        if let Some(map) = &options.pixel_map {
            let plane = height * width;
            if map.len() != plane {
                let expected = format!("one entry for each of {height} x {width} pixels");
                return Err(Error::config(name("pixel map"), expected, map.len()));
            }
            if let Some(&bad) = map.iter().find(|&&p| p != ZERO_PIXEL && p as usize >= plane) {
                let expected = format!("entries below {plane}");
                return Err(Error::config(name("pixel map"), expected, bad));
            }
        }
        let targets = indices
            .iter()
            .map(|&index| {
                let target = *base.targets().get(index as usize).ok_or_else(|| {
                    let expected = format!("an index below {}", base.len());
                    Error::config(name("sample"), expected, index)
                })?;
                match &options.target_map {
                    None => Ok(target),
                    Some(map) => map.get(target as usize).copied().ok_or_else(|| {
                        let expected = format!("labels below {}", map.len());
                        Error::config(name("label map"), expected, target)
                    }),
                }
            })
            .collect::<Result<_>>()?;
        Ok(ClassificationDataset {
            samples: indices.iter().map(|&index| Sample { source: 0, index }).collect(),
            targets,
            shape: base.shape(),
            sources: Arc::from([Source { base: base.clone(), options }]),
        })
    }

    /// All samples of `base` in their order.
    ///
    /// # Errors
    /// As [`ClassificationDataset::new`].
    pub fn all(base: &Dataset, options: ViewOptions) -> Result<Self> {
        let indices: Vec<u32> = (0..base.len() as u32).collect();
        Self::new(base, &indices, options)
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// (channels, height, width) of every sample.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Values per sample.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The label of sample `i`.
    #[track_caller]
    pub fn target(&self, i: usize) -> u32 {
        self.targets[i]
    }

    /// The labels of all samples.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The task label of sample `i`.
    #[track_caller]
    pub fn task_label(&self, i: usize) -> u32 {
        self.source(i).0.options.task_label
    }

    /// The position of sample `i` in the base data set.
    #[track_caller]
    pub fn source_index(&self, i: usize) -> u32 {
        self.samples[i].index
    }

    /// The transforms of sample `i`.
    #[track_caller]
    pub fn transforms(&self, i: usize) -> &Arc<TransformGroups> {
        &self.source(i).0.options.transforms
    }

    /// Writes the transformed sample `i` in channel, row, column order; allocates nothing.
    ///
    /// # Panics
    /// If `out` does not have room for exactly [`numel`](Self::numel) values.
    #[track_caller]
    pub fn write_sample(&self, i: usize, group: Group, out: &mut [f32]) {
        let (source, index) = self.source(i);
        let options = &source.options;
        let pixels = source.base.images().get(index);
        let map = options.pixel_map.as_deref();
        options.transforms.get(group).apply(pixels, map, self.shape, out);
    }

    /// Sample `i` in its stored form, after the pixel map and before the transform.
    #[track_caller]
    pub fn raw(&self, i: usize) -> RawSample {
        let (source, index) = self.source(i);
        let pixels = source.base.images().get(index);
        mapped(pixels, source.options.pixel_map.as_deref(), self.shape)
    }

    /// All samples transformed: (sample, channel, row, column).
    pub fn images(&self, group: Group) -> Array4<f32> {
        let [channels, height, width] = self.shape;
        let mut values = vec![0.0; self.len() * self.numel()];
        for (i, out) in values.chunks_exact_mut(self.numel()).enumerate() {
            self.write_sample(i, group, out);
        }
        Array4::from_shape_vec((self.len(), channels, height, width), values)
            .expect("the vector was made with this length")
    }

    /// The samples `indices` of this view, in this order.
    ///
    /// # Panics
    /// If an index is out of range.
    #[track_caller]
    pub fn subset(&self, indices: &[u32]) -> Self {
        ClassificationDataset {
            sources: self.sources.clone(),
            samples: indices.iter().map(|&i| self.samples[i as usize]).collect(),
            targets: indices.iter().map(|&i| self.targets[i as usize]).collect(),
            shape: self.shape,
        }
    }

    /// The samples of all `views`, one view after the other.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no view or their samples differ in shape.
    pub fn concat(views: &[Self]) -> Result<Self> {
        let Some(first) = views.first() else {
            return Err(Error::config("data sets to join", "at least one", 0));
        };
        if let Some(other) = views.iter().find(|view| view.shape != first.shape) {
            let expected = format!("samples of shape {:?}", first.shape);
            return Err(Error::config("data sets to join", expected, format!("{:?}", other.shape)));
        }
        let mut samples = Vec::with_capacity(views.iter().map(Self::len).sum());
        let mut sources = Vec::new();
        for view in views {
            let offset = sources.len() as u32;
            samples.extend(
                view.samples.iter().map(|s| Sample { source: s.source + offset, ..*s }),
            );
            sources.extend(view.sources.iter().cloned());
        }
        Ok(ClassificationDataset {
            sources: sources.into(),
            samples: samples.into(),
            targets: views.iter().flat_map(|view| view.targets.iter().copied()).collect(),
            shape: first.shape,
        })
    }

    #[track_caller]
    fn source(&self, i: usize) -> (&Source, usize) {
        let sample = self.samples[i];
        (&self.sources[sample.source as usize], sample.index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{PixelSlice, Transform};

    /// Four 1 x 1 x 3 images; sample n holds 10 n, 10 n + 1, 10 n + 2 and has label n mod 2.
    fn base() -> Dataset {
        let images = Array4::from_shape_fn((4, 1, 1, 3), |(n, .., x)| (n * 10 + x) as u8);
        Dataset::from_u8("base", images, [0, 1, 0, 1], 2).unwrap()
    }

    fn options() -> ViewOptions {
        let train = Transform::normalize(&[0.0], &[1.0 / 255.0]).unwrap();
        let eval = Transform::normalize(&[0.0], &[0.5 / 255.0]).unwrap();
        ViewOptions::new(Arc::new(TransformGroups { train, eval }))
    }

    fn values(view: &ClassificationDataset, group: Group) -> Vec<f32> {
        let mut values = vec![f32::NAN; view.numel()];
        (0..view.len())
            .flat_map(|i| {
                view.write_sample(i, group, &mut values);
                values.iter().map(|x| x.round()).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn a_view_selects_maps_and_renames() {
        let options = ViewOptions {
            pixel_map: Some(Arc::from([2, ZERO_PIXEL, 0])),
            target_map: Some(Arc::from([7, 5])),
            task_label: 3,
            ..options()
        };
        let view = ClassificationDataset::new(&base(), &[3, 0], options).unwrap();
        assert_eq!(view.targets(), [5, 7]);
        assert_eq!((view.target(1), view.task_label(1), view.source_index(0)), (7, 3, 3));
        assert_eq!(values(&view, Group::Train), [32.0, 0.0, 30.0, 2.0, 0.0, 0.0]);
        assert_eq!(values(&view, Group::Eval), [64.0, 0.0, 60.0, 4.0, 0.0, 0.0]);
        assert_eq!(view.raw(0).as_pixels(), PixelSlice::U8(&[32, 0, 30]));
        assert_eq!(view.images(Group::Train).dim(), (2, 1, 1, 3));
        assert_eq!(view.images(Group::Train)[[0, 0, 0, 2]].round(), 30.0);
    }

    #[test]
    fn subsets_of_concatenations_keep_what_belongs_to_each_sample() {
        let plain = ClassificationDataset::all(&base(), options()).unwrap();
        let renamed = ViewOptions {
            pixel_map: Some(Arc::from([1, 1, 1])),
            target_map: Some(Arc::from([8, 9])),
            task_label: 1,
            ..options()
        };
        let other = ClassificationDataset::new(&base(), &[1, 2], renamed).unwrap();
        let both = ClassificationDataset::concat(&[plain.clone(), other, plain]).unwrap();
        assert_eq!(both.targets(), [0, 1, 0, 1, 9, 8, 0, 1, 0, 1]);
        let some = both.subset(&[5, 3, 4, 9]);
        assert_eq!(some.targets(), [8, 1, 9, 1]);
        assert_eq!((0..4).map(|i| some.task_label(i)).collect::<Vec<_>>(), [1, 0, 1, 0]);
        assert_eq!((0..4).map(|i| some.source_index(i)).collect::<Vec<_>>(), [2, 3, 1, 3]);
        assert_eq!(
            values(&some, Group::Train),
            [21.0, 21.0, 21.0, 30.0, 31.0, 32.0, 11.0, 11.0, 11.0, 30.0, 31.0, 32.0]
        );
    }

    #[test]
    fn what_has_no_counterpart_is_refused() {
        let view = |indices: &[u32], options| {
            ClassificationDataset::new(&base(), indices, options).unwrap_err().to_string()
        };
        assert_eq!(view(&[4], options()), "base: sample: expected an index below 4, found 4");
        let map = |map: &[u32]| ViewOptions { pixel_map: Some(map.into()), ..options() };
        assert!(view(&[0], map(&[0, 1])).contains("1 x 3 pixels, found 2"));
        assert!(view(&[0], map(&[0, 1, 3])).contains("entries below 3, found 3"));
        let labels = ViewOptions { target_map: Some(Arc::from([4])), ..options() };
        assert!(view(&[1], labels).contains("labels below 1, found 1"));
        let two = Transform::normalize(&[0.0; 2], &[1.0; 2]).unwrap();
        let channels = ViewOptions::new(Arc::new(TransformGroups::same(two)));
        assert!(view(&[0], channels).contains("constants for 1 channels"));
        assert!(ClassificationDataset::concat(&[]).is_err());
        let wide = Dataset::from_u8("wide", Array4::zeros((1, 1, 1, 4)), [0], 1).unwrap();
        let wide = ClassificationDataset::all(&wide, options()).unwrap();
        let narrow = ClassificationDataset::all(&base(), options()).unwrap();
        let error = ClassificationDataset::concat(&[narrow, wide]).unwrap_err();
        assert!(error.to_string().contains("found [1, 1, 4]"), "{error}");
    }
}
