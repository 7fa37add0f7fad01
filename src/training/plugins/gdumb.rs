//! GDumb (Prabhu, Torr and Dokania, ECCV 2020).

use super::{named, preset};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::{Buffer, ClassBalancedBuffer, TransformTable};
use crate::snapshot::Snapshot;
use crate::tape::{Tape, Weights};
use crate::template::{Plugin, State};
use crate::training::StrategyBuilder;

/// Avalanche's `GDumbPlugin`, and with [`builder`](Self::builder) its strategy `GDumb`: the samples of
/// each experience go into a class-balanced buffer, and a model with the initial weights and without
/// momentum is trained on the buffer alone.
#[derive(Clone, Debug)]
pub struct GDumb {
    buffer: Buffer,
    initial: Option<Weights>,
    /// The experiences in the buffer.
    seen: Vec<Experience>,
    /// Where the clock stood when the buffer was filled last.
    filled: Option<u64>,
}

impl Default for GDumb {
    /// Avalanche's default: 200 samples.
    fn default() -> Self {
        GDumb::new(200)
    }
}

impl GDumb {
    /// GDumb with a buffer of so many samples.
    pub fn new(mem_size: usize) -> Self {
        GDumb {
            buffer: Buffer::ClassBalanced(ClassBalancedBuffer::new(mem_size)),
            initial: None,
            seen: Vec::new(),
            filled: None,
        }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("gdumb"), tape, model, sgd)
    }

    /// The samples stored.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

impl Plugin for GDumb {
    fn before_train_dataset_adaptation(&mut self, s: &mut State) -> Result<()> {
        if let Some(initial) = &mut self.initial {
            s.tape.set_weights(initial);
            s.tape.reset_momentum();
        }
        // Units that are new start anew next time with what they start with now.
        self.initial = Some(s.tape.weights());
        Ok(())
    }

    fn after_train_dataset_adaptation(&mut self, s: &mut State) -> Result<()> {
        let Some(experience) = &s.experience else {
            return Ok(());
        };
        // A run that is resumed inside an experience comes here once more.
        if self.filled != Some(s.clock.train_exp_counter) {
            self.filled = Some(s.clock.train_exp_counter);
            self.seen.push(experience.clone());
            self.buffer.update(experience.dataset(), s.tape.generator());
        }
        let shape = experience.dataset().shape();
        let stored = self.buffer.dataset(shape, |_| true);
        s.adapted_dataset = Some(stored.unwrap_or_else(|| experience.dataset().subset(&[])));
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("filled", &self.filled);
        self.buffer
            .save(out.child("buffer"), &TransformTable::of(&self.seen));
        if let Some(initial) = &self.initial {
            initial.save(out, "initial");
        }
    }

    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.filled = from.get("filled")?;
        self.buffer = Buffer::load(from.at("buffer"), &TransformTable::of(trained))?;
        self.seen = trained.to_vec();
        self.initial = (self.filled.is_some())
            .then(|| Weights::load(from, "initial"))
            .transpose()?;
        Ok(())
    }
}
