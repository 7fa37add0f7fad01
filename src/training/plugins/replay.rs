//! Replay beside another strategy.

use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::{Error, Result};
use crate::replay::{Buffer, ExperienceBalancedBuffer, TransformTable};
use crate::snapshot::Snapshot;
use crate::template::{Endless, Plugin, State};

/// Avalanche's `ReplayPlugin`: a buffer of its own whose samples are added to each mini-batch, from
/// the second experience on, as if they were part of the current data. The strategy
/// [`Replay`](crate::training::Replay) is this without another strategy; beside
/// [`Der`](crate::training::Der) there are two replays.
///
/// The current part of the mini-batch has the size that the strategy gives it. Avalanche restarts its
/// memory loader each epoch; here replay runs on through the experience, and a buffer smaller than
/// `batch_size_mem` is replayed whole.
///
/// ```
/// use unforget::prelude::*;
/// use unforget::replay::{Buffer, ClassBalancedBuffer};
/// use unforget::training::ReplayPlugin;
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Mlp::new(&mut tape, &[784, 10]);
/// let policy = Buffer::ClassBalanced(ClassBalancedBuffer::new(500));
/// let strategy = Naive::builder(tape, model, Sgd::new(0.03))
///     .plugin(ReplayPlugin::new(500).storage_policy(policy).batch_size_mem(20))
///     .build()?;
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReplayPlugin {
    storage_policy: Buffer,
    batch_size_mem: Option<usize>,
    /// The experiences in the buffer.
    seen: Vec<Experience>,
    /// The buffer's content in the running experience; made when first needed.
    stored: Option<ClassificationDataset>,
    loader: Endless,
}

impl Default for ReplayPlugin {
    /// Avalanche's default: 200 samples.
    fn default() -> Self {
        ReplayPlugin::new(200)
    }
}

impl ReplayPlugin {
    /// Replay from a buffer of so many samples, divided over the experiences.
    pub fn new(mem_size: usize) -> Self {
        let buffer = ExperienceBalancedBuffer::new(mem_size);
        ReplayPlugin {
            storage_policy: Buffer::ExperienceBalanced(buffer),
            batch_size_mem: None,
            seen: Vec::new(),
            stored: None,
            loader: Endless::default(),
        }
    }

    /// Another buffer, with its own size.
    pub fn storage_policy(self, storage_policy: Buffer) -> Self {
        ReplayPlugin {
            storage_policy,
            ..self
        }
    }

    /// How many samples are added to a mini-batch (default: as many as it has already).
    pub fn batch_size_mem(self, batch_size_mem: impl Into<Option<usize>>) -> Self {
        ReplayPlugin {
            batch_size_mem: batch_size_mem.into(),
            ..self
        }
    }

    /// The samples stored.
    pub fn buffer(&self) -> &Buffer {
        &self.storage_policy
    }
}

impl Plugin for ReplayPlugin {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        match self.batch_size_mem {
            Some(0) => Err(Error::config("batch-size-mem", "at least 1", 0)),
            _ => Ok(()),
        }
    }

    fn before_training_exp(&mut self, _: &mut State) -> Result<()> {
        self.loader = Endless::default();
        Ok(())
    }

    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if self.stored.is_none() {
            let Some(experience) = &s.experience else {
                return Ok(());
            };
            let shape = experience.dataset().shape();
            self.stored = self.storage_policy.dataset(shape, |_| true);
        }
        if let Some(stored) = &self.stored {
            let n = stored.len();
            let size = self.batch_size_mem.unwrap_or(s.train_mb_size).min(n);
            let batch = self.loader.batch(n, size, s.tape.generator());
            s.append_beside(stored, batch.iter().map(|&i| i as usize));
        }
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        if let Some(experience) = &s.experience {
            self.seen.push(experience.clone());
            self.storage_policy
                .update(experience.dataset(), s.tape.generator());
        }
        self.stored = None;
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("loader", &self.loader);
        self.storage_policy
            .save(out.child("buffer"), &TransformTable::of(&self.seen));
    }

    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.loader = from.get("loader")?;
        self.storage_policy = Buffer::load(from.at("buffer"), &TransformTable::of(trained))?;
        self.seen = trained.to_vec();
        self.stored = None;
        Ok(())
    }
}
