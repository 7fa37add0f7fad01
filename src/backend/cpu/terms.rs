//! The operands of a product.

use super::isa::Tap;
use crate::backend::Write;

/// What becomes of the sums.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Finish {
    /// `C = sums`; what was there is not read.
    Set,
    /// `C += sums`
    Add,
    /// `C -= lr·sums`, rounded after the product and after the difference: a step of plain SGD.
    Descend(f32),
}

impl From<Write> for Finish {
    fn from(write: Write) -> Self {
        match write {
            Write::Set => Finish::Set,
            Write::Add => Finish::Add,
        }
    }
}

/// The operands of a sum over groups of terms:
/// `C[i][j] = Σ_taps Σ_{p < k} A[tap.a + i·a_row + p·a_step] · B[tap.b + p·b_row + j]`.
///
/// A matrix product has one tap; a convolution one for each place of its kernel inside the image.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// Numbers of A.
    pub a: &'a [f32],
    /// Numbers of B.
    pub b: &'a [f32],
    /// The groups; with none the sum is 0.
    pub taps: &'a [Tap],
    /// Terms in each group.
    pub k: usize,
    /// Distance between rows of A.
    pub a_row: usize,
    /// Distance between terms of A.
    pub a_step: usize,
    /// Distance between terms of B.
    pub b_row: usize,
}

impl Terms<'_> {
    /// Panics unless the operands hold every number that `m` rows and `n` columns read, and the same so many numbers
    /// further on in A and in B.
    #[track_caller]
    pub(super) fn check(&self, m: usize, n: usize, further: [usize; 2]) {
        if self.k == 0 {
            return;
        }
        let reach = |rows: usize, row: usize, step: usize| {
            let along = (self.k - 1).checked_mul(step)?;
            (rows - 1).checked_mul(row)?.checked_add(along)
        };
        let last_a = self
            .taps
            .iter()
            .map(|t| t.a.saturating_add(further[0]))
            .max();
        let last_b = self
            .taps
            .iter()
            .map(|t| t.b.saturating_add(further[1]))
            .max();
        let fits = |last: Option<usize>, reach: Option<usize>, len: usize| match (last, reach) {
            (None, _) => true,
            (Some(last), Some(reach)) => last.checked_add(reach).is_some_and(|end| end < len),
            (Some(_), None) => false,
        };
        assert!(
            fits(last_a, reach(m, self.a_row, self.a_step), self.a.len())
                && fits(last_b, reach(n, 1, self.b_row), self.b.len()),
            "a product of {m} x {n} with {} taps of {} terms reads past {} or {} numbers",
            self.taps.len(),
            self.k,
            self.a.len(),
            self.b.len()
        );
    }
}
