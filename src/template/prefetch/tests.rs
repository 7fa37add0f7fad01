//! Workers give the rows that would be gathered without them, and end.

use super::*;
use crate::data::{Dataset, Transform, TransformGroups};
use crate::rng::Purpose;
use std::panic::{AssertUnwindSafe, catch_unwind};

const N: usize = 20;
const SIZE: usize = 4 * 4;

fn dataset() -> ClassificationDataset {
    let pixels = (0..N * SIZE).map(|i| (i * 7 % 251) as u8).collect();
    let labels = (0..N as u32).collect();
    let data = Dataset::from_u8("rows", [1, 4, 4], pixels, labels, N).unwrap();
    let transform = Transform::default().random_crop(4, 4, 2);
    ClassificationDataset::new(data, TransformGroups::same(transform))
}

fn key(step: u64) -> CounterKey {
    CounterKey {
        seed: 5,
        purpose: Purpose::Augmentation,
        step,
        sample: 0,
    }
}

/// The samples of mini-batch `i` of ten.
fn batch(i: usize) -> Vec<usize> {
    vec![i, (i * 3 + 1) % N, (i * 7 + 2) % N]
}

fn prefetch(dataset: &ClassificationDataset, workers: usize, factor: usize) -> Prefetch {
    let options = LoaderOptions {
        num_workers: workers,
        prefetch_factor: factor,
        ..LoaderOptions::default()
    };
    let pass = Prefetch::new(dataset, Group::Train, 10, options).unwrap();
    pass.expect("workers")
}

fn take(pass: &mut Prefetch, i: usize, rows: &mut Vec<f32>) -> bool {
    pass.take(&batch(i), key(i as u64), rows, |k, samples| {
        samples.extend(batch(i + k));
        i + k < 10
    })
}

#[test]
fn rows_are_those_of_a_gathering_without_workers() {
    let dataset = dataset();
    for (workers, factor) in [(1, 1), (2, 2), (3, 1), (5, 4)] {
        let mut pass = prefetch(&dataset, workers, factor);
        let mut rows = Vec::new();
        for i in 0..10 {
            let mut own = vec![0.0; 3 * SIZE];
            dataset.gather(&batch(i), Group::Train, key(i as u64), &mut own);
            assert!(take(&mut pass, i, &mut rows), "mini-batch {i} was foreseen");
            assert_eq!(rows, own, "mini-batch {i}, {workers} workers");
            let ahead = (workers * factor - 1).min(9 - i);
            assert_eq!(pass.sent - pass.taken, ahead, "mini-batches under way");
        }
        assert!(pass.spare.len() <= workers * factor, "memory goes round");
    }
}

#[test]
fn what_was_not_foreseen_is_left_to_the_caller_and_forgotten() {
    let dataset = dataset();
    let mut pass = prefetch(&dataset, 2, 2);
    let mut rows = vec![7.0];
    assert!(take(&mut pass, 0, &mut rows));
    let before = rows.clone();
    // Another sample, another clock.
    assert!(!pass.take(&[5], key(1), &mut rows, |_, _| false));
    assert_eq!((pass.sent, &rows), (pass.taken, &before));
    assert!(take(&mut pass, 2, &mut rows));
    let other = pass.take(&batch(3), key(30), &mut rows, |_, _| false);
    assert!(!other);
    assert!(take(&mut pass, 4, &mut rows));
}

#[test]
fn a_panic_is_passed_on_with_its_mini_batch() {
    let dataset = dataset();
    let mut pass = prefetch(&dataset, 2, 2);
    let mut rows = Vec::new();
    let samples = |i: usize| if i == 3 { vec![N] } else { batch(i) };
    for i in 0..3 {
        let upcoming = |k: usize, out: &mut Vec<usize>| {
            out.extend(samples(i + k));
            true
        };
        assert!(pass.take(&samples(i), key(i as u64), &mut rows, upcoming));
    }
    let last = AssertUnwindSafe(|| pass.take(&samples(3), key(3), &mut rows, |_, _| false));
    let panic = catch_unwind(last).unwrap_err();
    let message = panic.downcast_ref::<String>().expect("a text");
    assert!(message.contains("index out of bounds"), "{message}");
}

#[test]
fn workers_end_with_the_pass_that_they_work_for() {
    let dataset = dataset();
    let held = dataset.holders();
    let mut pass = prefetch(&dataset, 3, 2);
    take(&mut pass, 0, &mut Vec::new());
    assert_eq!(dataset.holders(), held + 3);
    drop(pass);
    assert_eq!(dataset.holders(), held);
}

#[test]
fn without_workers_or_a_second_mini_batch_there_is_nothing_to_start() {
    let dataset = dataset();
    let start = |num_workers, batches| {
        let options = LoaderOptions {
            num_workers,
            ..LoaderOptions::default()
        };
        Prefetch::new(&dataset, Group::Eval, batches, options).unwrap()
    };
    assert!(start(0, 10).is_none() && start(4, 1).is_none());
    let pass = start(4, 2).expect("workers");
    assert_eq!(pass.workers.len(), 2, "no more than mini-batches");
}
