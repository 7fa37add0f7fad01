//! The strategy loop with its callbacks, Dark Experience Replay, and its siblings.
//!
//! [`Strategy`] is Avalanche's template: it trains on experiences one after the other and evaluates
//! on streams, calling every [`Plugin`] at each of its points. A [`Method`] says what is particular
//! to a strategy. Everything a plugin or a method may look at or change lies in [`State`], under
//! Avalanche's names.

mod builder;
mod cumulative;
mod der;
mod er_ace;
mod eval_result;
mod evaluate;
mod icarl;
mod method;
mod mir;
mod naive;
mod paper;
#[cfg(test)]
mod paper_tests;
mod periodic;
mod plugins;
mod replay;
mod resume;
mod strategy;

pub use crate::template::{
    ClassWeights, Clock, Criterion, Event, LoaderOptions, LossTerms, MetricData, MetricValue,
    Plugin, State,
};
pub use builder::StrategyBuilder;
pub use cumulative::{Cumulative, Joint};
pub use der::Der;
pub use er_ace::ErAce;
pub use eval_result::{EvalResult, ExperienceEval};
pub use icarl::Icarl;
pub use method::Method;
pub use mir::Mir;
pub use naive::Naive;
pub use paper::{PaperDer, PaperReplay};
pub use periodic::PevalMode;
pub use plugins::*;
pub use replay::Replay;
pub use resume::Keeper;
pub use strategy::{Experiences, Strategy};
