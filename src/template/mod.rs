//! What a strategy's loop, its plugins and its metrics share: the state under Avalanche's names, the
//! clock, the callbacks and the loaders. (Avalanche's `training/templates` and `core.py`.)

mod adaptation;
mod clock;
mod criterion;
mod dark_logits;
mod inputs;
mod loader;
mod loss;
mod metric;
mod outcomes;
mod passes;
mod plugin;
mod prefetch;
mod rehearsal;
mod state;

pub use clock::Clock;
pub use criterion::{ClassWeights, Criterion};
pub use loader::LoaderOptions;
pub(crate) use loader::{Endless, Position, TaskBalanced};
pub(crate) use loss::DarkRows;
pub use loss::LossTerms;
pub use metric::{MetricData, MetricValue};
pub(crate) use plugin::call;
pub use plugin::{Event, Plugin};
pub(crate) use prefetch::Prefetch;
pub(crate) use rehearsal::TwoDraws;
pub use state::State;
