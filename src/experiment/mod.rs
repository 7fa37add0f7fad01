//! From a configuration to a finished run.
//!
//! [`Config`] says everything about a run; [`train`] carries it out and leaves a folder behind,
//! [`evaluate`] measures a saved model on a benchmark.

mod build;
mod config;
mod evaluate;
mod folder;
mod keep;
mod run;
mod summary;

pub use config::{
    BenchmarkName, Config, DataSource, DeviceName, ModelName, PrecisionName, StrategyName,
};
pub use evaluate::evaluate;
pub use folder::RunFolder;
pub use run::{Finished, resume, train};
pub use summary::Summary;
