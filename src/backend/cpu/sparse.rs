//! Products whose left factor is mostly one value, as images on a black ground are.
//!
//! With the background `c`, `A·B = (A - c)·B + c·(1ᵀB)`, where `1ᵀB` is the sum of the rows of B: the first
//! product has only the terms in which A differs from `c`. If `c` is 0 these are the terms of the whole
//! product, added up in the same order: the same bits in a fifth of the time for handwritten digits, in the
//! forward pass (rows of pixels) and for the gradient of the weight (pixels of all rows) alike.
//!
//! A term that is left out is zero unless B is infinite or NaN there.

use super::gemm::PARALLEL_FLOPS;
use super::isa::Tap;
use super::isa::sparse::{Background, SparseKernels, WORD, Words, differ_down};
use super::parallel::for_each_piece;
use super::scratch;
use super::table::Table;
use super::terms::{Finish, Terms};
use super::tiles::TileMut;
use crate::backend::Gemm;

/// Numbers of a row of A as stored, rows of A as stored, and columns of B from which it is worth looking.
const LEAST: (usize, usize, usize) = (128, 4, 32);

/// Rows of A that are looked at to see whether the others are worth it.
const SAMPLED: usize = 4;

/// The largest share of numbers off the background with which it pays.
const MOST_OTHERS: f64 = 0.375;

/// Rows of a cell of the destination that one thread fills.
const CELL_ROWS: usize = 112;

