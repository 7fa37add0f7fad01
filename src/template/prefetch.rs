//! Mini-batches gathered ahead, on threads of their own, while the step runs.
//!
//! With n workers, worker w gathers the mini-batches w, w + n, w + 2n, ... in order, as PyTorch's loader
//! deals them out, so their order needs no bookkeeping. What a row looks like follows from its sample
//! and its [`CounterKey`]; nothing here draws a number, so any number of workers gives the same bits.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::LoaderOptions;
use crate::data::{ClassificationDataset, Group};
use crate::error::{Error, Result};
use crate::rng::CounterKey;

/// The workers of a pass over a data set. They end when it is dropped.
pub(crate) struct Prefetch {
    workers: Vec<Worker>,
    group: Group,
    /// Mini-batches that may be under way.
    most: usize,
    /// Mini-batches handed out to workers, and taken back from them.
    sent: usize,
    taken: usize,
    /// Memory of mini-batches that are not under way.
    spare: Vec<Gathering>,
}

struct Worker {
    orders: SyncSender<Gathering>,
    done: Receiver<Gathering>,
    thread: JoinHandle<()>,
}

/// A mini-batch under way.
struct Gathering {
    samples: Vec<usize>,
    key: CounterKey,
    rows: Vec<f32>,
    /// What the worker panicked with, if it did.
    outcome: thread::Result<()>,
}

impl Prefetch {
    /// Starts the workers for a pass of `batches` mini-batches; `None` if nothing is to be gathered
    /// ahead.
    ///
    /// # Errors
    /// [`Error::Config`] if the options are out of range or the system has no more threads.
    pub fn new(
        dataset: &ClassificationDataset,
        group: Group,
        batches: usize,
        options: LoaderOptions,
    ) -> Result<Option<Self>> {
        options.validate()?;
        let n = options.num_workers.min(batches);
        if n == 0 || batches < 2 {
            return Ok(None);
        }
        let mut pass = Prefetch {
            workers: Vec::with_capacity(n),
            group,
            most: n * options.prefetch_factor,
            sent: 0,
            taken: 0,
            spare: Vec::new(),
        };
        for _ in 0..n {
            let (orders, to_gather) = sync_channel(options.prefetch_factor);
            let (gathered, done) = sync_channel(options.prefetch_factor);
            let dataset = dataset.clone();
            let thread = thread::Builder::new()
                .name("loader".to_string())
                .spawn(move || work(&dataset, group, &to_gather, &gathered))
                .map_err(|e| {
                    let expected = format!("threads that can start ({e})");
                    Error::config("--num-workers", expected, options.num_workers)
                })?;
            pass.workers.push(Worker {
                orders,
                done,
                thread,
            });
        }
        Ok(Some(pass))
    }

    /// Puts the rows of `samples`, the next mini-batch, in the place of `rows`, and has workers gather
    /// what `upcoming` says: it appends the samples of the k-th mini-batch after this one, if there is
    /// one. False, with `rows` as they were, if something else was foreseen: the seed or the clock were
    /// changed in the middle of an epoch.
    ///
    /// # Panics
    /// With whatever the worker panicked with on this mini-batch.
    pub fn take(
        &mut self,
        samples: &[usize],
        key: CounterKey,
        rows: &mut Vec<f32>,
        upcoming: impl Fn(usize, &mut Vec<usize>) -> bool,
    ) -> bool {
        while self.sent - self.taken < self.most {
            let k = self.sent - self.taken;
            let mut next = self.spare.pop().unwrap_or_else(|| Gathering {
                samples: Vec::new(),
                key,
                rows: Vec::new(),
                outcome: Ok(()),
            });
            // A training iteration each.
            next.key = CounterKey {
                step: key.step + k as u64,
                ..key
            };
            next.samples.clear();
            if k == 0 {
                next.samples.extend_from_slice(samples);
            } else if !upcoming(k, &mut next.samples) {
                self.spare.push(next);
                break;
            }
            self.send(next);
        }
        let mut first = self.receive();
        let same_samples = first.samples == samples;
        // In evaluation nobody can change what comes, and no number is drawn.
        debug_assert!(same_samples || self.group == Group::Train, "{samples:?}");
        if !same_samples || self.group == Group::Train && first.key != key {
            self.spare.push(first);
            while self.taken < self.sent {
                let other = self.receive();
                self.spare.push(other);
            }
            return false;
        }
        if let Err(panic) = first.outcome {
            std::panic::resume_unwind(panic);
        }
        std::mem::swap(rows, &mut first.rows);
        self.spare.push(first);
        true
    }

    fn send(&mut self, next: Gathering) {
        let worker = &self.workers[self.sent % self.workers.len()];
        worker.orders.send(next).expect("a worker waits for orders");
        self.sent += 1;
    }

    fn receive(&mut self) -> Gathering {
        let worker = &self.workers[self.taken % self.workers.len()];
        let first = worker.done.recv().expect("a worker answers every order");
        self.taken += 1;
        first
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // All are told, by closed channels, before the first is waited for.
        let threads: Vec<_> = self.workers.drain(..).map(|w| w.thread).collect();
        for thread in threads {
            // A worker cannot panic outside of what it catches.
            let _ = thread.join();
        }
    }
}

/// What a worker does until nobody orders or nobody takes.
fn work(
    dataset: &ClassificationDataset,
    group: Group,
    orders: &Receiver<Gathering>,
    done: &SyncSender<Gathering>,
) {
    let size = dataset.shape().iter().product::<usize>();
    for mut order in orders {
        let Gathering {
            samples, key, rows, ..
        } = &mut order;
        rows.resize(samples.len() * size, 0.0);
        order.outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            dataset.gather_alone(samples, group, *key, rows);
        }));
        if done.send(order).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
