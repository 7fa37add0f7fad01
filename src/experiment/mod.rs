//! From a configuration to a finished run.
//!
//! [`Config`] says everything about a run; [`train`] carries it out and leaves a folder behind,
//! [`evaluate`] measures a saved model on a benchmark.

pub mod bench;
mod build;
mod config;
mod evaluate;
mod folder;
mod grid;
mod keep;
mod loggers;
mod record;
pub mod reproduce;
mod run;
mod summary;
pub mod sweep;
mod trial;

pub use config::{
    BenchmarkName, Config, DataSource, DeviceName, HeadName, LoggerName, Mnist360Test, ModeName,
    ModelName, PrecisionName, StrategyName,
};
pub use evaluate::evaluate;
pub use folder::RunFolder;
pub use grid::{GridOptions, Shard};
pub use record::Record;
pub use run::{Finished, resume, train};
pub use summary::Summary;
