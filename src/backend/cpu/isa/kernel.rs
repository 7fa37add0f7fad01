//! The body of every register tile, written once over a vector type.
//!
//! A tile of `MR x NV` vectors stays in registers while all terms are added:
//!
//! ```text
//!            B   [ v0 | v1 ]      NV vectors of one row of B
//!      A   x0    [ c00  c01 ]     each x broadcast, each c one fused multiply-add
//!          x1    [ c10  c11 ]
//!          ..
//! ```
//!
//! so a term costs `MR + NV` loads for `MR·NV` multiplications. The loops over `MR` and `NV` have
//! constant bounds and disappear.
#![allow(unsafe_code)]

use super::column::Column;
use super::{Call, Matrices};

/// A vector register.
///
/// # Safety
/// Implementors may use instructions that not every CPU has; every method must only be called where
/// the implementor's instruction set is present, and the pointers must be valid for what is read or
/// written.
pub(super) unsafe trait Vector: Copy {
    /// Numbers in a vector.
    const LANES: usize;
    /// What selects the first lanes of a vector.
    type Mask: Copy;
    /// The mask of the first `lanes` lanes, `0 ..= LANES`.
    unsafe fn mask(lanes: usize) -> Self::Mask;
    /// All zero.
    unsafe fn zero() -> Self;
    /// The same number in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self;
    /// The numbers under the mask; the others are neither read nor defined.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self;
    /// Writes `LANES` numbers.
    unsafe fn store(self, to: *mut f32);
    /// Writes the numbers under the mask and no other.
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask);
    /// `self + a·b`
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Hints that a line will be wanted; any address is allowed.
    unsafe fn prefetch(at: *const f32);
    /// Hints that a line will be wanted some thousand cycles later, which is done where registers are plenty.
    #[inline(always)]
    unsafe fn prefetch_far(_at: *const f32) {}
    /// `self + other`
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`
    unsafe fn sub(self, other: Self) -> Self;
    /// `self · other`
    unsafe fn mul(self, other: Self) -> Self;
}

/// `C[i][j] (+)= Σ_taps Σ_p A[tap.a + i·a_row + p·a_step] · B[tap.b + p·b_row + j]` for `MR` rows (times
/// [`Call::tiles`]) and the columns of `NV` vectors, the last of which may be cut. Without a tap or a term the
/// sum is 0. It is multiplied by [`Call::scale`], if there is one.
///
/// # Safety
/// As for [`Tile`](super::Tile), for the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: what the caller guarantees is what the body needs.
    unsafe {
        // Loops rather than a closure, which is a function without the instruction set.
        if call.last == V::LANES {
            for i in 0..call.tiles {
                body::<V, MR, NV, false>(&call.tile(i, MR));
            }
        } else {
            for i in 0..call.tiles {
                body::<V, MR, NV, true>(&call.tile(i, MR));
            }
        }
    }
}

impl Call<'_> {
    /// Terms of each sum.
    #[inline(always)]
    pub(super) fn terms(&self) -> usize {
        self.taps.len() * self.k
    }

    /// Tile `i` by itself, where each has so many rows.
    #[inline(always)]
    pub(super) fn tile(&self, i: usize, rows: usize) -> Self {
        Call {
            tiles: 1,
            c: self.c.wrapping_add(i * rows * self.c_row),
            a: self.a.wrapping_add(i * rows * self.a_row),
            ahead: (self.ahead).wrapping_byte_add(i * self.terms() * self.ahead_step),
            ..*self
        }
    }
}

/// Terms between a row of B in hand and the one that is asked for, by tiles of so many vectors of sums: they leave the loads
/// of a core room enough. What lies in the second-level cache does not come by itself across a page. As many to the term
/// of A that is asked for where its rows are neighbours.
pub(super) const AHEAD: usize = 8;
const MANY: usize = 18;

/// Terms of a sum that leave time to ask for where it goes: a store waits as well for a line that no cache near by has.
const LONG: usize = 128;

/// [`tile`], with the last vector cut or not.
#[inline(always)]
unsafe fn body<V: Vector, const MR: usize, const NV: usize, const CUT: bool>(call: &Call<'_>) {
    // SAFETY: the caller guarantees the instruction set and every address; `NV >= 1`.
    unsafe {
        let mask = V::mask(call.last);
        if call.add || call.terms() >= LONG {
            for i in 0..MR {
                for v in 0..NV {
                    V::prefetch(call.c.wrapping_add(i * call.c_row + v * V::LANES));
                }
            }
        }
        let mut acc = [[V::zero(); NV]; MR];
        let mut ahead = call.ahead;
        for tap in call.taps {
            let mut a = Column::new(call.a.wrapping_add(tap.a), call.a_row, V::LANES == 16);
            let mut b = call.b.wrapping_add(tap.b);
            for _ in 0..call.k {
                let mut row = [V::zero(); NV];
                for (v, x) in row.iter_mut().enumerate() {
                    let at = b.add(v * V::LANES);
                    *x = if CUT && v + 1 == NV {
                        V::load_masked(at, mask)
                    } else {
                        V::load(at)
                    };
                }
                if V::LANES == 16 && call.ahead_step > 0 {
                    V::prefetch_far(ahead);
                    ahead = ahead.wrapping_byte_add(call.ahead_step);
                }
                if MR * NV >= MANY {
                    for v in 0..NV {
                        V::prefetch(b.wrapping_add(AHEAD * call.b_row + v * V::LANES));
                    }
                    if call.a_row == 1 {
                        // Each term of A is on a line of its own, often on a page.
                        let next = a.at(0).wrapping_add(AHEAD * call.a_step);
                        V::prefetch(next);
                        V::prefetch(next.wrapping_add(MR - 1));
                    }
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(*a.at(i));
                    for (acc, &b) in acc.iter_mut().zip(&row) {
                        *acc = acc.add_product(x, b);
                    }
                }
                // With no term, or past the last, these may point outside the operands.
                a.advance(call.a_step);
                b = b.wrapping_add(call.b_row);
            }
        }
        if let Some(scale) = call.scale {
            let scale = V::splat(scale);
            for acc in &mut acc {
                for sum in acc {
                    *sum = scale.mul(*sum);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for (v, &sum) in acc.iter().enumerate() {
                let at = call.c.add(i * call.c_row + v * V::LANES);
                let last = CUT && v + 1 == NV;
                let sum = match (call.add, last) {
                    (false, _) => sum,
                    (true, false) => V::load(at).add(sum),
                    (true, true) => V::load_masked(at, mask).add(sum),
                };
                if last {
                    sum.store_masked(at, mask);
                } else {
                    sum.store(at);
                }
            }
        }
    }
}

/// A copy by whole vectors and one that is cut.
///
/// # Safety
/// As for [`Move`](super::Move), for the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn copy<V: Vector>(m: &Matrices, rows: usize, cols: usize) {
    let (whole, cut) = (cols / V::LANES, cols % V::LANES);
    // SAFETY: the caller guarantees the instruction set and every address.
    unsafe {
        for i in 0..rows {
            let (dst, src) = (m.dst.add(i * m.dst_row), m.src.add(i * m.src_row));
            for v in 0..whole {
                V::load(src.add(v * V::LANES)).store(dst.add(v * V::LANES));
            }
            if cut > 0 {
                let (dst, src) = (dst.add(whole * V::LANES), src.add(whole * V::LANES));
                V::load_masked(src, V::mask(cut)).store_masked(dst, V::mask(cut));
            }
        }
    }
}

/// A transposition by blocks of 8 x 8 that the compiler may vectorise.
///
/// # Safety
/// As for [`Move`](super::Move).
#[inline(always)]
pub(super) unsafe fn transpose(m: &Matrices, rows: usize, cols: usize) {
    for i0 in (0..rows).step_by(8) {
        for j0 in (0..cols).step_by(8) {
            for j in j0..(j0 + 8).min(cols) {
                for i in i0..(i0 + 8).min(rows) {
                    // SAFETY: `i < rows` and `j < cols`, which the caller vouches for.
                    unsafe { *m.dst.add(j * m.dst_row + i) = *m.src.add(i * m.src_row + j) };
                }
            }
        }
    }
}

/// `rounds` times `N` independent multiply-adds that touch no memory: the ceiling of the arithmetic.
///
/// # Safety
/// The CPU has the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn burn<V: Vector, const N: usize>(rounds: usize) -> f32 {
    const { assert!(V::LANES <= 16) };
    let mut out = [0.0; 16];
    // SAFETY: the caller guarantees the instruction set; `out` holds a vector.
    unsafe {
        let x = V::splat(std::hint::black_box(0.5));
        let mut acc = [x; N];
        for acc in &mut acc {
            // Equal chains would be computed once.
            *acc = V::splat(std::hint::black_box(0.5));
        }
        for _ in 0..rounds {
            for acc in &mut acc {
                *acc = x.add_product(*acc, x);
            }
        }
        for v in acc {
            V::load(out.as_ptr()).add(v).store(out.as_mut_ptr());
        }
    }
    out[0]
}
