//! Experiences and the streams they come in.

use std::collections::BTreeSet;
use std::ops::{Index, Range};
use std::sync::Arc;

use super::SubExperience;
use crate::data::ClassificationDataset;

/// One piece of a stream: the data that is learned or evaluated at once. A clone shares everything.
///
/// All lists of classes hold labels as the learner sees them (after any remapping), in ascending
/// order; Avalanche builds the same lists from Python sets and leaves their order open.
#[derive(Clone, Debug)]
pub struct Experience(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    dataset: ClassificationDataset,
    id: usize,
    stream_name: String,
    classes: Vec<u32>,
    previous: Vec<u32>,
    seen: Vec<u32>,
    future: Vec<u32>,
    batches: Option<Arc<[Range<usize>]>>,
    sub_experience: Option<SubExperience>,
    stream_length: Option<usize>,
}

impl Experience {
    /// An experience of one's own: `id` counts from 0 within the stream called `stream_name`.
    ///
    /// What came before and what comes after is known once it is part of a [`Stream`]; until then
    /// only its own classes have been seen.
    pub fn from_dataset(dataset: ClassificationDataset, id: usize, stream_name: &str) -> Self {
        let classes: BTreeSet<u32> = dataset.targets().into_iter().collect();
        let classes: Vec<u32> = classes.into_iter().collect();
        Experience(Arc::new(Inner {
            dataset,
            id,
            stream_name: stream_name.to_owned(),
            previous: Vec::new(),
            seen: classes.clone(),
            future: Vec::new(),
            classes,
            batches: None,
            sub_experience: None,
            stream_length: None,
        }))
    }

    /// The same experience, to be learned in these mini-batches: `lengths` samples after one another,
    /// in the order of the data, once.
    ///
    /// # Panics
    /// If a length is zero or they do not add up to the number of samples.
    #[track_caller]
    pub fn with_batches(self, lengths: &[usize]) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        let mut end = 0;
        let batches = lengths.iter().map(|&length| {
            end += length;
            end - length..end
        });
        inner.batches = Some(batches.collect());
        let n = inner.dataset.len();
        assert!(
            end == n && !lengths.contains(&0),
            "with_batches: {} mini-batches of {end} samples for {n}",
            lengths.len()
        );
        Experience(Arc::new(inner))
    }

    /// The mini-batches that the stream prescribes, as ranges of the data, to be learned in this order
    /// and once; `None` (most streams) leaves order, size and number of epochs to the learner.
    pub fn batches(&self) -> Option<&[Range<usize>]> {
        self.0.batches.as_deref()
    }

    /// The same place in the same stream with other data; mini-batches that were prescribed are not.
    pub(super) fn with_dataset(&self, dataset: ClassificationDataset) -> Self {
        let mut other = Self::from_dataset(dataset, self.0.id, &self.0.stream_name);
        if let Some(inner) = Arc::get_mut(&mut other.0) {
            inner.sub_experience = self.0.sub_experience.clone();
        }
        other
    }

    /// The same experience as a piece of a larger one.
    pub(super) fn into_piece_of(self, whole: SubExperience) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.sub_experience = Some(whole);
        Experience(Arc::new(inner))
    }

    /// Where this piece of an [online stream](super::split_online_stream) lies in its experience, for
    /// learners; `None` for other experiences, and if boundaries are not to be known.
    pub fn sub_experience(&self) -> Option<&SubExperience> {
        self.sub_experience_for_logging()
            .filter(|whole| whole.access_task_boundaries())
    }

    /// As [`sub_experience`](Self::sub_experience), whether or not learners have access: for metrics
    /// and logs (Avalanche's logging mode).
    pub fn sub_experience_for_logging(&self) -> Option<&SubExperience> {
        self.0.sub_experience.as_ref()
    }

    /// The data.
    pub fn dataset(&self) -> &ClassificationDataset {
        &self.0.dataset
    }

    /// The position in the whole stream, from 0; a slice of a stream keeps it.
    pub fn current_experience(&self) -> usize {
        self.0.id
    }

    /// The id under which evaluations of the original stream know it: its own, or that of the larger
    /// experience that it is a piece of.
    pub fn origin_id(&self) -> usize {
        let piece = self.0.sub_experience.as_ref();
        piece.map_or(self.0.id, |piece| piece.origin_experience().origin_id())
    }

    /// How many experiences its stream has; `None` if it was never part of one. A slice keeps it.
    pub fn stream_length(&self) -> Option<usize> {
        self.0.stream_length
    }

    /// The name of the stream, "train" or "test" in the benchmarks of this crate.
    pub fn stream_name(&self) -> &str {
        &self.0.stream_name
    }

    /// The task label of the first sample; all samples have the same in the benchmarks of this
    /// crate. 0 if there is no sample.
    pub fn task_label(&self) -> u32 {
        if self.0.dataset.is_empty() {
            0
        } else {
            self.0.dataset.task_label(0)
        }
    }

    /// The classes with at least one sample here.
    pub fn classes_in_this_experience(&self) -> &[u32] {
        &self.0.classes
    }

    /// The classes of all earlier experiences of the stream.
    pub fn previous_classes(&self) -> &[u32] {
        &self.0.previous
    }

    /// The classes of this and all earlier experiences.
    pub fn classes_seen_so_far(&self) -> &[u32] {
        &self.0.seen
    }

    /// The classes of all later experiences.
    pub fn future_classes(&self) -> &[u32] {
        &self.0.future
    }
}

