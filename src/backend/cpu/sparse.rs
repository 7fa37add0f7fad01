//! Products whose left factor is mostly one value, as images on a black ground are.
//!
//! With the background `c`, `A·B = (A - c)·B + c·(1ᵀB)`, where `1ᵀB` is the sum of the rows of B: the first
//! product has only the terms in which A differs from `c`. If `c` is 0 these are the terms of the whole
//! product, added up in the same order: the same bits in a fifth of the time for handwritten digits, in the
//! forward pass (rows of pixels) and for the gradient of the weight (pixels of all rows) alike. Only where the whole
//! product lets terms share a vector (`isa/avx512_by_terms.rs`: forward, the last four or eight of columns that do not fill
//! vectors) are its sums added in another order.
//!
//! A term that is left out is zero unless B is infinite or NaN there.

use super::isa::bf16::PairKernels;
use super::isa::sparse::{
    Background, Common, Left, SparseKernels, SparseTerms, WORD, Words, words_down,
};
use super::parallel::pays;
use super::scratch;
use super::table::Table;
use super::terms::Finish;
use super::tiles::{TileMut, for_each_piece};
use crate::backend::Gemm;

/// Numbers of a row of A as stored, rows of A as stored, and columns of B from which it is worth looking.
const LEAST: (usize, usize, usize) = (128, 4, 32);

/// Rows of A that are looked at to see whether the others are worth it.
const SAMPLED: usize = 4;

/// The largest share of numbers off the background with which it pays.
const MOST_OTHERS: f64 = 0.375;

/// Most rows of a cell of the destination that one thread fills.
const CELL_ROWS: usize = 64;

/// Rows of words that one thread makes at a time.
const WORDS_TOGETHER: usize = 32;

/// Operations that are left from which threads share them if they must be woken: some 0.3 ms.
const PARALLEL_FLOPS: usize = 1 << 25;

/// `C = A·B`, `C += A·B` or a step by it where most of A is one value; `false`, and nothing done, where that is
/// not so or where leaving terms out does not pay.
///
/// With `pairs` the terms that are left are multiplied as bfloat16 numbers, two at a time, where A is bytes and
/// the number of terms even. Slices are as long as `dims` says; for what a step takes, see
/// [`SparseKernels::product`].
pub(super) fn product(
    table: &Table,
    pairs: Option<&PairKernels>,
    c: &mut [f32],
    a: Left<'_>,
    b: &[f32],
    dims: Gemm,
    finish: impl Into<Finish>,
) -> bool {
    let finish = finish.into();
    let pairs = pairs.filter(|_| matches!(a, Left::Bytes(..)) && dims.k.is_multiple_of(2));
    let Some(kernels) = pairs.map_or(table, PairKernels::table).sparse() else {
        return false;
    };
    let stored = Stored::new(a, dims);
    if dims.b_transposed || stored.width < LEAST.0 || stored.rows < LEAST.1 || dims.n < LEAST.2 {
        return false;
    }
    let Some((common, share)) = stored.background(kernels) else {
        return false;
    };
    let value = common.value;
    let flops = share * 2.0 * dims.m as f64 * dims.n as f64 * dims.k as f64;
    let parallel = pays(flops as usize, PARALLEL_FLOPS);
    scratch::numbers(dims.n, |row| {
        if value != 0.0
            && let Some(kernels) = table.sparse()
        {
            let all = SparseTerms {
                a: Left::Numbers(&[value]),
                b,
                k: dims.k,
                a_row: 0,
                a_step: 0,
                b_row: dims.n,
            };
            let each = Words {
                words: &[u64::MAX],
                row: 0,
                step: 0,
            };
            let nothing = Background {
                value: 0.0,
                row: &[],
            };
            let sum = TileMut::new(row, 1, dims.n, dims.n);
            kernels.product(sum, &all, each, nothing, Finish::Set);
        }
        let background = Background { value, row };
        stored.words(kernels, common, parallel, |words| {
            with_rows(table, pairs, b, dims, |b, b_row| {
                let c = TileMut::new(c, dims.m, dims.n, dims.n);
                let cell = if parallel { cell_rows(dims.m) } else { dims.m };
                c.for_each_cell(cell, dims.n, parallel, &|i, _, c| {
                    let (a_row, a_step) = stored.strides();
                    let terms = SparseTerms {
                        a: stored.data.part(i * a_row..stored.data.len()),
                        b,
                        k: dims.k,
                        a_row,
                        a_step,
                        b_row,
                    };
                    let words = Words {
                        words: &words.words[i * words.row..],
                        ..words
                    };
                    kernels.product(c, &terms, words, background, finish);
                });
            });
        });
    });
    true
}

/// The rows of a cell where the destination has so many: an even number of cells, so that two threads have as
/// much to do.
fn cell_rows(rows: usize) -> usize {
    let cells = rows.div_ceil(CELL_ROWS).next_multiple_of(2);
    rows.div_ceil(cells).next_multiple_of(2)
}

/// The left factor as it lies in memory.
#[derive(Clone, Copy)]
struct Stored<'a> {
    data: Left<'a>,
    rows: usize,
    width: usize,
    transposed: bool,
}

