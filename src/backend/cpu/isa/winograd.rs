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

    /// The offset of a place that exists.
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> usize {
        self.first + (i - self.rows.start) * self.row + (j - self.cols.start) * self.col
    }

    #[inline(always)]
    fn has(&self, i: usize, j: usize) -> bool {
        self.rows.contains(&i) && self.cols.contains(&j)
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
    let whole = |places: &Places, side| places.rows == (0..side) && places.cols == (0..side);
    // SAFETY: what the caller guarantees is what the body needs.
    unsafe {
        if whole(job.from, IN) && whole(job.to, OUT) {
            lanes::<V, M, IN, OUT, false>(job);
        } else {
            lanes::<V, M, IN, OUT, true>(job);
        }
    }
}

/// [`separable`], with places missing or not.
///
/// # Safety
/// As for [`separable`].
#[inline(always)]
unsafe fn lanes<V: Vector, M: Map<IN, OUT>, const IN: usize, const OUT: usize, const CUT: bool>(
    job: &Job<'_>,
) {
    let (from, to) = (job.from, job.to);
    for start in (0..job.len).step_by(V::LANES) {
        let left = job.len - start;
        // SAFETY: the caller guarantees the instruction set, and the numbers of the places that
        // exist; of the last vector only the lanes below `len` are touched.
        unsafe {
            let mask = V::mask(left.min(V::LANES));
            let load = |at: *const f32| {
                if left >= V::LANES {
                    V::load(at)
                } else {
                    V::load_masked(at, mask)
                }
            };
            let mut half = [[V::zero(); IN]; OUT];
            for j in 0..IN {
                let mut column = [V::zero(); IN];
                for (i, x) in column.iter_mut().enumerate() {
                    if !CUT || from.has(i, j) {
                        *x = load(job.src.add(from.at(i, j) + start));
                    }
                }
                for (row, x) in half.iter_mut().zip(M::apply(column)) {
                    row[j] = x;
                }
            }
            for (i, row) in half.into_iter().enumerate() {
                for (j, x) in M::apply(row).into_iter().enumerate() {
                    if CUT && !to.has(i, j) {
                        continue;
                    }
                    let at = job.dst.add(to.at(i, j) + start);
                    let x = if job.add { load(at).add(x) } else { x };
                    if left >= V::LANES {
                        x.store(at);
                    } else {
                        x.store_masked(at, mask);
                    }
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
