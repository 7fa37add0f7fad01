//! The CPU backend.

#[cfg(test)]
mod check;
pub(crate) mod conv;
pub(crate) mod dispatch;
pub(crate) mod gemm;
mod isa;
#[doc(hidden)]
pub mod probe;
mod scratch;
pub(crate) mod tiles;
mod widths;

pub use dispatch::{ISA_VARIABLE, Isa, isa_from_env};

/// Most samples in one block of a spatial tensor.
pub const BATCH_BLOCK: usize = 32;
