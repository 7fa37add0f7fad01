//! The product of dense row-major matrices.

use super::{Factors, push};
use crate::backend::cpu::dispatch::select;
use crate::backend::cpu::gemm as full;
use crate::backend::cpu::isa::Tap;
use crate::backend::cpu::isa::sparse::Left;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::tiles::TileMut;
use crate::backend::cpu::tiles::for_each_piece;
use crate::backend::cpu::{scratch, sparse};
use crate::backend::{Gemm, Write};

/// Columns of a panel of B: two vectors, or two tile registers.
const PANEL: usize = 32;

/// Panels that one thread makes at a time, and words that it takes from each in turn, to go along the
/// rows of the source.
const TOGETHER: usize = 8;
const WORDS: usize = 8;

/// Rows of A that one thread converts at a time.
const ROWS: usize = 32;

/// Rows of a cell of the destination.
const CELL_ROWS: usize = 128;

/// Words of a row of A that a cell goes through at a time, so that its rows stay in cache: 512 KiB.
const STEP: usize = 1 << 10;

/// Rows at this distance (in words) fall on the same few places of the caches.
const PAGE: usize = 1 << 9;

/// `C = A·B` or `C += A·B`, in f32 where that is faster.
///
/// # Panics
/// If a slice is not as long as `dims` says.
#[track_caller]
pub(crate) fn gemm(
    factors: Factors,
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    dims: Gemm,
    write: Write,
) {
    if !factors.multiply(dims) || dims.k == 0 {
        return full::gemm(c, a, b, dims, write);
    }
    assert!(
        c.len() == dims.m * dims.n && a.len() == dims.m * dims.k && b.len() == dims.k * dims.n,
        "gemm {dims:?} on {}, {} and {} numbers",
        c.len(),
        a.len(),
        b.len()
    );
    if factors.leave_out() && sparse::product(select(), None, c, Left::Numbers(a), b, dims, write) {
        return;
    }
    let plan = Prepared::new(factors, dims);
    scratch::numbers(plan.a_len(), |words_a| {
        scratch::numbers(plan.b_len(), |words_b| {
            plan.make_a(words_a, a);
            plan.make_b(words_b, b);
            plan.multiply(c, words_a, words_b, write);
        });
    });
}

/// A product whose factors are made into words first: A with the words of a row side by side (or, where
/// A is stored transposed and the hardware takes it, those of a column), B in panels of columns.
#[derive(Clone, Copy)]
pub(crate) struct Prepared {
    factors: Factors,
    dims: Gemm,
    /// Words of a row of op(A) in one plane.
    depth: usize,
    /// The words of a column of op(A) lie side by side, not those of a row.
    columns: bool,
    /// Distance between rows of A's words, between neighbouring words of a row, and to the low plane.
    a_row: usize,
    a_step: usize,
    a_low: usize,
}

impl Prepared {
    /// The plan for a product with at least one term.
    pub fn new(factors: Factors, dims: Gemm) -> Self {
        let depth = factors.depth(dims.k);
        let planes = factors.planes();
        let mut plan = Prepared {
            factors,
            dims,
            depth,
            columns: dims.a_transposed && !factors.kernels().upright(),
            a_row: planes * depth,
            a_step: 1,
            a_low: depth,
        };
        if plan.columns {
            (plan.a_row, plan.a_step, plan.a_low) = (1, planes * dims.m, dims.m);
        } else if plan.a_row.is_multiple_of(PAGE) {
            plan.a_row += 16;
        }
        plan
    }

    /// Words of A.
    pub fn a_len(&self) -> usize {
        if self.columns {
            self.depth * self.a_step
        } else {
            self.dims.m * self.a_row
        }
    }

    /// Words of B.
    pub fn b_len(&self) -> usize {
        self.dims.n.div_ceil(PANEL) * self.panel()
    }

    fn panel(&self) -> usize {
        self.factors.planes() * self.depth * PANEL
    }

