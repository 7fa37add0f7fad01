//! Which samples go into which mini-batch, with PyTorch's and Avalanche's draws.
//!
//! Starting to iterate a PyTorch loader draws one 64-bit seed for its workers; a shuffling sampler
//! draws another when the first batch is asked for, seeds a private generator with it, and takes a
//! permutation from that.

use serde::{Deserialize, Serialize};

use crate::data::ClassificationDataset;
use crate::error::{Error, Result};
use crate::rng::{TorchGenerator, python_set_order};
use std::ops::Range;

/// How the training data is gone through (the keyword arguments of Avalanche's
/// `make_train_dataloader`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoaderOptions {
    /// A new order each epoch (default), or the order of the data.
    pub shuffle: bool,
    /// Whether a last mini-batch with fewer samples is left out (default no).
    pub drop_last: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions {
            shuffle: true,
            drop_last: false,
        }
    }
}

/// A pass over some of the samples of a data set, in batches.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Pass {
    order: Vec<u32>,
    next: usize,
}

impl Pass {
    /// Starts a pass over `n` samples in a new random order.
    fn shuffle(&mut self, n: usize, generator: &mut TorchGenerator) {
        let seed = generator.random_i64() as u64 & 0xffff_ffff;
        TorchGenerator::manual_seed(seed).randperm_into(&mut self.order, n);
        self.next = 0;
    }

    /// Starts a pass over `n` samples in their own order.
    fn in_order(&mut self, n: usize) {
        self.order.clear();
        self.order.extend(0..n as u32);
        self.next = 0;
    }

    /// The next samples, at most `size`; empty at the end of the pass.
    fn batch(&mut self, size: usize) -> &[u32] {
        let start = self.next;
        self.next = self.order.len().min(start + size);
        &self.order[start..self.next]
    }
}

/// The samples of one task.
#[derive(Clone, Default, Debug)]
struct Group {
    samples: Vec<u32>,
    batch_size: usize,
    pass: Pass,
    started: bool,
}

impl Group {
    fn batches(&self, options: LoaderOptions) -> usize {
        if options.drop_last {
            self.samples.len() / self.batch_size
        } else {
            self.samples.len().div_ceil(self.batch_size)
        }
    }

    /// Starts a pass, if the one before has ended or none was begun. True if there is a batch.
    fn ready(
        &mut self,
        options: LoaderOptions,
        restart: bool,
        generator: &mut TorchGenerator,
    ) -> bool {
        if self.batches(options) == 0 {
            return false;
        }
        let left = self.pass.order.len() - self.pass.next;
        let ended = left == 0 || options.drop_last && left < self.batch_size;
        if self.started && !ended {
            return true;
        }
        if self.started && !restart {
            return false;
        }
        self.started = true;
        if options.shuffle {
            self.pass.shuffle(self.samples.len(), generator);
        } else {
            self.pass.in_order(self.samples.len());
        }
        true
    }
}

/// How far the passes over a data set have come.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Position(Vec<(Pass, bool)>);

/// One epoch over a data set: Avalanche's `TaskBalancedDataLoader`. The mini-batch is divided
/// between the task labels, the longest task decides how long the epoch is and comes first in each
/// mini-batch, and shorter tasks begin anew when they are used up. With a single task this is
/// PyTorch's plain loader.
#[derive(Clone, Default, Debug)]
pub(crate) struct TaskBalanced {
    groups: Vec<Group>,
    main: usize,
    options: LoaderOptions,
    /// The mini-batches that the stream prescribes; empty: none.
    prescribed: Vec<Range<usize>>,
    batch: Vec<u32>,
}

impl TaskBalanced {
    /// Prepares epochs over `dataset`.
    ///
    /// # Errors
    /// [`Error::Config`] if a mini-batch has fewer samples than there are tasks.
    pub fn prepare(
        &mut self,
        dataset: &ClassificationDataset,
        batch_size: usize,
        options: LoaderOptions,
    ) -> Result<()> {
        self.options = options;
        self.groups.clear();
        self.prescribed.clear();
        let mut tasks: Vec<u32> = Vec::new();
        for i in 0..dataset.len() {
            let task = dataset.task_label(i);
            let at = tasks.iter().position(|&t| t == task).unwrap_or_else(|| {
                tasks.push(task);
                self.groups.push(Group::default());
                tasks.len() - 1
            });
            self.groups[at].samples.push(i as u32);
        }
        let n = tasks.len();
        if batch_size < n {
            return Err(Error::config(
                "--train-mb-size",
                format!("at least {n}, one sample of each task label"),
                batch_size,
            ));
        }
        // Avalanche walks a Python set of the labels.
        let order = python_set_order(&tasks);
        let rank = |task: u32| order.iter().position(|&t| t == task);
        let mut groups: Vec<_> = tasks.into_iter().zip(self.groups.drain(..)).collect();
        groups.sort_by_key(|(task, _)| rank(*task));
        self.groups
            .extend(groups.into_iter().map(|(_, group)| group));
        for (i, group) in self.groups.iter_mut().enumerate() {
            group.batch_size = batch_size / n + usize::from(i < batch_size % n);
        }
        let lengths = self.groups.iter().map(|g| g.batches(options));
        self.main = lengths
            .enumerate()
            .fold(
                (0, 0),
                |best, (i, length)| {
                    if length > best.1 { (i, length) } else { best }
                },
            )
            .0;
        Ok(())
    }

