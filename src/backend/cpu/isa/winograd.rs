//! The transforms of Winograd's convolution `F(4x4, 3x3)` (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2016), element by element over whole vectors of channels and
//! samples.
//!
//! With the points 0, 1, -1, 2, -2 and infinity, sixteen outputs `Y` of a 3x3 kernel `g` over a 6x6
//! tile `d` are `Y = Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A`: 36 multiplications instead of 144. The gradient of
//! the kernel turns two of the maps round: `dg = Gᵀ·[(A·dY·Aᵀ) ⊙ (Bᵀ·d·B)]·G`.
#![allow(unsafe_code)]

use super::kernel::Vector;
use std::ops::Range;

/// One of the five transforms; each is applied along the columns and then along the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transform {
    /// `Bᵀ·d·B`: 6x6 to 6x6.
    Input,
    /// `G·g·Gᵀ`: 3x3 to 6x6.
    Weight,
    /// `Aᵀ·m·A`: 6x6 to 4x4.
    Output,
    /// `A·dY·Aᵀ`: 4x4 to 6x6.
    OutputGradient,
    /// `Gᵀ·m·G`: 6x6 to 3x3.
    WeightGradient,
}

impl Transform {
    /// Places along each side of the matrix that is read, and of the one that is written.
    pub fn sides(self) -> (usize, usize) {
        match self {
            Transform::Input => (6, 6),
            Transform::Weight => (3, 6),
            Transform::Output => (6, 4),
            Transform::OutputGradient => (4, 6),
            Transform::WeightGradient => (6, 3),
        }
    }
}

/// Where the places of a small matrix lie in memory, each of which holds a row of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Offset of the first number of the first place that exists.
    pub first: usize,
    /// Distance between places below one another.
    pub row: usize,
    /// Distance between places beside one another.
    pub col: usize,
    /// The rows that exist; the others read as zero and are not written.
    pub rows: Range<usize>,
    /// The columns that exist.
    pub cols: Range<usize>,
}

impl Places {
    /// All places of a square matrix.
    pub fn all(side: usize, first: usize, row: usize, col: usize) -> Self {
        Places {
            first,
            row,
            col,
            rows: 0..side,
            cols: 0..side,
        }
    }

    /// One past the last number of the last place, when each holds `len`; `None` if that overflows.
    pub fn end(&self, len: usize) -> Option<usize> {
        if self.rows.is_empty() || self.cols.is_empty() {
            return Some(0);
        }
        let down = (self.rows.len() - 1).checked_mul(self.row)?;
        let across = (self.cols.len() - 1).checked_mul(self.col)?;
        self.first
            .checked_add(down)?
            .checked_add(across)?
            .checked_add(len)
    }

    /// The offset of place (0, 0), wrapped around if it does not exist.
    #[inline(always)]
    fn origin(&self) -> usize {
        let (up, left) = (self.rows.start, self.cols.start);
        (self.first)
            .wrapping_sub(up.wrapping_mul(self.row))
            .wrapping_sub(left.wrapping_mul(self.col))
    }
}

/// The arguments of a [`Run`].
pub(crate) struct Job<'a> {
    /// The matrix that is read, in places.
    pub src: *const f32,
    pub from: &'a Places,
    /// The matrix that is written.
    pub dst: *mut f32,
    pub to: &'a Places,
    /// Numbers in each place.
    pub len: usize,
    /// Add to the destination instead of overwriting it.
    pub add: bool,
}

