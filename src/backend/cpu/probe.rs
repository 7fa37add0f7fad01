//! A way for benchmarks to run the kernels of each table on plain slices.

use super::dispatch::{self, Isa, Table};
use super::{conv, gemm};
use crate::backend::{Gemm, Write};
use crate::shape::Conv;

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

    /// `C = A·B` of square matrices with `size` rows.
    pub fn product(self, c: &mut [f32], a: &[f32], b: &[f32], size: usize) {
        let dims = Gemm {
            m: size,
            n: size,
            k: size,
            a_transposed: false,
            b_transposed: false,
        };
        self.gemm(c, a, b, dims, Write::Set);
    }

    /// `y = x * w`
    pub fn conv2d(self, y: &mut [f32], x: &[f32], w: &[f32], conv: Conv) {
        conv::forward(self.0, y, x, w, conv);
    }

    /// The gradient of the input of a convolution.
    pub fn conv2d_backward_data(self, dx: &mut [f32], dy: &[f32], w: &[f32], conv: Conv) {
        conv::backward_data(self.0, dx, dy, w, conv, Write::Set);
    }

    /// The gradient of the weight of a convolution.
    pub fn conv2d_backward_weight(self, dw: &mut [f32], x: &[f32], dy: &[f32], conv: Conv) {
        conv::backward_weight(self.0, dw, x, dy, conv, Write::Set);
    }
}
