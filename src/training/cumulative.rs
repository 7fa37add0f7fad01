//! Training on everything: the data of all experiences so far, or of all at once.

use super::{Method, StrategyBuilder};
use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::Tape;
use crate::template::State;

/// Avalanche's `Cumulative`: each experience is trained on together with all earlier ones.
#[derive(Debug, Default)]
pub struct Cumulative {
    seen: Vec<ClassificationDataset>,
}

impl Cumulative {
    /// A builder for cumulative training.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        let method = |_: &mut _| Ok(Box::new(Cumulative::default()) as Box<dyn Method>);
        StrategyBuilder::new(tape, Box::new(model), sgd, method)
    }
}

impl Method for Cumulative {
    fn name(&self) -> &'static str {
        "cumulative"
    }

    fn before_experience(&mut self, state: &mut State) {
        let experience = state.experience.as_ref();
        self.seen.extend(experience.map(|e| e.dataset().clone()));
    }

    fn train_dataset(&self, _: &Experience) -> ClassificationDataset {
        ClassificationDataset::concat(&self.seen)
    }

    fn load(&mut self, _: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.seen = trained.iter().map(|e| e.dataset().clone()).collect();
        Ok(())
    }
}

/// Avalanche's `JointTraining`: all experiences given to `train` are one data set, the upper bound.
#[derive(Clone, Copy, Debug)]
pub struct Joint;

impl Joint {
    /// A builder for joint training.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |_| Ok(Box::new(Joint)))
    }
}

impl Method for Joint {
    fn name(&self) -> &'static str {
        "joint"
    }

    fn joins_experiences(&self) -> bool {
        true
    }
}
