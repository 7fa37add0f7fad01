//! How a product is cut into the blocks that a unit with tile registers computes, and that unit in plain Rust.
//!
//! A tile register has at most 16 rows of 64 bytes. A block is at most 32 x 32 sums in four of them, to
//! which each step adds 16 words (32 terms) of two tiles of A and two of B:
//!
//! ```text
//!                    B   [ 6: 16 words x 16 ][ 7: 16 words x 16 ]
//! A [4: 16 x 16 words]   [ 0: 16 x 16 sums  ][ 1: 16 x 16 sums  ]
//!   [5: 16 x 16 words]   [ 2: 16 x 16 sums  ][ 3: 16 x 16 sums  ]
//! ```
#![allow(unsafe_code)]

use super::Call;

/// Rows of a tile register, and words in a row.
pub(super) const TILE: usize = 16;

/// The shape of a block: rows of its two tiles of A, columns of its two tiles of B. The second of either
/// may be 0, and is then not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub rows: [usize; 2],
    pub cols: [usize; 2],
}

impl Shape {
    fn new(rows: usize, cols: usize) -> Self {
        let two = |n: usize| [n.min(TILE), n.saturating_sub(TILE)];
        Shape {
            rows: two(rows),
            cols: two(cols),
        }
    }
}

/// Something with eight tile registers.
pub(super) trait Unit {
    /// Gives the registers the shape of a block.
    ///
    /// # Safety
    /// The unit exists.
    unsafe fn configure(&mut self, shape: Shape);
    /// Computes the block at the addresses of `call`, which has a tap and a term; `k` is a multiple of
    /// 16, `a_step` is 1.
    ///
    /// # Safety
    /// The unit exists and has been configured for `shape`, and the addresses are valid for it as for
    /// [`Tile`](super::Tile).
    unsafe fn block(&mut self, call: &Call<'_>, shape: Shape);
}

/// A whole product of `m x n`, block by block.
///
/// # Safety
/// As for [`Whole`](super::Whole), for the instructions of the unit.
pub(super) unsafe fn product(unit: &mut impl Unit, call: &Call<'_>, m: usize, n: usize) {
    if call.taps.is_empty() || call.k == 0 {
        for i in (0..m).filter(|_| !call.add) {
            // SAFETY: row `i` of the destination is `n` numbers that we may write.
            unsafe { std::slice::from_raw_parts_mut(call.c.add(i * call.c_row), n).fill(0.0) };
        }
        return;
    }
    let mut configured = None;
    for j in (0..n).step_by(2 * TILE) {
        for i in (0..m).step_by(2 * TILE) {
            let shape = Shape::new((m - i).min(2 * TILE), (n - j).min(2 * TILE));
            let block = Call {
                c: call.c.wrapping_add(i * call.c_row + j),
                a: call.a.wrapping_add(i * call.a_row),
                b: call.b.wrapping_add(j),
                ..*call
            };
            // SAFETY: the block lies inside the product, whose addresses the caller vouches for; the
            // unit has its shape.
            unsafe {
                if configured != Some(shape) {
                    unit.configure(shape);
                    configured = Some(shape);
                }
                unit.block(&block, shape);
            }
        }
    }
}

/// The unit in plain Rust, for tests: what AMX does, register by register, in f32 with fused
/// multiply-adds, the terms of a step first and then the sum so far.
#[cfg(test)]
pub(super) mod model {
    use super::super::bf16::{PairKernels, plain, widen};
    use super::super::{Call, portable};
    use super::{Shape, TILE, Unit};
    use crate::backend::cpu::dispatch::Isa;

    /// Eight registers; nothing of a register outside its shape is ever read.
    struct Model {
        tiles: [[[f32; TILE]; TILE]; 8],
        /// Rows and columns of each register.
        shapes: [(usize, usize); 8],
    }

    impl Model {
        /// # Safety
        /// Rows of the register's shape, `stride` apart, may be read.
        unsafe fn load(&mut self, register: usize, from: *const f32, stride: usize) {
            let (rows, cols) = self.shapes[register];
            assert!(rows > 0 && cols > 0, "register {register} has no shape");
            self.tiles[register] = [[0.0; TILE]; TILE];
            for (i, row) in self.tiles[register].iter_mut().take(rows).enumerate() {
                for (j, x) in row.iter_mut().take(cols).enumerate() {
                    // SAFETY: the caller's.
                    *x = unsafe { *from.add(i * stride + j) };
                }
            }
        }

