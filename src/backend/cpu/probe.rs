//! A way for benchmarks to run the kernels of each table on plain slices.

use super::dispatch::{self, Isa, Table};
use super::gemm;
use crate::backend::{Gemm, Write};

/// The kernels of one instruction set that this CPU has.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

impl Kernels {
    /// The kernels of every instruction set present, from the plainest to the fastest.
    pub fn all() -> impl DoubleEndedIterator<Item = Kernels> {
        dispatch::tables().map(Kernels)
    }

    /// The kernels that the engine uses.
    pub fn selected() -> Kernels {
        Kernels(dispatch::select())
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.0.isa()
    }

    /// Runs `rounds` of independent multiply-adds in registers; returns the operations done.
    pub fn burn(self, rounds: usize) -> f64 {
        self.0.burn(rounds)
    }

    /// `C (+)= op(A)·op(B)`
    pub fn gemm(self, c: &mut [f32], a: &[f32], b: &[f32], dims: Gemm, write: Write) {
        gemm::gemm_with(self.0, c, a, b, dims, write);
    }
}
