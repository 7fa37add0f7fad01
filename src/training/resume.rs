//! A strategy's whole state, out and in again: what makes a resumed run bit-exact.

use serde::{Deserialize, Serialize};

use super::{Experiences, Strategy};
use crate::benchmarks::Experience;
use crate::error::{Error, Result};
use crate::replay::{Buffer, TransformTable};
use crate::snapshot::Snapshot;
use crate::template::{Position, State};

/// Keeps snapshots while a strategy trains; see [`StrategyBuilder::keeper`](super::StrategyBuilder::keeper).
pub trait Keeper: Send {
    /// Asked after every training iteration; true makes the strategy take a snapshot.
    fn due(&mut self, s: &State) -> bool;

    /// Takes the snapshot. An error ends the training with it, so a keeper may write the snapshot
    /// and return [`Error::Interrupted`]: the run can then be resumed from exactly here.
    ///
    /// # Errors
    /// What should end the run.
    fn keep(&mut self, snapshot: Snapshot) -> Result<()>;
}

/// Where the strategy stands.
#[derive(Serialize, Deserialize)]
struct Progress {
    method: String,
    plugins: usize,
    /// Experiences trained on so far, the running one included, and what they look like.
    trained: Vec<Trained>,
    /// In the middle of an experience: its position in the list given to `train`, and the loader's.
    within: Option<(usize, Position)>,
    epoch_evaluated: bool,
}

/// Enough of an experience to notice that a benchmark is not the one it was.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Trained {
    id: usize,
    samples: usize,
    classes: Vec<u32>,
}

impl From<&Experience> for Trained {
    fn from(experience: &Experience) -> Self {
        Trained {
            id: experience.current_experience(),
            samples: experience.dataset().len(),
            classes: experience.classes_in_this_experience().to_vec(),
        }
    }
}

/// Where a resumed call of `train` takes up its work.
pub(super) struct Resume {
    pub experience: usize,
    pub position: Position,
}

impl Strategy {
    /// Everything that the rest of the run depends on: model, optimizer, buffer, generator, clock,
    /// loader, and what the method, the plugins and the metrics keep. Taken between two iterations
    /// or between two calls of `train`.
    ///
    /// Files are written by [`crate::checkpoint::save_checkpoint`].
    pub fn save(&self) -> Snapshot {
        let mut out = Snapshot::default();
        let progress = Progress {
            method: self.method.name().to_string(),
            plugins: self.plugins.len(),
            trained: self.trained.iter().map(Trained::from).collect(),
            within: self.within.map(|index| (index, self.loader.position())),
            epoch_evaluated: self.periodic.epoch_evaluated,
        };
        out.put("progress", &progress);
        self.state.save(out.child("state"));
        self.state.tape.save(out.child("tape"));
        let table = TransformTable::of(&self.trained);
        if let Some(buffer) = &self.state.storage_policy {
            buffer.save(out.child("buffer"), &table);
        }
        self.method.save(out.child("method"));
        for (i, plugin) in self.plugins.iter().enumerate() {
            plugin.save(out.child(&format!("plugin{i}")));
        }
        self.evaluator.save(out.child("evaluator"));
        out
    }

    /// Goes on from where [`save`](Self::save) was called. The strategy must have been built as it
    /// was then, and `stream` be the stream (or the part of it) that was trained on.
    ///
    /// If the snapshot was taken in the middle of an experience, the next call of `train` must be
    /// given the same experiences as the one that was cut, and goes on inside it. Of the callbacks
    /// that had run before the cut, only `after_train_dataset_adaptation` is called again, because
    /// the data that a plugin put in place there is not part of the snapshot.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] and [`Error::StateDict`] if the snapshot is of another strategy, model
    /// or benchmark. The strategy is then of no further use.
    pub fn load(&mut self, from: &Snapshot, stream: &(impl Experiences + ?Sized)) -> Result<()> {
        let progress: Progress = from.get("progress")?;
        let (name, plugins) = (self.method.name(), self.plugins.len());
        if progress.method != name || progress.plugins != plugins {
            return Err(Error::Checkpoint(format!(
                "the checkpoint is of the strategy {} with {} plugins, this run has {name} with \
                 {plugins}; build the same strategy",
                progress.method, progress.plugins
            )));
        }
        let list = stream.list();
        self.trained = (progress.trained.iter())
            .map(|then| {
                let now = list.iter().find(|e| e.current_experience() == then.id);
                let same = now.filter(|e| Trained::from(*e) == *then).cloned();
                same.ok_or_else(|| {
                    Error::Checkpoint(format!(
                        "experience {} has other samples or classes than when the checkpoint was \
                         made; give the run the same benchmark, seed and data",
                        then.id
                    ))
                })
            })
            .collect::<Result<_>>()?;
        self.state.load(from.at("state"), from.at("tape"))?;
        let table = TransformTable::of(&self.trained);
        if self.state.storage_policy.is_some() {
            self.state.storage_policy = Some(Buffer::load(from.at("buffer"), &table)?);
        }
        self.method.load(from.at("method"), &self.trained)?;
        for (i, plugin) in self.plugins.iter_mut().enumerate() {
            plugin.load(from.at(&format!("plugin{i}")), &self.trained)?;
        }
        self.evaluator.load(from.at("evaluator"))?;
        self.periodic.epoch_evaluated = progress.epoch_evaluated;
        self.resume = progress.within.map(|(experience, position)| Resume {
            experience,
            position,
        });
        Ok(())
    }

    /// Whether the next call of `train` goes on in the middle of an experience.
    pub fn is_resuming(&self) -> bool {
        self.resume.is_some()
    }

    /// Offers the keeper a snapshot.
    pub(super) fn offer_snapshot(&mut self) -> Result<()> {
        let Some(mut keeper) = self.keeper.take() else {
            return Ok(());
        };
        let kept = if keeper.due(&self.state) {
            keeper.keep(self.save())
        } else {
            Ok(())
        };
        self.keeper = Some(keeper);
        kept
    }
}
