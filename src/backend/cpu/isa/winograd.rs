//! The transforms of Winograd's convolution `F(4x4, 3x3)` (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2016), element by element over whole vectors of channels and
//! samples.
//!
//! With the points 0, 1, -1, 2, -2 and infinity, sixteen outputs `Y` of a 3x3 kernel `g` over a 6x6
//! tile `d` are `Y = Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A`: 36 multiplications instead of 144. The gradient of
//! the kernel turns two of the maps round: `dg = Gᵀ·[(A·dY·Aᵀ) ⊙ (Bᵀ·d·B)]·G`.
#![allow(unsafe_code)]

use super::kernel::Vector;
use std::mem::MaybeUninit;
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

    /// Whether all places of a square matrix exist.
    fn has_all(&self, side: usize) -> bool {
        self.rows == (0..side) && self.cols == (0..side)
    }

    /// Puts where each place that exists begins, as its offset says, where it belongs.
    #[inline(always)]
    fn put<P, const SIDE: usize>(&self, starts: &mut Starts<P, SIDE>, place: impl Fn(usize) -> P) {
        let mut row = self.first;
        for starts in &mut starts[self.rows.clone()] {
            let mut at = row;
            for start in &mut starts[self.cols.clone()] {
                *start = place(at);
                at = at.wrapping_add(self.col);
            }
            row = row.wrapping_add(self.row);
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
}

/// The arguments of a [`Run`].
pub(crate) struct Job<'a> {
    /// The matrix that is read, in places.
    pub src: *const f32,
    pub from: &'a Places,
    /// The matrix that is written.
    pub dst: *mut f32,
    pub to: &'a Places,
    /// Numbers in a line.
    pub len: usize,
    /// Lines in each place, and how far apart they are in what is read and in what is written.
    pub lines: usize,
    pub from_line: usize,
    pub to_line: usize,
    /// Add to the destination instead of overwriting it.
    pub add: bool,
}

/// Does a transform for every number of the places.
///
/// # Safety
/// The CPU has the instruction set of the table, the `len` numbers of each line of each place of `from` that
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
            let (even2, odd2) = (x[4].sub(x[2]), x[3].sub(x[1]));
            [
                plus(plus(x[4], -5.0, x[2]), 4.0, x[0]),
                even.add(odd),
                even.sub(odd),
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
            let (sum, difference) = (x[1].add(x[2]), x[1].sub(x[2]));
            let (sum2, difference2) = (x[3].add(x[4]), x[3].sub(x[4]));
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
                even.sub(odd),
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
            let (sum, difference) = (x[1].add(x[2]), x[2].sub(x[1]));
            let (sum2, difference2) = (x[3].add(x[4]), x[3].sub(x[4]));
            [
                plus(plus(times(0.25, x[0]), -1.0 / 6.0, sum), 1.0 / 24.0, sum2),
                plus(times(1.0 / 6.0, difference), 1.0 / 12.0, difference2),
                plus(plus(x[5], -1.0 / 6.0, sum), 1.0 / 6.0, sum2),
            ]
        }
    }
}

/// Numbers of each place that are done before its address is looked up again, where some places do not exist.
const STRETCH: usize = 1024;

/// What places that do not exist hold.
static ZEROS: [f32; STRETCH] = [0.0; STRETCH];

/// Where the numbers of the places begin.
type Starts<P, const SIDE: usize> = [[P; SIDE]; SIDE];

/// The transform of every number of the places: `IN x IN` to `OUT x OUT`, `PART` rows of it at a time (all
/// or half of them), so that what lies between the two maps stays in registers.
///
/// Places that do not exist are read from zeros and written to memory that nobody looks at: no vector
/// but the last has a mask, none a branch.
///
/// # Safety
/// As for [`Run`], for the instruction set of `V`.
#[inline(always)]
unsafe fn separable<
    V: Vector,
    M: Map<IN, OUT>,
    const IN: usize,
    const OUT: usize,
    const PART: usize,
>(
    job: &Job<'_>,
) {
    let mut nowhere = MaybeUninit::<[f32; STRETCH]>::uninit();
    let mut from = [[ZEROS.as_ptr(); IN]; IN];
    let mut to = [[nowhere.as_mut_ptr().cast::<f32>(); OUT]; OUT];
    if job.from.has_all(IN) && job.to.has_all(OUT) {
        job.from.put(&mut from, |at| job.src.wrapping_add(at));
        job.to.put(&mut to, |at| job.dst.wrapping_add(at));
        for line in 0..job.lines {
            let [read, written] = [job.from_line, job.to_line].map(|apart| line * apart);
            // SAFETY: the caller guarantees the instruction set and the numbers of all places.
            unsafe {
                stretch::<V, M, IN, OUT, PART>(&from, &to, [read, written], job.len, job.add);
            }
        }
        return;
    }
    if !job.to.has_all(OUT) {
        // What is added to must be a number.
        nowhere.write([0.0; STRETCH]);
    }
    let stretches = (0..job.len).step_by(STRETCH);
    for (line, start) in (0..job.lines).flat_map(|line| stretches.clone().map(move |at| (line, at)))
    {
        let [read, written] = [job.from_line, job.to_line].map(|apart| line * apart + start);
        job.from
            .put(&mut from, |at| job.src.wrapping_add(at + read));
        job.to.put(&mut to, |at| job.dst.wrapping_add(at + written));
        let len = (job.len - start).min(STRETCH);
        // SAFETY: the caller guarantees the instruction set, and the numbers of the places that
        // exist; the others have a stretch of memory each.
        unsafe { stretch::<V, M, IN, OUT, PART>(&from, &to, [0; 2], len, job.add) }
    }
}

