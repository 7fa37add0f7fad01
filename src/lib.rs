//! Continual learning in pure Rust.

pub mod backend;
pub mod error;
pub mod shape;

pub use error::{Error, Result};
