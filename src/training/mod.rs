//! The strategy loop with its callbacks, Dark Experience Replay, and its siblings.
//!
//! [`Strategy`] is Avalanche's template: it trains on experiences one after the other and evaluates
//! on streams, calling every [`Plugin`] at each of its points. A [`Method`] says what is particular
//! to a strategy. Everything a plugin or a method may look at or change lies in [`State`], under
//! Avalanche's names.

mod builder;
mod clock;
mod cumulative;
mod der;
mod evaluate;
mod loader;
mod method;
mod naive;
mod plugin;
mod replay;
mod state;
mod strategy;

pub use builder::StrategyBuilder;
pub use clock::Clock;
pub use cumulative::{Cumulative, Joint};
pub use der::Der;
pub use evaluate::{EvalResult, ExperienceEval};
pub use method::Method;
pub use naive::Naive;
pub use plugin::{Event, Plugin};
pub use replay::Replay;
pub use state::{LossTerms, State};
pub use strategy::{Experiences, Strategy};
