//! Mini-batches: their samples, their order, and what is known of those to come.

use super::*;
use crate::data::{Dataset, TransformGroups};

fn dataset(tasks: &[(u32, usize)]) -> ClassificationDataset {
    let parts: Vec<_> = tasks
        .iter()
        .map(|&(task, n)| {
            let data = Dataset::from_u8("dots", [1, 1, 1], vec![0; n], vec![0; n], 1).unwrap();
            ClassificationDataset::new(data, TransformGroups::default()).with_task_label(task)
        })
        .collect();
    ClassificationDataset::concat(&parts)
}

fn epoch(loader: &mut TaskBalanced, generator: &mut TorchGenerator) -> Vec<Vec<u32>> {
    loader.start(generator);
    std::iter::from_fn(|| loader.advance(generator).then(|| loader.batch().to_vec())).collect()
}

#[test]
fn a_pass_visits_every_sample_once_and_keeps_the_last_short_batch() {
    let mut loader = TaskBalanced::default();
    loader
        .prepare(&dataset(&[(0, 23)]), 10, LoaderOptions::default())
        .unwrap();
    let batches = epoch(&mut loader, &mut TorchGenerator::manual_seed(1));
    assert_eq!(
        batches.iter().map(Vec::len).collect::<Vec<_>>(),
        [10, 10, 3]
    );
    let mut all = batches.concat();
    all.sort_unstable();
    assert_eq!(all, (0..23).collect::<Vec<_>>());
}

#[test]
fn options_keep_the_order_and_drop_the_last() {
    let mut loader = TaskBalanced::default();
    let options = LoaderOptions {
        shuffle: false,
        drop_last: true,
        ..LoaderOptions::default()
    };
    loader.prepare(&dataset(&[(0, 5)]), 2, options).unwrap();
    let generator = &mut TorchGenerator::manual_seed(1);
    assert_eq!(epoch(&mut loader, generator), [[0, 1], [2, 3]]);
    assert_eq!(loader.len(), 2);
}

/// Recorded from Avalanche 0.6.0: `TaskBalancedDataLoader(data, batch_size=7,
/// oversample_small_groups=True, shuffle=True)` after `torch.manual_seed(3)`, two epochs over
/// 24 samples of task 0 followed by 5 of task 1.
#[test]
fn tasks_share_the_mini_batch_as_in_avalanche() {
    let mut loader = TaskBalanced::default();
    let data = dataset(&[(0, 24), (1, 5)]);
    loader.prepare(&data, 7, LoaderOptions::default()).unwrap();
    let generator = &mut TorchGenerator::manual_seed(3);
    let recorded: Vec<Vec<u32>> =
        serde_json::from_str(include_str!("../../../tests/golden/task_balanced.json")).unwrap();
    let mut found = epoch(&mut loader, generator);
    found.extend(epoch(&mut loader, generator));
    assert_eq!(found, recorded);
    assert!(loader.prepare(&data, 1, LoaderOptions::default()).is_err());
}

#[test]
fn prescribed_batches_come_as_they_are_in_every_epoch() {
    let mut loader = TaskBalanced::default();
    loader.prescribe(6, &[0..3, 3..4, 4..6]);
    let generator = &mut TorchGenerator::manual_seed(1);
    let batches: [&[u32]; 3] = [&[0, 1, 2], &[3], &[4, 5]];
    for _ in 0..2 {
        assert_eq!(epoch(&mut loader, generator), batches);
    }
    assert_eq!(loader.len(), 3);
    let options = LoaderOptions {
        shuffle: false,
        ..LoaderOptions::default()
    };
    loader.prepare(&dataset(&[(0, 3)]), 2, options).unwrap();
    assert_eq!(epoch(&mut loader, generator), [&[0, 1][..], &[2]]);
}

#[test]
fn endless_batches_are_full_and_do_not_repeat_within_a_pass() {
    let mut generator = TorchGenerator::manual_seed(1);
    let mut loader = Endless::default();
    for _ in 0..5 {
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.extend_from_slice(loader.batch(10, 4, &mut generator));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }
}

/// What is settled of the mini-batches to come, at every point of two epochs: for each, how many are
/// foreseen. All must come as foreseen.
fn foreseen(loader: &mut TaskBalanced) -> Vec<usize> {
    let generator = &mut TorchGenerator::manual_seed(3);
    let mut counts = Vec::new();
    for _ in 0..2 {
        loader.start(generator);
        let mut ahead: Vec<Vec<usize>> = Vec::new();
        while loader.advance(generator) {
            let batch: Vec<usize> = loader.batch().iter().map(|&i| i as usize).collect();
            if !ahead.is_empty() {
                assert_eq!(ahead.remove(0), batch);
            }
            let settled = (1..100).map_while(|k| {
                let mut samples = Vec::new();
                loader.upcoming(k, &mut samples).then_some(samples)
            });
            let settled: Vec<_> = settled.collect();
            assert_eq!(settled[..ahead.len()], ahead);
            counts.push(settled.len());
            ahead = settled;
        }
        assert!(ahead.is_empty());
    }
    counts
}

#[test]
fn all_of_an_epoch_is_foreseen_and_nothing_beyond() {
    let mut loader = TaskBalanced::default();
    for (drop_last, counts) in [
        (false, [2, 1, 0, 2, 1, 0].as_slice()),
        (true, &[1, 0, 1, 0]),
    ] {
        let options = LoaderOptions {
            drop_last,
            ..LoaderOptions::default()
        };
        loader.prepare(&dataset(&[(0, 23)]), 10, options).unwrap();
        assert_eq!(foreseen(&mut loader), counts);
    }
    loader.prescribe(6, &[0..3, 3..4, 4..6]);
    assert_eq!(foreseen(&mut loader), [2, 1, 0, 2, 1, 0]);
}

/// The smaller task has 5 samples, 3 a mini-batch: it is shuffled anew for every second one.
#[test]
fn a_task_that_begins_anew_ends_what_is_foreseen() {
    let mut loader = TaskBalanced::default();
    let data = dataset(&[(0, 24), (1, 5)]);
    loader.prepare(&data, 7, LoaderOptions::default()).unwrap();
    assert_eq!(foreseen(&mut loader), [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
}

#[test]
fn workers_out_of_range_are_refused() {
    let options = |num_workers, prefetch_factor| LoaderOptions {
        num_workers,
        prefetch_factor,
        ..LoaderOptions::default()
    };
    assert!(options(1024, 1).validate().is_ok());
    let message = |workers, factor| options(workers, factor).validate().unwrap_err().to_string();
    assert!(
        message(1025, 2).contains("--num-workers"),
        "{}",
        message(1025, 2)
    );
    assert!(
        message(1, 0).contains("--prefetch-factor"),
        "{}",
        message(1, 0)
    );
}