/// Does a transform for every number of the places.
///
/// # Safety
/// The CPU has the instruction set of the table, the `len` numbers of each place of `from` that
/// exists may be read, those of `to` read and written, and the two do not overlap.
pub(crate) type Run = unsafe fn(Transform, &Job<'_>);

/// A linear map between short vectors.
trait Map<const IN: usize, const OUT: usize> {
    /// # Safety
    /// The CPU has the instruction set of `V`.
    unsafe fn apply<V: Vector>(x: [V; IN]) -> [V; OUT];
}

/// `Bᵀ`
struct Input;
/// `G`
struct Weight;
/// `Aᵀ`
struct Output;
/// `A`
struct OutputGradient;
/// `Gᵀ`
struct WeightGradient;

/// `a + factor·b`
///
/// # Safety
/// The CPU has the instruction set of `V`.
#[inline(always)]
unsafe fn plus<V: Vector>(a: V, factor: f32, b: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { a.add_product(V::splat(factor), b) }
}

/// `factor·a`
///
/// # Safety
/// The CPU has the instruction set of `V`.
#[inline(always)]
unsafe fn times<V: Vector>(factor: f32, a: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { plus(V::zero(), factor, a) }
}

impl Map<6, 6> for Input {
    #[inline(always)]
    unsafe fn apply<V: Vector>(x: [V; 6]) -> [V; 6] {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (even, odd) = (plus(x[4], -4.0, x[2]), plus(x[3], -4.0, x[1]));
            let (even2, odd2) = (plus(x[4], -1.0, x[2]), plus(x[3], -1.0, x[1]));
            [
                plus(plus(x[4], -5.0, x[2]), 4.0, x[0]),
                even.add(odd),
                plus(even, -1.0, odd),
                plus(even2, 2.0, odd2),
                plus(even2, -2.0, odd2),
                plus(plus(x[5], -5.0, x[3]), 4.0, x[1]),
            ]
        }
    }
}

impl Map<3, 6> for Weight {
    #[inline(always)]
    unsafe fn apply<V: Vector>(x: [V; 3]) -> [V; 6] {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let even = times(-1.0 / 6.0, x[0].add(x[2]));
            let even2 = plus(times(1.0 / 24.0, x[0]), 1.0 / 6.0, x[2]);
            [
                times(0.25, x[0]),
                plus(even, -1.0 / 6.0, x[1]),
                plus(even, 1.0 / 6.0, x[1]),
                plus(even2, 1.0 / 12.0, x[1]),
                plus(even2, -1.0 / 12.0, x[1]),
                x[2],
            ]
        }
    }
}

impl Map<6, 4> for Output {
    #[inline(always)]
    unsafe fn apply<V: Vector>(x: [V; 6]) -> [V; 4] {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (sum, difference) = (x[1].add(x[2]), plus(x[1], -1.0, x[2]));
            let (sum2, difference2) = (x[3].add(x[4]), plus(x[3], -1.0, x[4]));
            [
                x[0].add(sum).add(sum2),
                plus(difference, 2.0, difference2),
                plus(sum, 4.0, sum2),
                plus(difference, 8.0, difference2).add(x[5]),
            ]
        }
    }
}

impl Map<4, 6> for OutputGradient {
    #[inline(always)]
    unsafe fn apply<V: Vector>(x: [V; 4]) -> [V; 6] {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (even, odd) = (x[0].add(x[2]), x[1].add(x[3]));
            let (even2, odd2) = (plus(x[0], 4.0, x[2]), plus(x[1], 4.0, x[3]));
            [
                x[0],
                even.add(odd),
                plus(even, -1.0, odd),
                plus(even2, 2.0, odd2),
                plus(even2, -2.0, odd2),
                x[3],
            ]
        }
    }
}

impl Map<6, 3> for WeightGradient {
    #[inline(always)]
    unsafe fn apply<V: Vector>(x: [V; 6]) -> [V; 3] {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (sum, difference) = (x[1].add(x[2]), plus(x[2], -1.0, x[1]));
            let (sum2, difference2) = (x[3].add(x[4]), plus(x[3], -1.0, x[4]));
            [
                plus(plus(times(0.25, x[0]), -1.0 / 6.0, sum), 1.0 / 24.0, sum2),
                plus(times(1.0 / 6.0, difference), 1.0 / 12.0, difference2),
                plus(plus(x[5], -1.0 / 6.0, sum), 1.0 / 6.0, sum2),
            ]
        }
    }
}

