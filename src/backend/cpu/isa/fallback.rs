//! Large products on a CPU that has no packed kernel here: `matrixmultiply`'s, which knows NEON.
//! Unlike everything else it allocates its packing buffer at each call.
#![allow(unsafe_code)]

use super::super::tiles::TileMut;
use crate::backend::Write;

/// A matrix stored with any strides.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl Strided<'_> {
    fn holds(&self, rows: usize, cols: usize) -> bool {
        let last = |n: usize, step: usize| (n - 1).checked_mul(step);
        let end = last(rows, self.row).zip(last(cols, self.col));
        end.and_then(|(r, c)| r.checked_add(c))
            .is_some_and(|last| last < self.data.len())
    }
}

/// `C (+)= A·B` with `k` terms.
///
/// # Panics
/// If an operand is too short.
#[track_caller]
pub(crate) fn sgemm(mut c: TileMut<'_>, a: Strided<'_>, b: Strided<'_>, k: usize, write: Write) {
    let (m, n) = (c.rows(), c.cols());
    if m == 0 || n == 0 || k == 0 {
        assert!(k > 0 || write == Write::Add, "a sum without terms");
        return;
    }
    assert!(
        a.holds(m, k) && b.holds(k, n),
        "an operand of {m} x {k} x {n} is too short"
    );
    let beta = match write {
        Write::Set => 0.0,
        Write::Add => 1.0,
    };
    let (c_row, c) = (c.stride() as isize, c.as_mut_ptr());
    // SAFETY: both operands hold their matrices (asserted), the tile is exclusively ours, and with
    // `beta` 0 the destination is not read.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.data.as_ptr(),
            a.row as isize,
            a.col as isize,
            b.data.as_ptr(),
            b.row as isize,
            b.col as isize,
            beta,
            c,
            c_row,
            1,
        );
    }
}
