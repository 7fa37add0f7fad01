//! Slices and matrices cut into parts that different threads may write at the same time.
#![allow(unsafe_code)]

use super::parallel::{PARALLEL_MIN, each, pays};
use std::marker::PhantomData;

/// Calls `f(first index, piece)` for pieces of `len` numbers that together are `dst` (the last may
/// be shorter), in parallel when `work` numbers are worth it.
pub(super) fn for_each_piece(
    dst: &mut [f32],
    len: usize,
    work: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let shared = pays(work, PARALLEL_MIN);
    for_each_pieces([dst], len, shared, |first, [piece]| f(first, piece));
}

/// Calls `f(first index, pieces)` for the pieces of `len` elements of several slices of one length, of which some
/// may be empty instead, if `shared` on whatever threads are free. The last pieces may be shorter.
#[track_caller]
pub(super) fn for_each_pieces<T: Send, const N: usize>(
    mut dst: [&mut [T]; N],
    len: usize,
    shared: bool,
    f: impl Fn(usize, [&mut [T]; N]) + Sync,
) {
    let all = dst.iter().map(|dst| dst.len()).max().unwrap_or(0);
    if all == 0 {
        return;
    }
    let whole = dst.each_mut().map(|dst| {
        assert!(
            len > 0 && (dst.is_empty() || dst.len() == all),
            "pieces of {len} of slices of {} and {all}",
            dst.len()
        );
        Whole(dst.as_mut_ptr(), dst.len())
    });
    each(all.div_ceil(len), shared, |i| {
        let first = i * len;
        let pieces = whole.each_ref().map(|&Whole(start, whole)| match whole {
            0 => &mut [][..],
            // SAFETY: the piece lies inside its slice, which is exclusively borrowed, and no other has its number:
            // `each` calls this once for each.
            _ => unsafe {
                std::slice::from_raw_parts_mut(start.add(first), len.min(whole - first))
            },
        });
        f(first, pieces);
    });
}

/// First element and number of elements of a slice that is about to be cut.
struct Whole<T>(*mut T, usize);

// SAFETY: stands for the exclusive borrow of a slice, parts of which go to different threads, each to one.
unsafe impl<T: Send> Sync for Whole<T> {}

/// A rectangle of a row-major matrix, exclusively borrowed. Two tiles cut from one never overlap,
/// which slices cannot express when the cut runs between columns.
pub(crate) struct TileMut<'a> {
    /// Valid for reads and writes of `cols` numbers at each of `rows` steps of `stride`, and nobody
    /// else touches those while `'a` lasts.
    first: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a tile is an exclusive borrow of plain numbers, like `&mut [f32]`, which is `Send`.
unsafe impl Send for TileMut<'_> {}

impl<'a> TileMut<'a> {
    /// The `rows x cols` rectangle that starts at the first number of `matrix`, whose rows are
    /// `stride` apart.
    ///
    /// # Panics
    /// If the rectangle does not fit.
    #[track_caller]
    pub fn new(matrix: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        if rows > 0 && cols > 0 {
            let end = (rows - 1)
                .checked_mul(stride)
                .and_then(|n| n.checked_add(cols));
            assert!(
                (rows == 1 || cols <= stride) && end.is_some_and(|end| end <= matrix.len()),
                "a tile of {rows} x {cols}, rows {stride} apart, in {} numbers",
                matrix.len()
            );
        }
        TileMut {
            first: matrix.as_mut_ptr(),
            rows,
            cols,
            stride,
            matrix: PhantomData,
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the first numbers of two rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The first number, for the kernels.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.first
    }

    /// The numbers of row `i`.
    #[track_caller]
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of a tile with {} rows", self.rows);
        // SAFETY: `i < rows`, so `first` is valid for these `cols` numbers, which this tile alone
        // may touch; the borrow of the slice is a borrow of the tile.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(i * self.stride), self.cols) }
    }

    /// The numbers of all rows, if these follow on one another.
    pub fn numbers(&self) -> Option<&[f32]> {
        // SAFETY: `first` is valid for as many numbers, which this tile alone may touch; the borrow of the slice is one of
        // the tile.
        let all = || unsafe { std::slice::from_raw_parts(self.first, self.rows * self.cols) };
        (self.cols == self.stride).then(all)
    }

