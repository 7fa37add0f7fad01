//! Continual learning in pure Rust.

pub mod backend;
pub mod benchmarks;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod evaluation;
pub mod experiment;
pub mod graph;
pub mod logging;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod replay;
pub mod report;
pub mod rng;
pub mod shape;
pub mod tape;
pub mod training;

pub use error::{Error, Result};
pub use ndarray;