/// The transform of every number of the places: `IN x IN` to `OUT x OUT`.
///
/// # Safety
/// As for [`Run`], for the instruction set of `V`.
#[inline(always)]
unsafe fn separable<V: Vector, M: Map<IN, OUT>, const IN: usize, const OUT: usize>(job: &Job<'_>) {
    let whole = job.from.rows == (0..IN) && job.to.rows == (0..OUT);
    let vectors = if whole { job.len / V::LANES } else { 0 };
    // SAFETY: what the caller guarantees is what the body needs.
    unsafe {
        for v in 0..vectors {
            vector::<V, M, IN, OUT, false>(job, v * V::LANES);
        }
        for v in vectors..job.len.div_ceil(V::LANES) {
            vector::<V, M, IN, OUT, true>(job, v * V::LANES);
        }
    }
}

/// One vector of every place, from number `start` on. If `CUT`, rows may be missing and the vector
/// may go past the end.
///
/// # Safety
/// As for [`separable`]; without `CUT` there are `LANES` numbers and all rows.
#[inline(always)]
unsafe fn vector<V: Vector, M: Map<IN, OUT>, const IN: usize, const OUT: usize, const CUT: bool>(
    job: &Job<'_>,
    start: usize,
) {
    let lanes = (job.len - start).min(V::LANES);
    let lanes_of = |i: usize| if job.from.rows.contains(&i) { lanes } else { 0 };
    // SAFETY: the caller guarantees the instruction set, and the numbers of the places that exist;
    // the masks leave out the others and what is past the end. Pointers to what does not exist are
    // computed and not used.
    unsafe {
        // Loops rather than `array::from_fn`, which is a function without the instruction set.
        let mut masks = [V::mask(0); IN];
        let mut rows = [0; IN];
        for (i, (m, row)) in masks.iter_mut().zip(&mut rows).enumerate() {
            *m = V::mask(lanes_of(i));
            // A row that is missing is read, under an empty mask, where another one lies: a processor
            // takes hundreds of cycles to find out that it need not read from memory that is not there.
            let last = job.from.rows.end.saturating_sub(1);
            *row = i
                .min(last)
                .max(job.from.rows.start)
                .wrapping_mul(job.from.row);
        }
        let mut src = job.src.wrapping_add(job.from.origin().wrapping_add(start));
        let mut half = [[V::zero(); IN]; OUT];
        for j in 0..IN {
            let mut column = [V::zero(); IN];
            if job.from.cols.contains(&j) && !job.from.rows.is_empty() {
                for (x, (&row, &mask)) in column.iter_mut().zip(rows.iter().zip(&masks)) {
                    let at = src.wrapping_add(row);
                    *x = if CUT {
                        V::load_masked(at, mask)
                    } else {
                        V::load(at)
                    };
                }
            }
            for (row, x) in half.iter_mut().zip(M::apply(column)) {
                row[j] = x;
            }
            src = src.wrapping_add(job.from.col);
        }
        let dst = job.dst.wrapping_add(job.to.origin().wrapping_add(start));
        for (i, row) in half.into_iter().enumerate() {
            if CUT && !job.to.rows.contains(&i) {
                continue;
            }
            let mask = V::mask(lanes);
            let row = M::apply(row);
            let dst = dst.wrapping_add(i.wrapping_mul(job.to.row));
            for (j, x) in row.into_iter().enumerate() {
                if !job.to.cols.contains(&j) {
                    continue;
                }
                let at = dst.wrapping_add(j.wrapping_mul(job.to.col));
                match (CUT, job.add) {
                    (false, false) => x.store(at),
                    (false, true) => V::load(at).add(x).store(at),
                    (true, false) => x.store_masked(at, mask),
                    (true, true) => V::load_masked(at, mask).add(x).store_masked(at, mask),
                }
            }
        }
    }
}

/// Runs `transform`.
///
/// # Safety
/// As for [`Run`], for the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn run<V: Vector>(transform: Transform, job: &Job<'_>) {
    // SAFETY: what the caller guarantees is what each needs.
    unsafe {
        match transform {
            Transform::Input => separable::<V, Input, 6, 6>(job),
            Transform::Weight => separable::<V, Weight, 3, 6>(job),
            Transform::Output => separable::<V, Output, 6, 4>(job),
            Transform::OutputGradient => separable::<V, OutputGradient, 4, 6>(job),
            Transform::WeightGradient => separable::<V, WeightGradient, 6, 3>(job),
        }
    }
}
