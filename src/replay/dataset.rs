//! From data sets to buffers and back, for training on a buffer or for picking among its samples.

use std::sync::Arc;

use super::{Buffer, Item};
use crate::data::{ClassificationDataset, Dataset, RawSample};
use crate::rng::TorchGenerator;

impl Buffer {
    /// Takes the samples of an experience without logits, with random draws for each.
    pub fn update(&mut self, dataset: &ClassificationDataset, generator: &mut TorchGenerator) {
        match self {
            Buffer::ClassBalanced(buffer) => buffer.update(dataset, None, generator),
            Buffer::ExperienceBalanced(buffer) => buffer.update(dataset, None, generator),
            Buffer::Global(buffer) => {
                let all: Vec<u32> = (0..dataset.len() as u32).collect();
                buffer.update(dataset, &all, None, generator);
            }
        }
    }

    /// The samples that `wanted` accepts, in the buffer's order, as images of `shape` (C, H, W) with
    /// their labels, task labels and transforms; `None` if there is no such sample.
    ///
    /// # Panics
    /// If the samples have another size.
    #[track_caller]
    pub fn dataset(
        &self,
        shape: [usize; 3],
        wanted: impl Fn(&Item) -> bool,
    ) -> Option<ClassificationDataset> {
        let items: Vec<&Item> = self.iter().filter(|item| wanted(item)).collect();
        let parts: Vec<_> = (items.chunk_by(|a, b| alike(a, b)))
            .map(|items| part(items, shape))
            .collect();
        (!parts.is_empty()).then(|| ClassificationDataset::concat(&parts))
    }
}

/// Whether two samples can be in one part: what a data set holds once is the same for both.
fn alike(a: &Item, b: &Item) -> bool {
    let kind = |item: &Item| std::mem::discriminant(&item.raw);
    Arc::ptr_eq(&a.transforms, &b.transforms) && a.task_label == b.task_label && kind(a) == kind(b)
}

#[track_caller]
fn part(items: &[&Item], shape: [usize; 3]) -> ClassificationDataset {
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    for item in items {
        match &item.raw {
            RawSample::U8(pixels) => bytes.extend_from_slice(pixels),
            RawSample::F32(pixels) => floats.extend_from_slice(pixels),
        }
    }
    let targets: Vec<u32> = items.iter().map(|item| item.target).collect();
    let classes = targets.iter().max().map_or(0, |&t| t as usize + 1);
    let data = if floats.is_empty() {
        Dataset::from_u8("buffer", shape, bytes, targets, classes)
    } else {
        Dataset::from_f32("buffer", shape, floats, targets, classes)
    };
    let data = data.unwrap_or_else(|error| panic!("a buffer's samples as {shape:?}: {error}"));
    let (transforms, task) = (Arc::clone(&items[0].transforms), items[0].task_label);
    ClassificationDataset::with_shared_transforms(data, transforms).with_task_label(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Group, Transform, TransformGroups};
    use crate::replay::ExperienceBalancedBuffer;

    #[test]
    fn the_samples_come_back_with_labels_and_transforms() {
        let shared = Arc::new(TransformGroups::same(Transform::mnist()));
        let experience = |start: u8, task, transforms: &Arc<TransformGroups>| {
            let pixels = (start..start + 6).collect();
            let targets = (0..6).map(|i| i % 3).collect();
            let data = Dataset::from_u8("dots", [1, 1, 1], pixels, targets, 3).unwrap();
            ClassificationDataset::with_shared_transforms(data, Arc::clone(transforms))
                .with_task_label(task)
        };
        let first = experience(0, 0, &Arc::default());
        let second = experience(100, 5, &shared);
        let mut buffer = ExperienceBalancedBuffer::new(8);
        let mut generator = TorchGenerator::manual_seed(1);
        buffer.update(&first, None, &mut generator);
        buffer.update(&second, None, &mut generator);
        let buffer = Buffer::ExperienceBalanced(buffer);

        let data = buffer.dataset([1, 1, 1], |item| item.target != 1).unwrap();
        let kept: Vec<&Item> = buffer.iter().filter(|item| item.target != 1).collect();
        assert!(!kept.is_empty() && kept.len() < 8);
        assert_eq!(data.len(), kept.len());
        for (i, item) in kept.into_iter().enumerate() {
            let own = if item.task_label == 5 {
                &second
            } else {
                &first
            };
            let (mut got, mut want) = ([0.0], [0.0]);
            data.write_sample(i, Group::Train, &mut got);
            own.write_sample(item.source_index as usize, Group::Train, &mut want);
            assert_eq!(got, want);
            assert_eq!(data.target(i), item.target);
            assert_eq!(data.task_label(i), item.task_label);
        }
        assert!(buffer.dataset([1, 1, 1], |_| false).is_none());
    }
}
