//! A way for benchmarks to run the kernels of each table on plain slices.

use super::bf16::{self, Factors, Prepared};
use super::dispatch::{self, Isa};
use super::isa::bf16::present;
use super::table::Table;
use super::{conv, gemm};
use crate::backend::{Gemm, Precision, Write};
use crate::error::Result;
use crate::shape::Conv;
use std::ops::{Deref, DerefMut};

/// The kernels of one instruction set that this CPU has.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

/// What the engine computes products with in one precision.
#[derive(Clone, Copy)]
pub struct Products(Option<Factors>);

impl Products {
    /// The kernels for a precision; those for f32 where this CPU lacks it, which a warning says.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) for a precision that is a GPU's.
    pub fn of(precision: Precision) -> Result<Self> {
        Ok(Products(Factors::new(precision)?))
    }

    /// Runs `rounds` of independent multiply-adds in registers; returns the operations done that count: of
    /// split numbers a third.
    pub fn burn(self, rounds: usize) -> f64 {
        match self.0 {
            None => dispatch::select().burn(rounds),
            Some(factors) => {
                let operations = factors.kernels().table().burn(rounds);
                operations / if factors.planes() == 2 { 3.0 } else { 1.0 }
            }
        }
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
        match self.0 {
            None => gemm::gemm(c, a, b, dims, Write::Set),
            Some(factors) => bf16::gemm(factors, c, a, b, dims, Write::Set),
        }
    }
}

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

/// Products with factors rounded to bfloat16, however small they are.
#[derive(Clone, Copy)]
pub struct Rounded(Factors);

impl Rounded {
    /// Every way this CPU has to multiply bfloat16 numbers, from the slowest to the fastest; `split`
    /// numbers become two each.
    pub fn all(split: bool) -> impl DoubleEndedIterator<Item = Rounded> {
        present().map(move |kernels| Rounded(Factors::always(kernels, split)))
    }

    /// The same where it is faster than f32, which is what the engine does.
    pub fn where_it_pays(self) -> Self {
        Rounded(self.0.where_it_pays())
    }

    /// What the kernels are called.
    pub fn name(self) -> &'static str {
        self.0.kernels().name()
    }

    /// Runs `rounds` of independent multiply-adds of bfloat16 numbers in registers; returns the operations
    /// done.
    pub fn burn(self, rounds: usize) -> f64 {
        self.0.kernels().table().burn(rounds)
    }

    /// `C (+)= op(A)·op(B)`
    pub fn gemm(self, c: &mut [f32], a: &[f32], b: &[f32], dims: Gemm, write: Write) {
        bf16::gemm(self.0, c, a, b, dims, write);
    }

    /// `C = op(A)·op(B)` again and again: the factors are converted here, once, and each call of what is
    /// returned multiplies.
    pub fn prepared(self, a: &[f32], b: &[f32], dims: Gemm) -> impl FnMut(&mut [f32]) + use<> {
        let plan = Prepared::new(self.0, dims);
        let zeros = |len| Aligned::from_fn(len, |_| 0.0);
        let [mut words_a, mut words_b] = [plan.a_len(), plan.b_len()].map(zeros);
        plan.make_a(&mut words_a, a);
        plan.make_b(&mut words_b, b);
        move |c| plan.multiply(c, &words_a, &words_b, Write::Set)
    }

    /// `y = x * w`
    pub fn conv2d(self, y: &mut [f32], x: &[f32], w: &[f32], conv: Conv) {
        conv::conv2d(Some(self.0), y, x, w, conv);
    }

    /// The gradient of the input of a convolution.
    pub fn conv2d_backward_data(self, dx: &mut [f32], dy: &[f32], w: &[f32], conv: Conv) {
        conv::conv2d_backward_data(Some(self.0), dx, dy, w, conv, Write::Set);
    }

    /// The gradient of the weight of a convolution.
    pub fn conv2d_backward_weight(self, dw: &mut [f32], x: &[f32], dy: &[f32], conv: Conv) {
        conv::conv2d_backward_weight(Some(self.0), dw, x, dy, conv, Write::Set);
    }
}

/// Numbers that start on a cache line, as those of a tensor do. The allocator alone would put many of them sixteen
/// bytes behind one, and have every widest vector straddle two.
pub struct Aligned {
    memory: Vec<f32>,
    start: usize,
}

impl Aligned {
    /// Numbers that `number` gives for their places.
    pub fn from_fn(len: usize, mut number: impl FnMut(usize) -> f32) -> Self {
        let mut memory = vec![0.0; len + 16];
        let start = memory.as_ptr().align_offset(64).min(16);
        memory.truncate(start + len);
        for (i, to) in memory[start..].iter_mut().enumerate() {
            *to = number(i);
        }
        Aligned { memory, start }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.start..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..]
    }
}