    /// The same tile for a shorter time.
    pub fn reborrow(&mut self) -> TileMut<'_> {
        TileMut {
            matrix: PhantomData,
            ..*self
        }
    }

    /// The `count` rows `first`, `first + step`, ..
    #[track_caller]
    pub fn rows_every(&mut self, first: usize, count: usize, step: usize) -> TileMut<'_> {
        let last = count
            .checked_sub(1)
            .map(|n| n.saturating_mul(step).saturating_add(first));
        assert!(
            step > 0 && last.is_none_or(|last| last < self.rows),
            "{count} rows from {first} on, {step} apart, of {}",
            self.rows
        );
        TileMut {
            // With no row at all the pointer is never used.
            first: self.first.wrapping_add(first * self.stride),
            rows: count,
            cols: self.cols,
            stride: self.stride * step,
            matrix: PhantomData,
        }
    }

    /// The first `at` rows and the rest.
    #[track_caller]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        assert!(at <= self.rows, "{at} of {} rows", self.rows);
        // With `at == rows` the second part is empty and its pointer is never used.
        let second = self.first.wrapping_add(at * self.stride);
        let rows = self.rows - at;
        (
            TileMut { rows: at, ..self },
            TileMut {
                first: second,
                rows,
                ..self
            },
        )
    }

    /// The first `at` columns and the rest.
    #[track_caller]
    pub fn split_cols(self, at: usize) -> (Self, Self) {
        assert!(at <= self.cols, "{at} of {} columns", self.cols);
        // With `at == cols` the second part is empty and its pointer is never used.
        let second = self.first.wrapping_add(at);
        let cols = self.cols - at;
        (
            TileMut { cols: at, ..self },
            TileMut {
                first: second,
                cols,
                ..self
            },
        )
    }

    /// Calls `f(row, column, tile)` for the pieces of a grid with cells of `rows x cols` (smaller at
    /// the end), if `parallel` on whatever threads are free. The grid depends on the sizes alone.
    pub fn for_each_cell<F>(self, rows: usize, cols: usize, parallel: bool, f: &F)
    where
        F: Fn(usize, usize, TileMut<'_>) + Sync,
    {
        let (rows, cols) = (rows.max(1), cols.max(1));
        let (down, across) = (self.rows.div_ceil(rows), self.cols.div_ceil(cols));
        let whole = Whole(self.first, 0);
        let whole = &whole;
        each(down * across, parallel, |i| {
            let (row, col) = (i / across * rows, i % across * cols);
            let cell = TileMut {
                // SAFETY: inside the matrix.
                first: unsafe { whole.0.add(row * self.stride + col) },
                rows: rows.min(self.rows - row),
                cols: cols.min(self.cols - col),
                stride: self.stride,
                matrix: PhantomData,
            };
            f(row, col, cell);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_the_matrix_once() {
        for (rows, cols, stride, cell) in [(7, 5, 9, (2, 2)), (1, 1, 1, (4, 4)), (0, 3, 3, (1, 1))]
        {
            let mut data = vec![0.0; rows * stride];
            TileMut::new(&mut data, rows, cols, stride).for_each_cell(
                cell.0,
                cell.1,
                true,
                &|r, c, mut tile| {
                    for i in 0..tile.rows() {
                        for (j, x) in tile.row(i).iter_mut().enumerate() {
                            *x += ((r + i) * cols + c + j + 1) as f32;
                        }
                    }
                },
            );
            for (at, &x) in data.iter().enumerate() {
                let (i, j) = (at / stride, at % stride);
                let want = if j < cols { i * cols + j + 1 } else { 0 };
                assert_eq!(x, want as f32, "{rows}x{cols} at {i}, {j}");
            }
        }
    }

    #[test]
    fn rows_that_follow_on_one_another_are_one_slice() {
        let mut data = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let (first, rest) = TileMut::new(&mut data, 3, 2, 2).split_rows(1);
        assert_eq!(first.numbers(), Some(&[0.0, 1.0][..]));
        assert_eq!(rest.numbers(), Some(&[2.0, 3.0, 4.0, 5.0][..]));
        let (left, right) = rest.split_cols(1);
        assert_eq!((left.numbers(), right.numbers()), (None, None));
        assert_eq!(first.split_rows(1).1.numbers(), Some(&[][..]));
    }

    #[test]
    #[should_panic(expected = "a tile of 2 x 3")]
    fn a_tile_must_fit() {
        TileMut::new(&mut [0.0; 6], 2, 3, 4);
    }
}