        /// # Safety
        /// Rows of the register's shape, `stride` apart, may be written.
        unsafe fn store(&self, register: usize, to: *mut f32, stride: usize) {
            let (rows, cols) = self.shapes[register];
            for (i, row) in self.tiles[register].iter().take(rows).enumerate() {
                for (j, &x) in row.iter().take(cols).enumerate() {
                    // SAFETY: the caller's.
                    unsafe { *to.add(i * stride + j) = x };
                }
            }
        }

        /// `sum += a·b`, words being pairs of bfloat16 numbers.
        fn multiply(&mut self, sum: usize, a: usize, b: usize) {
            let ((rows, words), (depth, cols)) = (self.shapes[a], self.shapes[b]);
            assert_eq!((words, self.shapes[sum]), (depth, (rows, cols)));
            let half = |word: f32, odd: u32| widen((word.to_bits() >> (16 * odd)) as u16);
            for i in 0..rows {
                for j in 0..cols {
                    let mut terms = 0.0_f32;
                    for p in 0..depth {
                        let (x, y) = (self.tiles[a][i][p], self.tiles[b][p][j]);
                        terms = half(x, 0).mul_add(half(y, 0), terms);
                        terms = half(x, 1).mul_add(half(y, 1), terms);
                    }
                    self.tiles[sum][i][j] += terms;
                }
            }
        }
    }

    impl Unit for Model {
        unsafe fn configure(&mut self, Shape { rows, cols }: Shape) {
            for (i, rows) in rows.into_iter().enumerate() {
                for (j, cols) in cols.into_iter().enumerate() {
                    self.shapes[2 * i + j] = (rows, cols);
                    self.shapes[6 + j] = (TILE, cols);
                }
                self.shapes[4 + i] = (rows, TILE);
            }
        }

        unsafe fn block(&mut self, call: &Call<'_>, shape: Shape) {
            let sums = || {
                let all = (0..4).map(|sum| (sum, sum / 2, sum % 2));
                all.filter(|&(_, i, j)| shape.rows[i] > 0 && shape.cols[j] > 0)
            };
            // SAFETY: the addresses are the caller's.
            unsafe {
                for (sum, i, j) in sums() {
                    let at = call.c.add(i * TILE * call.c_row + j * TILE);
                    if call.add {
                        self.load(sum, at, call.c_row);
                    } else {
                        self.tiles[sum] = [[0.0; TILE]; TILE];
                    }
                }
                for tap in call.taps {
                    for p in (0..call.k).step_by(TILE) {
                        for i in (0..2).filter(|&i| shape.rows[i] > 0) {
                            let at = call.a.add(tap.a + i * TILE * call.a_row + p);
                            self.load(4 + i, at, call.a_row);
                        }
                        for j in (0..2).filter(|&j| shape.cols[j] > 0) {
                            let at = call.b.add(tap.b + p * call.b_row + j * TILE);
                            self.load(6 + j, at, call.b_row);
                        }
                        for (sum, i, j) in sums() {
                            self.multiply(sum, 4 + i, 6 + j);
                        }
                    }
                }
                for (sum, i, j) in sums() {
                    let at = call.c.add(i * TILE * call.c_row + j * TILE);
                    self.store(sum, at, call.c_row);
                }
            }
        }
    }

    unsafe fn whole(call: &Call<'_>, m: usize, n: usize) {
        let mut model = Model {
            tiles: [[[0.0; TILE]; TILE]; 8],
            shapes: [(0, 0); 8],
        };
        // SAFETY: plain Rust needs no instructions; the addresses are the caller's.
        unsafe { super::product(&mut model, call, m, n) }
    }

    /// The kernels of the model.
    pub(crate) static KERNELS: PairKernels = {
        // SAFETY: plain Rust runs on every CPU.
        unsafe {
            let table = portable::TABLE.with_whole(whole);
            let pack = [plain::along as _, plain::across as _];
            PairKernels::new(("amx-model", Isa::Portable), table, pack, TILE)
        }
    };
}
