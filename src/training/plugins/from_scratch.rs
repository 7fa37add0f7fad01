//! Starting over with each experience.

use super::{named, preset};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::{Tape, Weights};
use crate::template::{Plugin, State};
use crate::training::StrategyBuilder;

/// Avalanche's `FromScratchTrainingPlugin`, and with [`builder`](Self::builder) its strategy: each
/// experience begins with the weights of the very first start (and, which Avalanche leaves as they
/// are, its running statistics), and without momentum if `reset_optimizer` is true.
#[derive(Clone, Debug)]
pub struct FromScratchTraining {
    reset_optimizer: bool,
    initial: Option<Weights>,
}

impl Default for FromScratchTraining {
    /// Resets the optimizer, too.
    fn default() -> Self {
        FromScratchTraining::new(true)
    }
}

impl FromScratchTraining {
    /// Whether the momentum is forgotten as well.
    pub fn new(reset_optimizer: bool) -> Self {
        FromScratchTraining {
            reset_optimizer,
            initial: None,
        }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("from-scratch"), tape, model, sgd)
    }
}

impl Plugin for FromScratchTraining {
    fn before_training(&mut self, s: &mut State) -> Result<()> {
        self.initial.get_or_insert_with(|| s.tape.weights());
        Ok(())
    }

    fn before_training_exp(&mut self, s: &mut State) -> Result<()> {
        if let Some(initial) = &mut self.initial {
            s.tape.set_weights(initial);
            // Units that are new start anew next time with what they start with now.
            *initial = s.tape.weights();
        }
        if self.reset_optimizer {
            s.tape.reset_momentum();
        }
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("started", &self.initial.is_some());
        if let Some(initial) = &self.initial {
            initial.save(out, "initial");
        }
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        let started: bool = from.get("started")?;
        self.initial = started
            .then(|| Weights::load(from, "initial"))
            .transpose()?;
        Ok(())
    }
}
