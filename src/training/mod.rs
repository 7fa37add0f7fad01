//! The strategy loop with its callbacks, Dark Experience Replay, and its siblings.
//!
//! [`Strategy`] is Avalanche's template: it trains on experiences one after the other and evaluates
//! on streams, calling every [`Plugin`] at each of its points. A [`Method`] says what is particular
//! to a strategy. Everything a plugin or a method may look at or change lies in [`State`], under
//! Avalanche's names.

mod builder;
mod cumulative;
mod der;
mod eval_result;
mod evaluate;
mod method;
mod naive;
mod periodic;
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
pub use eval_result::{EvalResult, ExperienceEval};
pub use method::Method;
pub use naive::Naive;
pub use periodic::PevalMode;
pub use replay::Replay;
pub use resume::Keeper;
pub use strategy::{Experiences, Strategy};
