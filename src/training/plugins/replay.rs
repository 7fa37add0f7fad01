//! Replay beside another strategy.

use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::{Error, Result};
use crate::replay::{Buffer, ExperienceBalancedBuffer, TransformTable};
use crate::rng::python_set_order;
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
    task_balanced: bool,
    /// The experiences in the buffer.
    seen: Vec<Experience>,
    /// The buffer's content in the running experience; made when first needed.
    stored: Option<Stored>,
    /// One for each group of the content.
    loaders: Vec<Endless>,
}

/// The buffer's content: all its samples, and the groups that share the replayed part of a mini-batch.
#[derive(Clone, Debug)]
struct Stored {
    dataset: ClassificationDataset,
    groups: Vec<Vec<u32>>,
}

impl Stored {
    fn new(dataset: ClassificationDataset, by_task: bool) -> Self {
        let mut tasks: Vec<u32> = Vec::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for i in 0..dataset.len() {
            let task = if by_task { dataset.task_label(i) } else { 0 };
            let at = tasks.iter().position(|&t| t == task).unwrap_or_else(|| {
                tasks.push(task);
                groups.push(Vec::new());
                tasks.len() - 1
            });
            groups[at].push(i as u32);
        }
        // Avalanche walks a Python set of the labels.
        let order = python_set_order(&tasks);
        let mut pairs: Vec<_> = tasks.into_iter().zip(groups).collect();
        pairs.sort_by_key(|(task, _)| order.iter().position(|t| t == task));
        let groups = pairs.into_iter().map(|(_, group)| group).collect();
        Stored { dataset, groups }
    }
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
            task_balanced: false,
            seen: Vec::new(),
            stored: None,
            loaders: Vec::new(),
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

    /// Whether the added samples are divided over the task labels in the buffer, the first ones having one
    /// more where they do not divide evenly (Avalanche's `task_balanced_dataloader`; default no). Each task is
    /// then gone through by itself, again and again.
    pub fn task_balanced(self, task_balanced: bool) -> Self {
        ReplayPlugin {
            task_balanced,
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
        self.loaders.clear();
        Ok(())
    }

    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if self.stored.is_none() {
            let Some(experience) = &s.experience else {
                return Ok(());
            };
            let shape = experience.dataset().shape();
            let stored = self.storage_policy.dataset(shape, |_| true);
            self.stored = stored.map(|stored| Stored::new(stored, self.task_balanced));
        }
        let Some(Stored { dataset, groups }) = &self.stored else {
            return Ok(());
        };
        let size = self.batch_size_mem.unwrap_or(s.train_mb_size);
        let tasks = groups.len();
        if size < tasks {
            let expected = format!("at least {tasks}, one sample of each task label stored");
            return Err(Error::config("batch-size-mem", expected, size));
        }
        self.loaders.resize_with(tasks, Endless::default);
        for (i, (group, loader)) in groups.iter().zip(&mut self.loaders).enumerate() {
            let share = size / tasks + usize::from(i < size % tasks);
            let batch = loader.batch(group.len(), share.min(group.len()), s.tape.generator());
            let samples = batch.iter().map(|&at| group[at as usize] as usize);
            s.append_beside(dataset, samples);
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
        out.put("loaders", &self.loaders);
        self.storage_policy
            .save(out.child("buffer"), &TransformTable::of(&self.seen));
    }

    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.loaders = from.get("loaders")?;
        self.storage_policy = Buffer::load(from.at("buffer"), &TransformTable::of(trained))?;
        self.seen = trained.to_vec();
        self.stored = None;
        Ok(())
    }
}
