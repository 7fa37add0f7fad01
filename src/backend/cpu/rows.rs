//! Rows and columns of a matrix: columns that are masked, rows in another order.

use super::elementwise::put;
use super::parallel::chunk_rows;
use super::tiles::for_each_piece;
use crate::backend::Write;

/// `y = x` where the column is kept, else `value`; see
/// [`Backend::mask_columns`](crate::backend::Backend::mask_columns).
pub(super) fn mask_columns(y: &mut [f32], x: &[f32], keep: &[f32], value: f32, write: Write) {
    let (cols, work) = (keep.len().max(1), y.len());
    for_each_piece(y, chunk_rows(cols) * cols, work, |first, y| {
        let x = &x[first..][..y.len()];
        for (y, x) in y.chunks_exact_mut(cols).zip(x.chunks_exact(cols)) {
            for ((y, &x), &keep) in y.iter_mut().zip(x).zip(keep) {
                put(y, if keep != 0.0 { x } else { value }, write);
            }
        }
    });
}

/// Row k of `y` is row `index[k]` of `x`; see
/// [`Backend::gather_rows`](crate::backend::Backend::gather_rows).
pub(super) fn gather_rows(
    y: &mut [f32],
    y_cols: usize,
    x: &[f32],
    x_cols: usize,
    index: &[f32],
    write: Write,
) {
    if y_cols == 0 {
        return;
    }
    let work = y.len();
    let shared = y_cols.min(x_cols);
    for_each_piece(y, chunk_rows(y_cols) * y_cols, work, |first, y| {
        let index = &index[first / y_cols..];
        for (y, &row) in y.chunks_exact_mut(y_cols).zip(index) {
            let have = if row < 0.0 { 0 } else { shared };
            let (copied, rest) = y.split_at_mut(have);
            let start = if have == 0 { 0 } else { row as usize * x_cols };
            for (y, &x) in copied.iter_mut().zip(&x[start..]) {
                put(y, x, write);
            }
            if write == Write::Set {
                rest.fill(0.0);
            }
        }
    });
}
