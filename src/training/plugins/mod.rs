//! Plugins that come with the crate, one file each, with Avalanche's formulas and defaults. All of
//! them work beside any strategy; some make a strategy of their own when nothing else is wanted
//! (`Ewc::new(0.4).builder(tape, model, sgd)` is Avalanche's `EWC`).

mod agem;
mod anchor;
mod clipping;
mod early_stopping;
mod ewc;
mod from_scratch;
mod gdumb;
mod gem;
mod lr_scheduler;
mod lwf;
mod mas;
mod memory;
mod replay;
mod synaptic_intelligence;

pub use agem::Agem;
pub use clipping::GradientClipping;
pub use early_stopping::EarlyStopping;
pub use ewc::{Ewc, EwcMode};
pub use from_scratch::FromScratchTraining;
pub use gdumb::GDumb;
pub use gem::Gem;
pub use lr_scheduler::{LrScheduler, Plateau, Schedule, SchedulerMetric, StepGranularity};
pub use lwf::Lwf;
pub use mas::Mas;
pub use replay::ReplayPlugin;
pub use synaptic_intelligence::SynapticIntelligence;

use super::{Method, StrategyBuilder};
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::tape::Tape;
use crate::template::Plugin;

/// Fine-tuning under the name of the plugin that makes it a strategy.
struct Named(&'static str);

impl Method for Named {
    fn name(&self) -> &'static str {
        self.0
    }
}

/// A strategy that is fine-tuning with one plugin. (`make` names it: `|_| named("ewc")`.)
fn preset(
    plugin: impl Plugin + 'static,
    make: fn(&mut StrategyBuilder) -> Result<Box<dyn Method>>,
    tape: Tape,
    model: impl Module + 'static,
    sgd: Sgd,
) -> StrategyBuilder {
    StrategyBuilder::new(tape, Box::new(model), sgd, make).plugin(plugin)
}

fn named(name: &'static str) -> Result<Box<dyn Method>> {
    Ok(Box::new(Named(name)))
}

/// Refuses what is negative, infinite or no number.
fn at_least_zero(name: &str, value: f32) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::config(name, "a finite number of at least 0", value))
}

#[cfg(test)]
mod tests;