/// A sequence of experiences; a clone shares them.
///
/// ```
/// use unforget::benchmarks::{Experience, Stream};
/// use unforget::data::{ClassificationDataset, Dataset, TransformGroups};
/// let data = Dataset::from_u8("dots", [1, 1, 1], vec![0, 255], vec![0, 1], 2)?;
/// let view = ClassificationDataset::new(data, TransformGroups::default());
/// let parts = (0..2).map(|i| Experience::from_dataset(view.subset(&[i]), i as usize, "train"));
/// let stream = Stream::new("train", parts.collect());
/// assert_eq!(stream[1].previous_classes(), [0]);
/// assert_eq!(stream.slice(1..2)[0].current_experience(), 1);
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    name: Arc<str>,
    experiences: Arc<[Experience]>,
}

impl Stream {
    /// `experiences` in the order in which they are met; each is told which classes come before
    /// and after it.
    pub fn new(name: &str, experiences: Vec<Experience>) -> Self {
        let length = experiences.len();
        let mut seen = BTreeSet::new();
        let mut told: Vec<Inner> = Vec::with_capacity(experiences.len());
        for experience in experiences {
            let mut inner = Arc::unwrap_or_clone(experience.0);
            inner.previous = seen.iter().copied().collect();
            seen.extend(&inner.classes);
            inner.seen = seen.iter().copied().collect();
            inner.stream_length = Some(length);
            told.push(inner);
        }
        let mut future = BTreeSet::new();
        for inner in told.iter_mut().rev() {
            inner.future = future.iter().copied().collect();
            future.extend(&inner.classes);
        }
        let share = |inner| Experience(Arc::new(inner));
        Stream {
            name: name.into(),
            experiences: told.into_iter().map(share).collect(),
        }
    }

    /// What the stream is called in the names of metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of experiences.
    pub fn len(&self) -> usize {
        self.experiences.len()
    }

    /// Whether there is no experience.
    pub fn is_empty(&self) -> bool {
        self.experiences.is_empty()
    }

    /// The experiences in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Experience> {
        self.experiences.iter()
    }

    /// The experiences at the positions `range`; they keep their ids and what they know of the
    /// whole stream.
    ///
    /// # Panics
    /// If the range exceeds the stream.
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> Stream {
        Stream {
            name: self.name.clone(),
            experiences: self.experiences[range].into(),
        }
    }
}

impl Index<usize> for Stream {
    type Output = Experience;

    #[track_caller]
    fn index(&self, i: usize) -> &Experience {
        &self.experiences[i]
    }
}

impl<'a> IntoIterator for &'a Stream {
    type Item = &'a Experience;
    type IntoIter = std::slice::Iter<'a, Experience>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
