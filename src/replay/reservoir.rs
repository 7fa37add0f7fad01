//! A uniform sample of a stream of samples, with random keys.

use crate::data::{ClassificationDataset, Group, RawSample, TransformGroups};
use crate::rng::{CounterKey, TorchGenerator};
use std::sync::Arc;

/// A stored sample.
#[derive(Clone, Debug)]
pub struct Item {
    /// The pixels as they were stored in the data set, after a permutation or rotation and before
    /// normalisation.
    pub raw: RawSample,
    /// The label.
    pub target: u32,
    /// The task label.
    pub task_label: u32,
    /// The logits that the network gave when the sample was stored, as wide as its head was then;
    /// NaN where a unit was masked. Empty if none are kept.
    pub logits: Box<[f32]>,
    /// The random key, in [0, 1): the largest are kept. 0 in a buffer that draws none.
    pub key: f32,
    /// Where the sample stands in the base data set.
    pub source_index: u32,
    /// The transforms of the experience it came from.
    pub transforms: Arc<TransformGroups>,
}

impl Item {
    /// Writes the sample as the model sees it (CHW, transformed) into `out`; random steps are drawn
    /// from `key`, or rest.
    pub fn write_sample(&self, group: Group, key: Option<CounterKey>, out: &mut [f32]) {
        self.raw.write(self.transforms.get(group), key, out);
    }
}

/// Avalanche's `ReservoirSamplingBuffer`: each sample draws a uniform key when it is offered, and
/// the samples with the largest keys stay. Over time this is an exact uniform sample of everything
/// offered (A-Res of Efraimidis and Spirakis with equal weights).
///
/// The content is sorted by key, largest first, so that shrinking keeps a prefix.
#[derive(Clone, Debug, Default)]
pub struct Reservoir {
    items: Vec<Item>,
    capacity: usize,
}

impl Reservoir {
    /// An empty reservoir for `capacity` samples.
    pub fn new(capacity: usize) -> Self {
        Reservoir {
            items: Vec::new(),
            capacity,
        }
    }

    /// A reservoir that holds `items` already, largest key first.
    pub(super) fn of(items: Vec<Item>, capacity: usize) -> Self {
        Reservoir { items, capacity }
    }

    /// How many samples it may hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The samples, largest key first.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Offers the samples `indices` of `dataset`: draws one key for each, in order, and keeps the
    /// largest keys of old and new. `logits` holds a row of `width` numbers for every sample of the
    /// data set; NaN at the end of a row is not kept. Only samples that stay are copied.
    pub fn update(
        &mut self,
        dataset: &ClassificationDataset,
        indices: &[u32],
        logits: Option<(&[f32], usize)>,
        generator: &mut TorchGenerator,
    ) {
        enum Candidate {
            New(usize),
            Old(Item),
        }
        // New samples come first, as in Avalanche: the sort is stable, so they win ties.
        let fresh: Vec<(f32, Candidate)> = (indices.iter())
            .map(|&i| (generator.rand_f32(), Candidate::New(i as usize)))
            .collect();
        let old = self
            .items
            .drain(..)
            .map(|item| (item.key, Candidate::Old(item)));
        let mut candidates: Vec<_> = fresh.into_iter().chain(old).collect();
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        candidates.truncate(self.capacity);
        self.items.extend(
            candidates
                .into_iter()
                .map(|(key, candidate)| match candidate {
                    Candidate::Old(item) => item,
                    Candidate::New(i) => Item {
                        raw: dataset.raw(i),
                        target: dataset.target(i),
                        task_label: dataset.task_label(i),
                        logits: logits
                            .map_or(Box::default(), |(l, w)| stored(&l[i * w..(i + 1) * w])),
                        key,
                        source_index: dataset.source_index(i),
                        transforms: dataset.transforms(i).clone(),
                    },
                }),
        );
    }

    /// Changes the capacity; samples beyond it are dropped, smallest keys first. Growing brings
    /// nothing back.
    pub fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.items.truncate(capacity);
    }
}

/// The row without what is not a number at its end.
fn stored(row: &[f32]) -> Box<[f32]> {
    let end = row
        .iter()
        .rposition(|z| !z.is_nan())
        .map_or(0, |last| last + 1);
    row[..end].into()
}
