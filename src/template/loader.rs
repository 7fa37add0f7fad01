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
#[serde(default)]
pub struct LoaderOptions {
    /// A new order each epoch (default), or the order of the data.
    pub shuffle: bool,
    /// Whether a last mini-batch with fewer samples is left out (default no).
    pub drop_last: bool,
    /// Threads that gather the coming mini-batches, in training and in evaluation, while the step
    /// runs; 0 (default): the step waits until its own is gathered. The numbers of a run do not
    /// depend on it, so a checkpoint does not hold it.
    ///
    /// Gathered ahead is what is settled: the data's own rows up to the end of the epoch, or, where
    /// task labels share the mini-batch, up to the next shuffling of a smaller task. Replayed rows are
    /// drawn and gathered with their step. Images that are neither varied nor read from disk need no gathering:
    /// where the model is on a device that makes rows of stored bytes, which the CPU is too, no thread starts for them.
    #[serde(skip)]
    pub num_workers: usize,
    /// Mini-batches that each worker may be ahead (default 2).
    #[serde(skip)]
    pub prefetch_factor: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions {
            shuffle: true,
            drop_last: false,
            num_workers: 0,
            prefetch_factor: 2,
        }
    }
}

impl LoaderOptions {
    /// # Errors
    /// [`Error::Config`] if there are more than 1024 workers, or mini-batches for each, or no
    /// mini-batch for workers that there are.
    pub fn validate(&self) -> Result<()> {
        if self.num_workers > MOST {
            let expected = format!("at most {MOST}");
            return Err(Error::config("--num-workers", expected, self.num_workers));
        }
        if !(1..=MOST).contains(&self.prefetch_factor) {
            let expected = format!("1 to {MOST} mini-batches for each worker");
            return Err(Error::config(
                "--prefetch-factor",
                expected,
                self.prefetch_factor,
            ));
        }
        Ok(())
    }
}

/// Workers, and mini-batches of each: beyond any machine.
const MOST: usize = 1024;

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
            ..LoaderOptions::default()
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

    /// Goes on to the next mini-batch; false at the end of the epoch.
    pub fn advance(&mut self, generator: &mut TorchGenerator) -> bool {
        self.batch.clear();
        if let (false, Some(group)) = (self.prescribed.is_empty(), self.groups.first_mut()) {
            let next = if group.started { group.pass.next } else { 0 };
            let at = self.prescribed.partition_point(|range| range.start < next);
            group.batch_size = self.prescribed.get(at).map_or(1, Range::len);
        }
        for i in self.in_order() {
            let group = &mut self.groups[i];
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
        !self.batch.is_empty()
    }

    /// The samples of the mini-batch.
    pub fn batch(&self) -> &[u32] {
        &self.batch
    }

    /// Appends the samples of the `k`-th mini-batch after this one to `out`; false if it is not settled
    /// yet, because the epoch ends or a pass begins anew before it.
    pub fn upcoming(&self, k: usize, out: &mut Vec<usize>) -> bool {
        if let (false, [group]) = (self.prescribed.is_empty(), self.groups.as_slice()) {
            let at = self
                .prescribed
                .partition_point(|range| range.start < group.pass.next);
            let range = (at + k).checked_sub(1).and_then(|i| self.prescribed.get(i));
            out.extend(range.cloned().unwrap_or_default());
            return range.is_some();
        }
        for group in self.in_order().map(|i| &self.groups[i]) {
            if group.batches(self.options) == 0 {
                continue;
            }
            let order = &group.pass.order;
            let start = group.pass.next + k.saturating_sub(1) * group.batch_size;
            let end = order.len().min(start + group.batch_size);
            let short = self.options.drop_last && end < start + group.batch_size;
            if !group.started || start >= end || short {
                return false;
            }
            let samples = order[start..end]
                .iter()
                .map(|&at| group.samples[at as usize]);
            out.extend(samples.map(|sample| sample as usize));
        }
        true
    }

    /// The groups as they come in a mini-batch: the longest task first.
    fn in_order(&self) -> impl Iterator<Item = usize> + use<> {
        let (main, all) = (self.main, 0..self.groups.len());
        let first = Some(main).filter(|i| all.contains(i));
        first.into_iter().chain(all.filter(move |&i| i != main))
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
mod tests;
