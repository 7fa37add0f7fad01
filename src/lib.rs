//! Continual learning in pure Rust.

pub mod error;
pub use error::{Error, Result};