    /// Prepares epochs over `n` samples in their order, in these mini-batches.
    pub fn prescribe(&mut self, n: usize, batches: &[Range<usize>]) {
        self.options = LoaderOptions {
            shuffle: false,
            drop_last: false,
        };
        self.groups.clear();
        self.groups.push(Group {
            samples: (0..n as u32).collect(),
            batch_size: 1,
            ..Group::default()
        });
        self.main = 0;
        self.prescribed.clear();
        self.prescribed.extend_from_slice(batches);
    }

    /// Mini-batches in an epoch.
    pub fn len(&self) -> usize {
        if !self.prescribed.is_empty() {
            return self.prescribed.len();
        }
        self.groups
            .get(self.main)
            .map_or(0, |g| g.batches(self.options))
    }

    /// How far each task's pass has come.
    pub fn position(&self) -> Position {
        let groups = self.groups.iter();
        Position(groups.map(|g| (g.pass.clone(), g.started)).collect())
    }

    /// Goes on from `position`, taken of the same data set.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it was another one.
    pub fn seek(&mut self, position: Position) -> Result<()> {
        let fits = position.0.len() == self.groups.len()
            && (position.0.iter().zip(&self.groups)).all(|((pass, started), group)| {
                !started
                    || pass.order.len() == group.samples.len()
                        && pass.next <= pass.order.len()
                        && pass
                            .order
                            .iter()
                            .all(|&i| (i as usize) < group.samples.len())
            });
        if !fits {
            return Err(Error::Checkpoint(
                "the checkpoint was made while training on other data; give the run the same \
                 benchmark and data"
                    .to_string(),
            ));
        }
        for (group, (pass, started)) in self.groups.iter_mut().zip(position.0) {
            (group.pass, group.started) = (pass, started);
        }
        Ok(())
    }

    /// Starts an epoch.
    pub fn start(&mut self, generator: &mut TorchGenerator) {
        generator.random_i64();
        for group in &mut self.groups {
            group.started = false;
        }
    }

    /// The next mini-batch; empty at the end of the epoch.
    pub fn batch(&mut self, generator: &mut TorchGenerator) -> &[u32] {
        self.batch.clear();
        if let (false, Some(group)) = (self.prescribed.is_empty(), self.groups.first_mut()) {
            let next = if group.started { group.pass.next } else { 0 };
            let at = self.prescribed.partition_point(|range| range.start < next);
            group.batch_size = self.prescribed.get(at).map_or(1, Range::len);
        }
        let others = (0..self.groups.len()).filter(|&i| i != self.main);
        for i in std::iter::once(self.main).chain(others) {
            let Some(group) = self.groups.get_mut(i) else {
                break;
            };
            if !group.ready(self.options, i != self.main, generator) {
                if i == self.main {
                    break;
                }
                continue;
            }
            let samples = &group.samples;
            let picked = group.pass.batch(group.batch_size);
            self.batch
                .extend(picked.iter().map(|&at| samples[at as usize]));
        }
        &self.batch
    }
}

/// An endless sequence of full batches: passes over the buffer without replacement, each shuffled
/// anew; what is left over at the end of a pass is dropped.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Endless {
    pass: Pass,
    batches_left: usize,
}

impl Endless {
    /// The next `size` of `n` samples; `size` is at least 1 and at most `n`.
    pub fn batch(&mut self, n: usize, size: usize, generator: &mut TorchGenerator) -> &[u32] {
        if self.batches_left == 0 {
            generator.random_i64();
            self.pass.shuffle(n, generator);
            self.batches_left = n / size;
        }
        self.batches_left -= 1;
        self.pass.batch(size)
    }
}

#[cfg(test)]
mod tests {
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
        std::iter::from_fn(|| Some(loader.batch(generator).to_vec()).filter(|b| !b.is_empty()))
            .collect()
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
            serde_json::from_str(include_str!("../../tests/golden/task_balanced.json")).unwrap();
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
}