/// The transform of `len` numbers of every place, so many after its start in what is read and in what is written.
///
/// # Safety
/// The CPU has the instruction set of `V`, and the numbers may be read and written.
#[inline(always)]
unsafe fn stretch<
    V: Vector,
    M: Map<IN, OUT>,
    const IN: usize,
    const OUT: usize,
    const PART: usize,
>(
    from: &Starts<*const f32, IN>,
    to: &Starts<*mut f32, OUT>,
    [read, written]: [usize; 2],
    len: usize,
    add: bool,
) {
    let whole = len / V::LANES * V::LANES;
    let cut = len - whole;
    // SAFETY: what the caller guarantees is what each needs; the mask leaves out what is past the end.
    unsafe {
        let all = V::mask(V::LANES);
        if add {
            for at in (0..whole).step_by(V::LANES) {
                let at = [read + at, written + at];
                vector::<V, M, IN, OUT, PART, false, true>(from, to, at, all);
            }
            if cut > 0 {
                let at = [read + whole, written + whole];
                vector::<V, M, IN, OUT, PART, true, true>(from, to, at, V::mask(cut));
            }
        } else {
            for at in (0..whole).step_by(V::LANES) {
                let at = [read + at, written + at];
                vector::<V, M, IN, OUT, PART, false, false>(from, to, at, all);
            }
            if cut > 0 {
                let at = [read + whole, written + whole];
                vector::<V, M, IN, OUT, PART, true, false>(from, to, at, V::mask(cut));
            }
        }
    }
}

/// One vector of every place, from such a number on in what is read and in what is written, cut by `mask` if `CUT`.
///
/// # Safety
/// The CPU has the instruction set of `V`, and the numbers may be read and written.
#[inline(always)]
unsafe fn vector<
    V: Vector,
    M: Map<IN, OUT>,
    const IN: usize,
    const OUT: usize,
    const PART: usize,
    const CUT: bool,
    const ADD: bool,
>(
    from: &Starts<*const f32, IN>,
    to: &Starts<*mut f32, OUT>,
    at: [usize; 2],
    mask: V::Mask,
) {
    const { assert!(PART <= OUT && OUT <= 2 * PART) };
    // SAFETY: what the caller guarantees is what each needs.
    unsafe {
        rows::<V, M, IN, OUT, PART, CUT, ADD>(from, to, 0, at, mask);
        if PART < OUT {
            rows::<V, M, IN, OUT, PART, CUT, ADD>(from, to, OUT - PART, at, mask);
        }
    }
}

/// The `PART` rows of a [`vector`] from `first` on.
///
/// # Safety
/// As for [`vector`].
#[inline(always)]
unsafe fn rows<
    V: Vector,
    M: Map<IN, OUT>,
    const IN: usize,
    const OUT: usize,
    const PART: usize,
    const CUT: bool,
    const ADD: bool,
>(
    from: &Starts<*const f32, IN>,
    to: &Starts<*mut f32, OUT>,
    first: usize,
    [read, written]: [usize; 2],
    mask: V::Mask,
) {
    // SAFETY: the caller guarantees the instruction set and every address.
    unsafe {
        // Loops rather than `array::from_fn`, which is a function without the instruction set.
        let mut half = [[V::zero(); IN]; PART];
        for j in 0..IN {
            let mut column = [V::zero(); IN];
            for (x, from) in column.iter_mut().zip(from) {
                let from = from[j].add(read);
                *x = if CUT {
                    V::load_masked(from, mask)
                } else {
                    V::load(from)
                };
            }
            let column = M::apply(column);
            for (row, &x) in half.iter_mut().zip(&column[first..]) {
                row[j] = x;
            }
        }
        for (row, to) in half.into_iter().zip(&to[first..]) {
            for (x, to) in M::apply(row).into_iter().zip(to) {
                let to = to.add(written);
                match (CUT, ADD) {
                    (false, false) => x.store(to),
                    (false, true) => V::load(to).add(x).store(to),
                    (true, false) => x.store_masked(to, mask),
                    (true, true) => V::load_masked(to, mask).add(x).store_masked(to, mask),
                }
            }
        }
    }
}

/// Runs `transform`; that of the input does so many rows at a time.
///
/// # Safety
/// As for [`Run`], for the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const PART: usize>(transform: Transform, job: &Job<'_>) {
    // SAFETY: what the caller guarantees is what each needs.
    unsafe {
        match transform {
            Transform::Input => separable::<V, Input, 6, 6, PART>(job),
            Transform::Weight => separable::<V, Weight, 3, 6, 6>(job),
            Transform::Output => separable::<V, Output, 6, 4, 4>(job),
            Transform::OutputGradient => separable::<V, OutputGradient, 4, 6, 6>(job),
            Transform::WeightGradient => separable::<V, WeightGradient, 6, 3, 3>(job),
        }
    }
}