impl<'a> Stored<'a> {
    fn new(data: Left<'a>, dims: Gemm) -> Self {
        let (rows, width) = match dims.a_transposed {
            true => (dims.k, dims.m),
            false => (dims.m, dims.k),
        };
        Stored {
            data,
            rows,
            width,
            transposed: dims.a_transposed,
        }
    }

    /// Distances between rows and between terms of op(A).
    fn strides(&self) -> (usize, usize) {
        if self.transposed {
            (1, self.width)
        } else {
            (self.width, 1)
        }
    }

    /// Row `i` as stored.
    fn row(&self, i: usize) -> Left<'a> {
        self.data.part(i * self.width..(i + 1) * self.width)
    }

    /// What most factors are in the rows that are looked at, and the share of the others.
    fn background(&self, kernels: SparseKernels) -> Option<(Common, f64)> {
        let common = match self.row(0).part(0..self.width.min(WORD)) {
            Left::Numbers(numbers) => Common {
                value: majority(numbers)?,
                byte: 0,
            },
            Left::Bytes(bytes, values) => {
                let byte = majority(bytes)?;
                let value = values[usize::from(byte)];
                Common { value, byte }
            }
        };
        if !common.value.is_finite() {
            return None;
        }
        let count = self.width.div_ceil(WORD);
        let others: u32 = scratch::numbers(2 * count, |words| {
            let words: &mut [u64] = bytemuck::cast_slice_mut(words);
            let look = |i: usize| {
                kernels.differ(self.row(i * (self.rows - 1) / (SAMPLED - 1)), common, words);
                words.iter().map(|word| word.count_ones()).sum::<u32>()
            };
            (0..SAMPLED).map(look).sum()
        });
        let share = f64::from(others) / (SAMPLED * self.width) as f64;
        (share <= MOST_OTHERS).then_some((common, share))
    }

    /// Calls `f` with the words of op(A).
    fn words<R>(
        &self,
        kernels: SparseKernels,
        background: Common,
        parallel: bool,
        f: impl FnOnce(Words<'_>) -> R,
    ) -> R {
        let width = self.width;
        let count = width.div_ceil(WORD);
        let (len, row, step) = if self.transposed {
            (self.rows.div_ceil(WORD) * width, 1, width)
        } else {
            (self.rows * count, count, 1)
        };
        // A thread makes the words of so many rows at a time, in numbers of half a word each.
        let piece = 2 * if self.transposed { width } else { WORD * count };
        let work = if parallel { usize::MAX } else { 0 };
        let differ = |rows: std::ops::Range<usize>, words: &mut [u64]| {
            for (i, words) in rows.zip(words.chunks_exact_mut(count)) {
                kernels.differ(self.row(i), background, words);
            }
        };
        scratch::numbers(2 * len, |words| {
            for_each_piece(words, piece, work, |at, words| {
                let words: &mut [u64] = bytemuck::cast_slice_mut(words);
                let first = at / piece * WORD;
                let rows = first..(first + WORD).min(self.rows);
                if !self.transposed {
                    return differ(rows, words);
                }
                scratch::numbers(2 * rows.len() * count, |across| {
                    let across: &mut [u64] = bytemuck::cast_slice_mut(across);
                    differ(rows, across);
                    words_down(across, words);
                });
            });
            let words: &[u64] = bytemuck::cast_slice(words);
            f(Words { words, row, step })
        })
    }
}

/// What more than half of `factors` are, if there is one such (Boyer and Moore's vote); else any.
fn majority<T: Copy + PartialEq>(factors: &[T]) -> Option<T> {
    let vote = |(leader, lead): (T, usize), &x: &T| match () {
        () if x == leader => (leader, lead + 1),
        () if lead == 0 => (x, 1),
        () => (leader, lead - 1),
    };
    let first = *factors.first()?;
    Some(factors.iter().fold((first, 0), vote).0)
}

/// Calls `f` with B, or its words of pairs, and the distance between rows: a copy whose rows start on cache lines
/// where there are fewer of them than rows of C, since each is read many times.
fn with_rows<R>(
    table: &Table,
    pairs: Option<&PairKernels>,
    b: &[f32],
    dims: Gemm,
    f: impl FnOnce(&[f32], usize) -> R,
) -> R {
    let Gemm { m, n, k, .. } = dims;
    let row = n.next_multiple_of(16);
    if let Some(pairs) = pairs {
        let depth = k / 2;
        return scratch::numbers(depth * row, |words| {
            for_each_piece(words, WORDS_TOGETHER * row, k * n, |at, words| {
                let (first, depth) = (2 * at / row, words.len() / row);
                let size = (2 * depth, n);
                pairs.across((words, row), (&b[first * n..], n), size, (depth, None));
            });
            f(words, row)
        });
    }
    if m <= k || n == row {
        return f(b, n);
    }
    scratch::numbers(k * row, |straight| {
        table.copy((straight, row), (b, n), (k, n));
        f(straight, row)
    })
}

#[cfg(test)]
mod tests;
