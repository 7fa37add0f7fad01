//! Capacity divided over classes or over experiences.

use super::global::GlobalReservoir;
use super::reservoir::{Item, Reservoir};
use crate::data::ClassificationDataset;
use crate::rng::{TorchGenerator, python_set_order};

/// Divides `total` into `n` parts as equal as can be; the first parts are the larger ones.
fn group_lengths(total: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| total / n + usize::from(i < total % n))
}

/// Avalanche's `ClassBalancedBuffer` with logits, as DER uses it (adaptive size: the capacity is
/// divided anew over all classes seen so far). Groups stand in the order in which their classes were
/// first stored.
///
/// Where the capacity does not divide evenly, Avalanche gives the extra places by iterating a Python
/// set; the same order is used here, so that the same seed fills the buffer with the same samples.
#[derive(Clone, Debug)]
pub struct ClassBalancedBuffer {
    pub(super) mem_size: usize,
    pub(super) groups: Vec<(u32, Reservoir)>,
    pub(super) seen: Vec<u32>,
}

impl ClassBalancedBuffer {
    /// An empty buffer for `mem_size` samples.
    pub fn new(mem_size: usize) -> Self {
        ClassBalancedBuffer {
            mem_size,
            groups: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Takes the samples of an experience, class by class in the order of first appearance, one
    /// random key for each. `logits` holds a row of the given width for every sample.
    pub fn update(
        &mut self,
        dataset: &ClassificationDataset,
        logits: Option<(&[f32], usize)>,
        generator: &mut TorchGenerator,
    ) {
        let mut by_class: Vec<(u32, Vec<u32>)> = Vec::new();
        for (i, &class) in dataset.targets().iter().enumerate() {
            match by_class.iter_mut().find(|(c, _)| *c == class) {
                Some((_, samples)) => samples.push(i as u32),
                None => by_class.push((class, vec![i as u32])),
            }
        }
        let new = by_class.iter().map(|(class, _)| *class);
        self.seen
            .extend(new.filter(|c| !self.groups.iter().any(|(old, _)| old == c)));
        let order = python_set_order(&self.seen);
        let lengths: Vec<(u32, usize)> = order
            .iter()
            .copied()
            .zip(group_lengths(self.mem_size, order.len()))
            .collect();
        let length = |class| {
            lengths
                .iter()
                .find(|(c, _)| *c == class)
                .map_or(0, |(_, n)| *n)
        };
        for (class, samples) in &by_class {
            let at = self
                .groups
                .iter()
                .position(|(c, _)| c == class)
                .unwrap_or_else(|| {
                    self.groups.push((*class, Reservoir::new(length(*class))));
                    self.groups.len() - 1
                });
            self.groups[at]
                .1
                .update(dataset, samples, logits, generator);
        }
        for (class, reservoir) in &mut self.groups {
            reservoir.resize(length(*class));
        }
    }

    /// The classes with their samples, in the order in which they were first stored.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &[Item])> {
        self.groups
            .iter()
            .map(|(class, reservoir)| (*class, reservoir.items()))
    }
}

/// Avalanche's `ExperienceBalancedBuffer`, as Experience Replay uses it: each experience keeps a
/// uniform sample of its own, and the capacity is divided anew over the experiences seen so far.
#[derive(Clone, Debug)]
pub struct ExperienceBalancedBuffer {
    pub(super) mem_size: usize,
    pub(super) groups: Vec<Reservoir>,
}

impl ExperienceBalancedBuffer {
    /// An empty buffer for `mem_size` samples.
    pub fn new(mem_size: usize) -> Self {
        ExperienceBalancedBuffer {
            mem_size,
            groups: Vec::new(),
        }
    }

    /// Takes the samples of an experience, one random key for each.
    pub fn update(
        &mut self,
        dataset: &ClassificationDataset,
        logits: Option<(&[f32], usize)>,
        generator: &mut TorchGenerator,
    ) {
        let n = self.groups.len() + 1;
        let lengths: Vec<usize> = group_lengths(self.mem_size, n).collect();
        let all: Vec<u32> = (0..dataset.len() as u32).collect();
        let mut new = Reservoir::new(lengths[n - 1]);
        new.update(dataset, &all, logits, generator);
        self.groups.push(new);
        for (reservoir, length) in self.groups.iter_mut().zip(lengths) {
            reservoir.resize(length);
        }
    }

    /// The samples of each experience.
    pub fn groups(&self) -> impl Iterator<Item = &[Item]> {
        self.groups.iter().map(Reservoir::items)
    }
}

/// The buffer of a strategy.
#[derive(Clone, Debug)]
pub enum Buffer {
    /// Divided over classes.
    ClassBalanced(ClassBalancedBuffer),
    /// Divided over experiences.
    ExperienceBalanced(ExperienceBalancedBuffer),
    /// Not divided: the paper's.
    Global(GlobalReservoir),
}

impl Buffer {
    fn slices(&self) -> impl Iterator<Item = &[Item]> {
        let (classes, experiences, all) = match self {
            Buffer::ClassBalanced(b) => (Some(b.groups().map(|(_, items)| items)), None, None),
            Buffer::ExperienceBalanced(b) => (None, Some(b.groups()), None),
            Buffer::Global(b) => (None, None, Some(b.items())),
        };
        let groups = experiences.into_iter().flatten();
        classes.into_iter().flatten().chain(groups).chain(all)
    }