/// `C = A·B`, `C += A·B` or a step by it where most of A is one value; `false`, and nothing done, where that is
/// not so or where leaving terms out does not pay.
///
/// Slices are as long as `dims` says; for what a step takes, see [`SparseKernels::product`].
pub(super) fn product(
    table: &Table,
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    dims: Gemm,
    finish: impl Into<Finish>,
) -> bool {
    let finish = finish.into();
    let Some(kernels) = table.sparse() else {
        return false;
    };
    let stored = Stored::new(a, dims);
    if dims.b_transposed || stored.width < LEAST.0 || stored.rows < LEAST.1 || dims.n < LEAST.2 {
        return false;
    }
    let Some((value, share)) = stored.background(kernels) else {
        return false;
    };
    let flops = share * 2.0 * dims.m as f64 * dims.n as f64 * dims.k as f64;
    let parallel = flops >= PARALLEL_FLOPS as f64;
    scratch::numbers(dims.n, |row| {
        if value != 0.0 {
            let all = Terms {
                a: &[value],
                b,
                taps: &[Tap { a: 0, b: 0 }],
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
        stored.words(kernels, value, parallel, |words| {
            with_straight_rows(table, b, dims, |b, b_row| {
                let c = TileMut::new(c, dims.m, dims.n, dims.n);
                let cell = if parallel { CELL_ROWS } else { dims.m };
                c.for_each_cell(cell, dims.n, parallel, &|i, _, c| {
                    let (a_row, a_step) = stored.strides();
                    let terms = Terms {
                        a: &a[i * a_row..],
                        b,
                        taps: &[Tap { a: 0, b: 0 }],
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

/// The left factor as it lies in memory.
#[derive(Clone, Copy)]
struct Stored<'a> {
    data: &'a [f32],
    rows: usize,
    width: usize,
    transposed: bool,
}

impl<'a> Stored<'a> {
    fn new(data: &'a [f32], dims: Gemm) -> Self {
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

    /// The value that most numbers have in the rows that are looked at, and the share of the others.
    fn background(&self, kernels: SparseKernels) -> Option<(f32, f64)> {
        let value = majority(&self.data[..self.width.min(WORD)]);
        if !value.is_finite() {
            return None;
        }
        let count = self.width.div_ceil(WORD);
        let others: u32 = scratch::numbers(2 * count, |words| {
            let words: &mut [u64] = bytemuck::cast_slice_mut(words);
            let look = |i: usize| {
                let first = i * (self.rows - 1) / (SAMPLED - 1) * self.width;
                kernels.differ(&self.data[first..][..self.width], value, words);
                words.iter().map(|word| word.count_ones()).sum::<u32>()
            };
            (0..SAMPLED).map(look).sum()
        });
        let share = f64::from(others) / (SAMPLED * self.width) as f64;
        (share <= MOST_OTHERS).then_some((value, share))
    }

    /// Calls `f` with the words of op(A).
    fn words<R>(
        &self,
        kernels: SparseKernels,
        background: f32,
        parallel: bool,
        f: impl FnOnce(Words<'_>) -> R,
    ) -> R {
        let width = self.width;
        let (len, row, step) = if self.transposed {
            (self.rows.div_ceil(WORD) * width, 1, width)
        } else {
            let count = width.div_ceil(WORD);
            (self.rows * count, count, 1)
        };
        // Rows whose words are made by one thread at a time.
        let (rows, piece) = if self.transposed {
            (WORD, 2 * width)
        } else {
            (WORD, 2 * WORD * row)
        };
        let work = if parallel { usize::MAX } else { 0 };
        scratch::numbers(2 * len, |words| {
            for_each_piece(words, piece, work, |at, words| {
                let words: &mut [u64] = bytemuck::cast_slice_mut(words);
                let first = at / piece * rows;
                let end = (first + rows).min(self.rows);
                let data = &self.data[first * width..end * width];
                if self.transposed {
                    scratch::numbers(2 * width, |half| {
                        differ_down(data, background, bytemuck::cast_slice_mut(half), words);
                    });
                } else {
                    for (data, words) in data.chunks_exact(width).zip(words.chunks_exact_mut(row)) {
                        kernels.differ(data, background, words);
                    }
                }
            });
            let words: &[u64] = bytemuck::cast_slice(words);
            f(Words { words, row, step })
        })
    }
}

/// The number that more than half of `numbers` are, if there is one (Boyer and Moore's vote); else any.
fn majority(numbers: &[f32]) -> f32 {
    let vote = |(leader, lead): (f32, usize), &x: &f32| match () {
        () if x == leader => (leader, lead + 1),
        () if lead == 0 => (x, 1),
        () => (leader, lead - 1),
    };
    numbers.iter().fold((f32::NAN, 0), vote).0
}

/// Calls `f` with B and the distance between its rows: a copy whose rows start on cache lines where there are
/// fewer of them than rows of C, since each is read many times.
fn with_straight_rows<R>(
    table: &Table,
    b: &[f32],
    dims: Gemm,
    f: impl FnOnce(&[f32], usize) -> R,
) -> R {
    let Gemm { m, n, k, .. } = dims;
    if m <= k || n.is_multiple_of(16) {
        return f(b, n);
    }
    let row = n.next_multiple_of(16);
    scratch::numbers(k * row, |straight| {
        table.copy((straight, row), (b, n), (k, n));
        f(straight, row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Write;
    use crate::backend::cpu::check::{assert_sums, noise, tables, with_threads, written};
    use crate::backend::cpu::gemm::gemm_with;

    /// Rows of numbers of which three in four are `background`, in no order.
    fn images(background: f32, len: usize) -> Vec<f32> {
        let mut images = noise(1, len);
        for (x, hide) in images.iter_mut().zip(noise(2, len)) {
            if hide < 0.5 {
                *x = background;
            }
        }
        // In any of the places that are looked at first.
        images[0] = 0.77;
        images
    }

    fn dims(m: usize, n: usize, k: usize, a_transposed: bool) -> Gemm {
        Gemm {
            m,
            n,
            k,
            a_transposed,
            b_transposed: false,
        }
    }

    /// `rows` images of `width` pixels through a layer with `n` units: forward and gradient of the weight.
    fn both(rows: usize, width: usize, n: usize) -> [Gemm; 2] {
        [dims(rows, n, width, false), dims(width, n, rows, true)]
    }

    /// The product by its definition, in f64.
    fn definition(a: &[f32], b: &[f32], dims: Gemm) -> Vec<f64> {
        let (a_row, a_step) = Stored::new(a, dims).strides();
        let mut c = vec![0.0; dims.m * dims.n];
        for (i, c) in c.chunks_exact_mut(dims.n).enumerate() {
            for (p, b) in b.chunks_exact(dims.n).enumerate() {
                let x = f64::from(a[i * a_row + p * a_step]);
                for (c, &b) in c.iter_mut().zip(b) {
                    *c += x * f64::from(b);
                }
            }
        }
        c
    }

    #[test]
    fn every_table_multiplies_images() {
        for (rows, width, n) in [
            (4, 128, 32),
            (5, 129, 33),
            (20, 784, 100),
            (63, 191, 47),
            (64, 192, 48),
            (131, 300, 150),
            (7, 500, 300),
        ] {
            for value in [0.0, -0.4242] {
                for dims in both(rows, width, n) {
                    let (a, b) = (images(value, rows * width), noise(3, dims.k * n));
                    let sums = definition(&a, &b, dims);
                    for table in tables() {
                        for write in [Write::Set, Write::Add] {
                            let c = written(dims.m * n, write, |c| {
                                assert!(product(table, c, &a, &b, dims, write));
                            });
                            let what = format!("{} {dims:?} on {value}", table.isa());
                            assert_sums(&c, &sums, dims.k, write, &what);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_left_out_change_no_bit() {
        let (rows, width, n) = (33, 200, 100);
        for table in tables() {
            for dims in both(rows, width, n) {
                let (a, b) = (images(0.0, rows * width), noise(3, dims.k * n));
                let (mut c, mut dense) = (vec![0.0; dims.m * n], vec![0.0; dims.m * n]);
                assert!(product(table, &mut c, &a, &b, dims, Write::Set));
                // A factor that is stored transposed is not looked at.
                let mut upright = vec![0.0; b.len()];
                table.transpose((&mut upright, dims.k), (&b, n), (dims.k, n));
                let all = Gemm {
                    b_transposed: true,
                    ..dims
                };
                gemm_with(table, &mut dense, &a, &upright, all, Write::Set);
                assert_eq!(c, dense, "{} {dims:?}", table.isa());
            }
        }
    }

    #[test]
    fn bits_past_the_last_term_mean_nothing() {
        let (m, n, k) = (5, 40, 70);
        let (a, b) = (noise(1, m * k), noise(3, k * n));
        let sums = definition(&a, &b, dims(m, n, k, false));
        let terms = Terms {
            a: &a,
            b: &b,
            taps: &[Tap { a: 0, b: 0 }],
            k,
            a_row: k,
            a_step: 1,
            b_row: n,
        };
        let words = Words {
            words: &[u64::MAX; 10],
            row: 2,
            step: 1,
        };
        let background = Background {
            value: 0.0,
            row: &[0.0; 40],
        };
        for table in tables() {
            let c = written(m * n, Write::Set, |c| {
                let c = TileMut::new(c, m, n, n);
                let kernels = table.sparse().expect("kernels");
                kernels.product(c, &terms, words, background, Write::Set);
            });
            assert_sums(&c, &sums, k, Write::Set, table.isa().name());
        }
    }

    #[test]
    fn other_matrices_are_left_to_others() {
        let table = super::super::dispatch::select();
        let mut c = vec![0.0; 20 * 100];
        let b = noise(3, 784 * 100);
        let mut refused =
            |a: &[f32]| !product(table, &mut c, a, &b, dims(20, 100, 784, false), Write::Set);
        assert!(refused(&noise(1, 20 * 784)));
        assert!(refused(&[f32::NAN; 20 * 784]));
        assert!(refused(&[f32::INFINITY; 20 * 784]));
        assert!(!refused(&images(0.0, 20 * 784)));
    }

    #[test]
    fn what_is_not_finite_comes_through() {
        let table = super::super::dispatch::select();
        let (rows, width, n) = (20, 200, 40);
        for value in [0.0, 1.0] {
            for dims in both(rows, width, n) {
                let (mut a, b) = (images(value, rows * width), noise(3, dims.k * n));
                a[3 * width + 5] = f32::NAN;
                let mut c = vec![0.0; dims.m * n];
                assert!(product(table, &mut c, &a, &b, dims, Write::Set));
                let hit = if dims.a_transposed { 5 } else { 3 };
                for (i, c) in c.chunks_exact(n).enumerate() {
                    // The row that is computed together with another stays clean.
                    assert!(
                        c.iter().all(|x| x.is_nan() == (i == hit)),
                        "{dims:?} row {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (rows, width, n) = (400, 784, 520);
        for dims in both(rows, width, n) {
            let (a, b) = (images(0.5, rows * width), noise(3, dims.k * n));
            let [one, three] = with_threads(|| {
                let mut c = vec![0.0; dims.m * n];
                let table = super::super::dispatch::select();
                assert!(product(table, &mut c, &a, &b, dims, Write::Set));
                c
            });
            assert_eq!(one, three);
        }
    }
}
