//! Kernels of products whose left factor is mostly one value, the *background*: black pixels.
//!
//! Which factors differ from the background is written down as words of 64 bits, one word for 64 terms of
//! a row. A tile of two rows stays in registers while the bits of its words are gone through.
#![allow(unsafe_code)]

use super::super::dispatch::each_isa;
use super::super::terms::{Finish, Terms};
use super::super::tiles::TileMut;
use super::kernel::Vector;

/// Terms that one word tells about.
pub(crate) const WORD: usize = 64;

/// Most vectors of a tile: two rows of eight and what they are multiplied by fit in 32 registers.
const MOST: usize = 8;

/// Numbers of B that are gone through for all rows before the next: they stay in the nearest cache.
const NEAR: usize = 8 << 10;

/// Which factors differ from the background.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    /// Bit `t` of `words[i·row + q·step]` is set if factor `64·q + t` of row `i` counts. Bits past the
    /// last term mean nothing.
    pub words: &'a [u64],
    /// Distance between the words of two rows.
    pub row: usize,
    /// Distance between two words of a row.
    pub step: usize,
}

/// The value that most factors have, and what all terms with it as a factor come to.
#[derive(Clone, Copy)]
pub(crate) struct Background<'a> {
    /// The value.
    pub value: f32,
    /// A row that is added to each row of the destination, if the value is not 0.
    pub row: &'a [f32],
}

/// The arguments of a [`Rows`] kernel.
pub(super) struct Job<'a> {
    /// First number of the destination, distance between rows, rows.
    c: *mut f32,
    c_row: usize,
    rows: usize,
    /// First factor, distance between rows and between terms.
    a: *const f32,
    a_row: usize,
    a_step: usize,
    /// First number of B, distance between terms.
    b: *const f32,
    b_row: usize,
    /// First word, distance between rows and between words, words of a row, bits that count in the last.
    words: *const u64,
    word_row: usize,
    word_step: usize,
    count: usize,
    last_bits: u64,
    /// Added to each row, before all terms.
    base: Option<&'a [f32]>,
    background: f32,
    /// Columns in the last vector, at least 1.
    last: usize,
    /// The sums begin with the numbers of the destination.
    add: bool,
    /// So many times the sums are subtracted from it, where it is given.
    lr: Option<f32>,
}

