//! Fine-tuning: train on each experience as it comes, and forget.

use super::{Method, StrategyBuilder};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::tape::Tape;

/// Avalanche's `Naive`: the lower bound that every other strategy is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Naive;

impl Naive {
    /// A builder for fine-tuning.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |_| Ok(Box::new(Naive)))
    }
}

impl Method for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }
}