    /// Converts A.
    pub fn make_a(&self, words: &mut [f32], a: &[f32]) {
        let Gemm {
            m, k, a_transposed, ..
        } = self.dims;
        let (kernels, low) = (self.factors.kernels(), self.factors.low(self.a_low));
        let depth = (self.depth, low);
        if !a_transposed {
            for_each_piece(words, ROWS * self.a_row, m * k, |at, words| {
                let first = at / self.a_row;
                let rows = words.len() / self.a_row;
                kernels.along((words, self.a_row), (&a[first * k..], k), (rows, k), depth);
            });
        } else if self.columns {
            for_each_piece(words, WORDS * self.a_step, m * k, |at, words| {
                let first = at / self.a_step;
                let count = words.len() / self.a_step;
                let rows = (k - (2 * first).min(k)).min(2 * count);
                let from = &a[(2 * first).min(k) * m..];
                kernels.across((words, self.a_step), (from, m), (rows, m), (count, low));
            });
        } else {
            let planes = self.factors.planes();
            for_each_piece(words, ROWS * self.a_row, m * k, |at, words| {
                let first = at / self.a_row;
                let rows = words.len() / self.a_row;
                scratch::numbers(planes * self.depth * rows, |columns| {
                    let (low, step) = (self.factors.low(rows), planes * rows);
                    let size = (self.depth, low);
                    kernels.across((columns, step), (&a[first..], m), (k, rows), size);
                    for plane in 0..planes {
                        let (from, to) = (&columns[plane * rows..], plane * self.depth);
                        let table = kernels.table();
                        table.transpose(
                            (&mut words[to..], self.a_row),
                            (from, step),
                            (self.depth, rows),
                        );
                    }
                });
            });
        }
    }

    /// Converts B.
    pub fn make_b(&self, words: &mut [f32], b: &[f32]) {
        let Gemm {
            n, k, b_transposed, ..
        } = self.dims;
        let kernels = self.factors.kernels();
        let (panel, depth) = (self.panel(), self.depth);
        for_each_piece(words, TOGETHER * panel, k * n, |at, words| {
            let first = at / panel * PANEL;
            let panels = || words_of(first, n);
            if b_transposed {
                let row = self.factors.planes() * depth;
                scratch::numbers(PANEL * row, |rows| {
                    for (j, words) in panels().zip(words.chunks_exact_mut(panel)) {
                        let cols = PANEL.min(n - j);
                        let size = (depth, self.factors.low(depth));
                        kernels.along((rows, row), (&b[j * k..], k), (cols, k), size);
                        kernels
                            .table()
                            .transpose((words, PANEL), (rows, row), (cols, row));
                    }
                });
                return;
            }
            let low = self.factors.low(depth * PANEL);
            for word in (0..depth).step_by(WORDS) {
                let row = (2 * word).min(k);
                let rows = (k - row).min(2 * WORDS);
                for (j, words) in panels().zip(words.chunks_exact_mut(panel)) {
                    let from = &b[row * n + if rows > 0 { j } else { 0 }..];
                    let size = (WORDS.min(depth - word), low);
                    let words = &mut words[word * PANEL..];
                    kernels.across((words, PANEL), (from, n), (rows, PANEL.min(n - j)), size);
                }
            }
        });
    }

    /// `C = A·B` or `C += A·B` of converted factors.
    ///
    /// # Panics
    /// If an operand is too short.
    #[track_caller]
    pub fn multiply(&self, c: &mut [f32], a: &[f32], b: &[f32], write: Write) {
        let Gemm { m, n, k, .. } = self.dims;
        let parallel = full::is_shared(m, n, k);
        let low = self.factors.planes() == 2;
        let low = low.then_some((self.a_low, self.depth * PANEL));
        let table = self.factors.kernels().table();
        let c = TileMut::new(c, m, n, n);
        c.for_each_cell(CELL_ROWS, PANEL, parallel, &|i, j, mut c| {
            let b = &b[j / PANEL * self.panel()..];
            scratch::taps(|taps| {
                for word in (0..self.depth).step_by(STEP) {
                    taps.clear();
                    let at = (word * self.a_step, word * PANEL);
                    push(taps, Tap { a: at.0, b: at.1 }, low);
                    let terms = Terms {
                        a: &a[i * self.a_row..],
                        b,
                        taps,
                        k: STEP.min(self.depth - word),
                        a_row: self.a_row,
                        a_step: self.a_step,
                        b_row: PANEL,
                    };
                    let write = if word == 0 { write } else { Write::Add };
                    table.product(c.reborrow(), &terms, write);
                }
            });
        });
    }
}

/// The first columns of the panels from column `first` on.
fn words_of(first: usize, n: usize) -> impl Iterator<Item = usize> {
    (first..n).step_by(PANEL)
}