/// Adds the terms that the words name to all rows of a tile's columns.
///
/// # Safety
/// The CPU has the instruction set, and there are no fewer columns than lanes. For the rows `i`, the columns `j` of the kernel's vectors (as cut by
/// `last`) and every bit `t` of word `q` that is set and counts, `words[i·word_row + q·word_step]`,
/// `a[i·a_row + (64·q + t)·a_step]` and `b[(64·q + t)·b_row + j]` may be read, and `c[i·c_row + j]` read and
/// written; `base` has a number for each column.
pub(super) type Rows = unsafe fn(&Job<'_>);

/// A vector whose numbers can be compared.
///
/// # Safety
/// As for [`Vector`].
pub(super) unsafe trait Compare: Vector {
    /// Bit `i` is set where lane `i` is not equal to that of `other`; a NaN is not equal to anything.
    unsafe fn differs(self, other: Self) -> u64;
}

/// Sets bit `j % 64` of `words[j / 64]` for the numbers `from[j]`, `j < len`, that are not `background`, and
/// clears the others.
///
/// # Safety
/// The CPU has the instruction set, `len` numbers may be read and `len.div_ceil(64)` words written.
pub(super) type Differ = unsafe fn(from: *const f32, len: usize, background: f32, words: *mut u64);

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct SparseKernels {
    lanes: usize,
    differ: Differ,
    /// `rows[v - 1]` works on `v` vectors.
    rows: &'static [Rows],
}

impl SparseKernels {
    /// The kernels of an instruction set.
    ///
    /// # Safety
    /// The functions keep the contracts of their types wherever this value is handed out, with vectors of
    /// `lanes` numbers; `rows` is not empty.
    pub(super) const unsafe fn new(lanes: usize, differ: Differ, rows: &'static [Rows]) -> Self {
        assert!(!rows.is_empty() && rows.len() <= MOST);
        SparseKernels {
            lanes,
            differ,
            rows,
        }
    }

    /// The words of a row of numbers: bit `j % 64` of `words[j / 64]` is set where `row[j]` is not
    /// `background`.
    ///
    /// # Panics
    /// If there are too few words.
    #[track_caller]
    pub fn differ(&self, row: &[f32], background: f32, words: &mut [u64]) {
        assert_eq!(words.len(), row.len().div_ceil(WORD), "words of a row");
        // SAFETY: these kernels are handed out where the CPU has their instructions; the lengths fit.
        unsafe { (self.differ)(row.as_ptr(), row.len(), background, words.as_mut_ptr()) }
    }

    /// Terms up to which a product of `n` columns can be a [`Finish::Descend`]: those that are gone through
    /// before the next columns.
    pub fn near(&self, n: usize) -> usize {
        let vectors = n.div_ceil(self.lanes);
        WORD * self.together(vectors.min(self.rows.len()))
    }

    /// Words whose terms are gone through for all rows before the next, in tiles of `nv` vectors.
    fn together(&self, nv: usize) -> usize {
        (NEAR / (WORD * nv.max(1) * self.lanes)).max(1)
    }

    /// `C[i][j] = background.row[j] + Σ (A[i][p] - background.value) · B[p][j]`, the sum over the terms
    /// `p` that `words` names, or what `finish` says of these sums; a factor to descend by is finite and above
    /// 0. `terms` has one tap. Each number of C is one chain of additions in the order
    /// of the terms.
    ///
    /// # Panics
    /// If an operand is too short, there are fewer columns than lanes, or too many terms to descend by ([`near`](Self::near)).
    #[track_caller]
    pub fn product(
        &self,
        c: TileMut<'_>,
        terms: &Terms<'_>,
        words: Words<'_>,
        background: Background<'_>,
        finish: impl Into<Finish>,
    ) {
        let (m, n) = (c.rows(), c.cols());
        if m == 0 || n == 0 {
            return;
        }
        let finish = finish.into();
        let lr = match finish {
            Finish::Descend(lr) => Some(lr),
            Finish::Set | Finish::Add => None,
        };
        assert!(
            lr.is_none() || terms.k <= self.near(n),
            "{} terms to descend by",
            terms.k
        );
        let count = terms.k.div_ceil(WORD);
        let [tap] = terms.taps else {
            panic!("{} taps in a product with words", terms.taps.len());
        };
        let end = (count > 0).then(|| {
            let down = (m - 1).checked_mul(words.row)?;
            (count - 1).checked_mul(words.step)?.checked_add(down)
        });
        assert!(
            end.is_none_or(|end| end.is_some_and(|end| end < words.words.len()))
                && (background.value == 0.0 || background.row.len() == n),
            "a product of {m} x {n} with {} terms, {} words and a background of {} columns",
            terms.k,
            words.words.len(),
            background.row.len()
        );
        terms.check(m, n);
        let (c_row, mut c) = (c.stride(), c);
        let mut vectors = n.div_ceil(self.lanes);
        let mut j = 0;
        while vectors > 0 {
            let nv = vectors.div_ceil(vectors.div_ceil(self.rows.len()));
            let cols = (nv * self.lanes).min(n - j);
            assert!(cols >= self.lanes, "{n} columns of a product with words");
            let together = self.together(nv);
            let mut q = 0;
            // Once even if there is no term.
            while q < count || q == 0 {
                let some = together.min(count - q);
                let left = terms.k - q * WORD;
                let job = Job {
                    c: c.as_mut_ptr().wrapping_add(j),
                    c_row,
                    rows: m,
                    a: (terms.a.as_ptr()).wrapping_add(tap.a + q * WORD * terms.a_step),
                    a_row: terms.a_row,
                    a_step: terms.a_step,
                    b: (terms.b.as_ptr()).wrapping_add(tap.b + q * WORD * terms.b_row + j),
                    b_row: terms.b_row,
                    words: words.words.as_ptr().wrapping_add(q * words.step),
                    word_row: words.row,
                    word_step: words.step,
                    count: some,
                    last_bits: first_bits(left - (some.max(1) - 1) * WORD),
                    base: (q == 0 && background.value != 0.0).then(|| &background.row[j..]),
                    background: background.value,
                    last: cols - (nv - 1) * self.lanes,
                    add: q > 0 || finish == Finish::Add,
                    lr,
                };
                // SAFETY: these kernels are handed out where the CPU has their instructions. Rows below `m`
                // and columns `j .. j + cols` lie inside `c`, which is exclusively ours; terms below `k`
                // inside `a` and `b` (checked), and no bit from the `k`th on counts; the words of `m` rows
                // lie inside theirs (asserted); the background has `n` columns, which fill a vector (asserted).
                unsafe { self.rows[nv - 1](&job) };
                q += some.max(1);
            }
            j += cols;
            vectors -= nv;
        }
    }
}

/// The `count` lowest bits, all if there are not so many.
fn first_bits(count: usize) -> u64 {
    if count >= WORD {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

each_isa! {
    /// The words of the columns of a matrix with rows of `half.len() / 2` numbers, of which there are at
    /// most 64: bit `r` of `words[j]` is set where number `j` of row `r` is not `background`. `half` is
    /// working memory.
    pub(crate) fn differ_down(
        rows: &[f32], background: f32, half: &mut [u32], words: &mut [u64],
    ) {
        let cols = words.len();
        let (low, high) = half.split_at_mut(cols);
        low.fill(0);
        high.fill(0);
        for (r, row) in rows.chunks_exact(cols).enumerate() {
            let bit = 1u32 << (r % 32);
            let half = if r < 32 { &mut *low } else { &mut *high };
            for (word, &x) in half.iter_mut().zip(row) {
                *word |= if x != background { bit } else { 0 };
            }
        }
        for ((word, &low), &high) in words.iter_mut().zip(&*low).zip(&*high) {
            *word = u64::from(low) | u64::from(high) << 32;
        }
    }
}

/// The body of every [`Rows`]: two rows at a time, over the terms that either needs.
///
/// # Safety
/// As for [`Rows`], for the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn rows<V: Vector, const NV: usize>(job: &Job<'_>) {
    // SAFETY: what the caller guarantees is what the tiles need.
    unsafe {
        if job.last == V::LANES {
            all::<V, NV, false>(job);
        } else {
            all::<V, NV, true>(job);
        }
    }
}

/// [`rows`], with the last vector cut or not.
#[inline(always)]
unsafe fn all<V: Vector, const NV: usize, const CUT: bool>(job: &Job<'_>) {
    // SAFETY: rows below `job.rows`, for which the caller vouches.
    unsafe {
        for i in (0..job.rows - job.rows % 2).step_by(2) {
            tile::<V, 2, NV, CUT>(job, i);
        }
        if job.rows % 2 == 1 {
            tile::<V, 1, NV, CUT>(job, job.rows - 1);
        }
    }
}

/// `R` rows from `i` on. A factor of one row that is the background beside one of the other that is not
/// adds a zero.
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const NV: usize, const CUT: bool>(
    job: &Job<'_>,
    i: usize,
) {
    // SAFETY: the caller guarantees the instruction set and every address.
    unsafe {
        // A vector that would reach past the last column ends with it, and computes some columns once more: a
        // masked store would hold up the loads of the next row.
        let column = |v: usize| match CUT && v + 1 == NV {
            true => v * V::LANES + job.last - V::LANES,
            false => v * V::LANES,
        };
        let load = |from: *const f32, v: usize| V::load(from.add(column(v)));
        let named = |q: usize| {
            let mut word = 0;
            for r in 0..R {
                word |= *job.words.add((i + r) * job.word_row + q * job.word_step);
            }
            if q + 1 == job.count {
                word &= job.last_bits;
            }
            word
        };
        if job.lr.is_some() {
            // What is finite times nothing.
            if job.base.is_none() && (0..job.count).all(|q| named(q) == 0) {
                return;
            }
            for r in 0..R {
                for v in 0..NV {
                    V::prefetch(job.c.wrapping_add((i + r) * job.c_row + v * V::LANES));
                }
            }
        }
        let mut sums = [[V::zero(); NV]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                if job.add {
                    *sum = load(job.c.add((i + r) * job.c_row), v);
                }
                if let Some(base) = job.base {
                    *sum = sum.add(load(base.as_ptr(), v));
                }
            }
        }
        let off = V::splat(-job.background);
        for q in 0..job.count {
            let mut word = named(q);
            let a = job.a.wrapping_add(i * job.a_row + q * WORD * job.a_step);
            let b = job.b.wrapping_add(q * WORD * job.b_row);
            while word != 0 {
                let term = word.trailing_zeros() as usize;
                word &= word - 1;
                let b = b.add(term * job.b_row);
                let x: [V; R] = std::array::from_fn(|r| {
                    V::splat(*a.add(r * job.a_row + term * job.a_step)).add(off)
                });
                for v in 0..NV {
                    let b = load(b, v);
                    for (sums, &x) in sums.iter_mut().zip(&x) {
                        sums[v] = sums[v].add_product(x, b);
                    }
                }
            }
        }
        if let Some(lr) = job.lr {
            let lr = V::splat(lr);
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load(job.c.add((i + r) * job.c_row), v).sub(lr.mul(*sum));
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                sum.store(job.c.add((i + r) * job.c_row + column(v)));
            }
        }
    }
}

/// The body of every [`Differ`].
///
/// # Safety
/// As for [`Differ`], for the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn differ<V: Compare>(
    from: *const f32,
    len: usize,
    background: f32,
    words: *mut u64,
) {
    const { assert!(WORD.is_multiple_of(V::LANES)) };
    // SAFETY: the caller guarantees the instruction set and every address.
    unsafe {
        let background = V::splat(background);
        let whole = len / WORD;
        for q in 0..whole {
            let mut word = 0;
            // A bound that the compiler knows.
            for j in (0..WORD).step_by(V::LANES) {
                word |= V::load(from.add(q * WORD + j)).differs(background) << j;
            }
            *words.add(q) = word;
        }
        let (from, left) = (from.add(whole * WORD), len % WORD);
        let mut word = 0;
        for j in (0..left).step_by(V::LANES) {
            let lanes = (left - j).min(V::LANES);
            let x = V::load_masked(from.add(j), V::mask(lanes));
            word |= (x.differs(background) & first_bits(lanes)) << j;
        }
        if left > 0 {
            *words.add(whole) = word;
        }
    }
}