    /// How many samples the buffer may hold.
    pub fn mem_size(&self) -> usize {
        match self {
            Buffer::ClassBalanced(b) => b.mem_size,
            Buffer::ExperienceBalanced(b) => b.mem_size,
            Buffer::Global(b) => b.mem_size(),
        }
    }

    /// How many samples it holds.
    pub fn len(&self) -> usize {
        self.slices().map(<[Item]>::len).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `i` of the groups one after the other.
    ///
    /// # Panics
    /// If there are not that many.
    #[track_caller]
    pub fn item(&self, i: usize) -> &Item {
        let mut rest = i;
        for items in self.slices() {
            match items.get(rest) {
                Some(item) => return item,
                None => rest -= items.len(),
            }
        }
        panic!(
            "the buffer holds {} samples, asked for number {i}",
            self.len()
        );
    }

    /// All samples, group after group.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.slices().flatten()
    }

    /// How many samples of each class are stored, in ascending order of class.
    pub fn counts_per_class(&self) -> Vec<(u32, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for item in self.iter() {
            *counts.entry(item.target).or_default() += 1;
        }
        counts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Transform, TransformGroups};

    fn dataset(targets: &[u32]) -> ClassificationDataset {
        let pixels = (0..targets.len()).map(|i| i as u8).collect();
        let base = Dataset::from_u8("test", [1, 1, 1], pixels, targets.to_vec(), 100).unwrap();
        ClassificationDataset::new(base, TransformGroups::same(Transform::default()))
    }

    #[test]
    fn the_samples_with_the_largest_keys_stay_sorted() {
        let data = dataset(&[7; 50]);
        let keys = {
            let mut generator = TorchGenerator::manual_seed(3);
            let mut keys: Vec<(f32, u32)> = (0..50).map(|i| (generator.rand_f32(), i)).collect();
            keys.sort_by(|a, b| b.0.total_cmp(&a.0));
            keys
        };
        let mut buffer = ClassBalancedBuffer::new(10);
        buffer.update(&data, None, &mut TorchGenerator::manual_seed(3));
        let (class, items) = buffer.groups().next().unwrap();
        let got: Vec<_> = items
            .iter()
            .map(|item| (item.key, item.source_index))
            .collect();
        assert_eq!((class, got), (7, keys[..10].to_vec()));
    }

    #[test]
    fn capacity_is_divided_anew_over_the_classes_seen() {
        let mut buffer = ClassBalancedBuffer::new(10);
        let mut generator = TorchGenerator::manual_seed(1);
        buffer.update(&dataset(&[[0; 20], [1; 20]].concat()), None, &mut generator);
        let before: Vec<f32> = buffer
            .groups()
            .flat_map(|g| g.1)
            .map(|item| item.key)
            .collect();
        buffer.update(&dataset(&[2; 20]), None, &mut generator);
        let buffer = Buffer::ClassBalanced(buffer);
        assert_eq!(buffer.counts_per_class(), [(0, 4), (1, 3), (2, 3)]);
        let kept: Vec<f32> = buffer.iter().map(|item| item.key).collect();
        assert_eq!(
            kept[..4],
            before[..4],
            "a shrunk reservoir is a prefix of the old one"
        );
        assert_eq!((buffer.len(), buffer.item(9).target), (10, 2));
    }

    #[test]
    fn small_buffers_leave_some_classes_out() {
        for mem_size in [0, 1, 2] {
            let mut buffer = ClassBalancedBuffer::new(mem_size);
            let mut generator = TorchGenerator::manual_seed(1);
            buffer.update(&dataset(&[0, 1, 2, 0, 1, 2]), None, &mut generator);
            assert_eq!(Buffer::ClassBalanced(buffer).len(), mem_size);
        }
    }

    #[test]
    fn every_sample_of_a_stream_is_kept_with_the_same_probability() {
        let (runs, n, capacity) = (4000, 40, 10);
        let mut kept = vec![0u32; n];
        let mut generator = TorchGenerator::manual_seed(5);
        let data = dataset(&vec![0; n]);
        for _ in 0..runs {
            let mut reservoir = Reservoir::new(capacity);
            for part in [0..15u32, 15..16, 16..40] {
                let indices: Vec<u32> = part.collect();
                reservoir.update(&data, &indices, None, &mut generator);
            }
            reservoir
                .items()
                .iter()
                .for_each(|item| kept[item.source_index as usize] += 1);
        }
        let expected = (runs * capacity / n) as f64;
        let chi: f64 = kept
            .iter()
            .map(|&k| (f64::from(k) - expected).powi(2) / expected)
            .sum();
        // 39 degrees of freedom; beyond 72.1 once in a thousand.
        assert!(chi <= 72.1, "chi-square {chi}, kept {kept:?}");
    }

    #[test]
    fn experiences_share_the_buffer_evenly() {
        let mut buffer = ExperienceBalancedBuffer::new(10);
        let mut generator = TorchGenerator::manual_seed(1);
        for class in 0..3 {
            buffer.update(&dataset(&[class; 20]), None, &mut generator);
        }
        let sizes: Vec<usize> = buffer.groups().map(<[Item]>::len).collect();
        assert_eq!(sizes, [4, 3, 3]);
    }
}
