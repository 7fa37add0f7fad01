//! Several data sets as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check_datasets;
use crate::data::{ClassificationDataset, Dataset, TransformGroups};
use crate::{Error, Result};

/// All training and all test samples, and the classes of each data set. The classes of each are numbered
/// after those of the ones before, in ascending order; a single one keeps its own.
///
/// # Errors
/// [`Error::Config`] if there is none, not as many for testing, or they do not fit together.
pub(super) fn joined(
    train_sets: &[Dataset],
    test_sets: &[Dataset],
    transforms: &TransformGroups,
) -> Result<(ClassificationDataset, ClassificationDataset, Vec<Vec<u32>>)> {
    if train_sets.is_empty() || train_sets.len() != test_sets.len() {
        return Err(Error::config(
            "data sets",
            "at least one, as many for training as for testing",
            format!("{} and {}", train_sets.len(), test_sets.len()),
        ));
    }
    for (train, test) in train_sets.iter().zip(test_sets) {
        check_datasets(train, test, transforms)?;
        check_datasets(&train_sets[0], train, transforms)?;
    }
    let transforms = Arc::new(transforms.clone());
    let view = |data: &Dataset| {
        ClassificationDataset::with_shared_transforms(data.clone(), transforms.clone())
    };
    let classes = |data: &Dataset| data.targets().iter().copied().collect::<BTreeSet<u32>>();
    if let ([train], [test]) = (train_sets, test_sets) {
        return Ok((
            view(train),
            view(test),
            vec![classes(train).into_iter().collect()],
        ));
    }
    let (mut parts, mut test_parts, mut by_dataset) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = 0;
    for (train, test) in train_sets.iter().zip(test_sets) {
        let known = classes(train);
        let mapping: BTreeMap<u32, u32> = known.iter().copied().zip(first..).collect();
        let numbered = |data: &Dataset| {
            let kept = (0..)
                .zip(data.targets())
                .filter(|(_, class)| known.contains(class));
            let (indices, targets): (Vec<u32>, Vec<u32>) =
                kept.map(|(i, class)| (i, mapping[class])).unzip();
            view(data).subset(&indices).with_targets(&targets)
        };
        parts.push(numbered(train));
        test_parts.push(numbered(test));
        by_dataset.push(mapping.into_values().collect());
        first += known.union(&classes(test)).count() as u32;
    }
    Ok((
        ClassificationDataset::concat(&parts),
        ClassificationDataset::concat(&test_parts),
        by_dataset,
    ))
}

/// The places of each class's samples in `data`, ascending.
pub(super) fn samples_by_class(data: &ClassificationDataset) -> BTreeMap<u32, Vec<u32>> {
    let mut by_class = BTreeMap::<u32, Vec<u32>>::new();
    for (index, class) in (0..).zip(data.targets()) {
        by_class.entry(class).or_default().push(index);
    }
    by_class
}
