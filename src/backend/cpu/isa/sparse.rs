//! Kernels of products whose left factor is mostly one value, the *background*: black pixels.
//!
//! Which factors differ from the background is written down as words of 64 bits, one word for 64 terms of
//! a row. A tile of two rows stays in registers while the bits of its words are gone through.
#![allow(unsafe_code)]

use super::super::dispatch::each_isa;
use super::super::terms::Finish;
use super::super::tiles::TileMut;
use super::bf16::round;
use super::kernel::Vector;
use std::ops::Range;

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

/// The left factor as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Numbers.
    Numbers(&'a [f32]),
    /// Bytes, and what each byte stands for.
    Bytes(&'a [u8], &'a [f32; 256]),
}

impl<'a> Left<'a> {
    /// How many factors there are.
    pub fn len(&self) -> usize {
        match self {
            Left::Numbers(numbers) => numbers.len(),
            Left::Bytes(bytes, _) => bytes.len(),
        }
    }

    /// The factors `range`.
    #[track_caller]
    pub fn part(&self, range: Range<usize>) -> Left<'a> {
        match *self {
            Left::Numbers(numbers) => Left::Numbers(&numbers[range]),
            Left::Bytes(bytes, values) => Left::Bytes(&bytes[range], values),
        }
    }
}

/// The operands of a sum over terms: `A[i·a_row + p·a_step] · B[p·b_row + j]` over `p < k`.
#[derive(Clone, Copy)]
pub(crate) struct SparseTerms<'a> {
    /// Factors of A.
    pub a: Left<'a>,
    /// Numbers of B.
    pub b: &'a [f32],
    /// Terms.
    pub k: usize,
    /// Distance between rows of A.
    pub a_row: usize,
    /// Distance between terms of A.
    pub a_step: usize,
    /// Distance between terms of B.
    pub b_row: usize,
}

impl SparseTerms<'_> {
    /// Panics unless the operands hold every number that `m` rows and `n` columns read, both at least 1, with
    /// so many terms in each row of B.
    #[track_caller]
    fn check(&self, m: usize, n: usize, together: usize) {
        let reach = |rows: usize, row: usize, terms: usize, step: usize| {
            let along = terms.checked_sub(1)?.checked_mul(step)?;
            (rows - 1).checked_mul(row)?.checked_add(along)
        };
        let fits = |reach: Option<usize>, len: usize| reach.is_some_and(|end| end < len);
        assert!(
            self.k == 0
                || self.k.is_multiple_of(together)
                    && fits(reach(m, self.a_row, self.k, self.a_step), self.a.len())
                    && fits(reach(n, 1, self.k / together, self.b_row), self.b.len()),
            "a product of {m} x {n} with {} terms reads past {} or {} numbers",
            self.k,
            self.a.len(),
            self.b.len()
        );
    }
}

/// The factor that most are.
#[derive(Clone, Copy)]
pub(crate) struct Common {
    /// Its value.
    pub value: f32,
    /// Its byte, where factors are bytes.
    pub byte: u8,
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
    a: Factors,
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

/// The first factor.
#[derive(Clone, Copy)]
enum Factors {
    /// A number, from which the background is yet to be taken.
    Numbers(*const f32),
    /// A byte, and what bytes stand for, less the background.
    Bytes(*const u8, *const f32),
    /// The same rounded to bfloat16, in the lower half of a number.
    Pairs(*const u8, *const f32),
}

/// Adds the terms that the words name to all rows of a tile's columns.
///
/// # Safety
/// The CPU has the instruction set, and there are no fewer columns than lanes. For the rows `i`, the columns `j` of the kernel's vectors (as cut by
/// `last`) and every bit `t` of word `q` that is set and counts, `words[i·word_row + q·word_step]`,
/// `a[i·a_row + (64·q + t)·a_step]` and `b[(64·q + t)·b_row + j]` may be read, and `c[i·c_row + j]` read and
/// written; `base` has a number for each column. With pairs that holds for both terms of each, and row
/// `(64·q + t) / 2` of `b`.
pub(super) type Rows = unsafe fn(&Job<'_>);

/// A vector whose numbers can be compared.
///
/// # Safety
/// As for [`Vector`].
pub(super) unsafe trait Compare: Vector {
    /// Bit `i` is set where lane `i` is not equal to that of `other`; a NaN is not equal to anything.
    unsafe fn differs(self, other: Self) -> u64;
}

/// Sets bit `j % 64` of `words[j / 64]` for the factors `from[j]`, `j < len`, that are not `background`, and
/// clears the others.
///
/// # Safety
/// The CPU has the instruction set, `len` factors may be read and `len.div_ceil(64)` words written.
pub(super) type Differ<T> = unsafe fn(from: *const T, len: usize, background: T, words: *mut u64);

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct SparseKernels {
    lanes: usize,
    differ: Differ<f32>,
    differ_bytes: Differ<u8>,
    /// Factors are bytes, and two terms are multiplied at a time, as bfloat16 numbers.
    pairs: bool,
    /// `rows[v - 1]` works on `v` vectors.
    rows: &'static [Rows],
}

impl SparseKernels {
    /// The kernels of an instruction set.
    ///
    /// # Safety
    /// The functions keep the contracts of their types wherever this value is handed out, with vectors of
    /// `lanes` numbers; `rows` is not empty, and takes factors of the kind that [`of_pairs`](Self::of_pairs) says.
    pub(super) const unsafe fn new(
        lanes: usize,
        (differ, differ_bytes): (Differ<f32>, Differ<u8>),
        rows: &'static [Rows],
    ) -> Self {
        assert!(!rows.is_empty() && rows.len() <= MOST);
        SparseKernels {
            lanes,
            differ,
            differ_bytes,
            pairs: false,
            rows,
        }
    }

    /// The same for kernels of [pairs](super::bf16).
    pub(super) const fn of_pairs(self) -> Self {
        SparseKernels {
            pairs: true,
            ..self
        }
    }

    /// Terms of each row of B.
    pub fn terms(&self) -> usize {
        1 + usize::from(self.pairs)
    }

    /// The words of a row: bit `j % 64` of `words[j / 64]` is set where factor `j` is not that of the
    /// background.
    ///
    /// # Panics
    /// If there are too few words.
    #[track_caller]
    pub fn differ(&self, row: Left<'_>, background: Common, words: &mut [u64]) {
        assert_eq!(words.len(), row.len().div_ceil(WORD), "words of a row");
        let to = words.as_mut_ptr();
        // SAFETY: these kernels are handed out where the CPU has their instructions; the lengths fit.
        unsafe {
            match row {
                Left::Numbers(row) => (self.differ)(row.as_ptr(), row.len(), background.value, to),
                Left::Bytes(row, _) => {
                    (self.differ_bytes)(row.as_ptr(), row.len(), background.byte, to);
                }
            }
        }
    }

    /// Terms up to which a product of `n` columns can be a [`Finish::Descend`]: those that are gone through
    /// before the next columns.
    pub fn near(&self, n: usize) -> usize {
        let vectors = n.div_ceil(self.lanes);
        WORD * self.together(vectors.min(self.rows.len()))
    }

    /// Words whose terms are gone through for all rows before the next, in tiles of `nv` vectors.
    fn together(&self, nv: usize) -> usize {
        let rows = WORD / self.terms();
        (NEAR / (rows * nv.max(1) * self.lanes)).max(1)
    }

    /// `C[i][j] = background.row[j] + Σ (A[i][p] - background.value) · B[p][j]`, the sum over the terms
    /// `p` that `words` names, or what `finish` says of these sums; a factor to descend by is finite and above
    /// 0. Each number of C is one chain of additions in the order of the terms. Where a row of B has the
    /// [words](super::bf16) of two terms, these come in pairs, both or neither.
    ///
    /// # Panics
    /// If an operand is too short, pairs of terms are numbers or odd, there are fewer columns than lanes, or too
    /// many terms to descend by ([`near`](Self::near)).
    #[track_caller]
    pub fn product(
        &self,
        c: TileMut<'_>,
        terms: &SparseTerms<'_>,
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
        terms.check(m, n, self.terms());
        let mut differences = [0.0; 256];
        match (terms.a, self.pairs) {
            (Left::Bytes(_, values), false) => {
                differences = values.map(|value| value + -background.value);
            }
            (Left::Bytes(_, values), true) => {
                let rounded =
                    |value: f32| f32::from_bits(u32::from(round(value - background.value)));
                differences = values.map(rounded);
            }
            (Left::Numbers(_), pairs) => assert!(!pairs, "pairs of terms that are numbers"),
        }
        let (c_row, mut c) = (c.stride(), c);
        let mut vectors = n.div_ceil(self.lanes);
        let mut j = 0;
        while vectors > 0 {
            let nv = vectors.div_ceil(vectors.div_ceil(self.rows.len()));
            let cols = (nv * self.lanes).min(n - j);
            let b_rows = WORD / self.terms();
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
                    a: {
                        let first = q * WORD * terms.a_step;
                        let table = differences.as_ptr();
                        match terms.a {
                            Left::Numbers(a) => Factors::Numbers(a.as_ptr().wrapping_add(first)),
                            Left::Bytes(a, _) => {
                                let a = a.as_ptr().wrapping_add(first);
                                match self.pairs {
                                    false => Factors::Bytes(a, table),
                                    true => Factors::Pairs(a, table),
                                }
                            }
                        }
                    },
                    a_row: terms.a_row,
                    a_step: terms.a_step,
                    b: (terms.b.as_ptr()).wrapping_add(q * b_rows * terms.b_row + j),
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
                // lie inside theirs (asserted); the background has `n` columns, which fill a vector (asserted),
                // and there is a number for each byte.
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
    /// The words of columns from those of at most 64 rows: bit `r` of `down[j]` is bit `j % 64` of
    /// `across[r · down.len().div_ceil(64) + j / 64]`.
    pub(crate) fn words_down(across: &[u64], down: &mut [u64]) {
        let count = down.len().div_ceil(WORD);
        for (q, down) in down.chunks_mut(WORD).enumerate() {
            let mut square = [0; WORD];
            for (word, row) in square.iter_mut().zip(across.chunks_exact(count)) {
                *word = row[q];
            }
            turn::<32>(&mut square, 0x0000_0000_ffff_ffff);
            turn::<16>(&mut square, 0x0000_ffff_0000_ffff);
            turn::<8>(&mut square, 0x00ff_00ff_00ff_00ff);
            turn::<4>(&mut square, 0x0f0f_0f0f_0f0f_0f0f);
            turn::<2>(&mut square, 0x3333_3333_3333_3333);
            turn::<1>(&mut square, 0x5555_5555_5555_5555);
            down.copy_from_slice(&square[..down.len()]);
        }
    }
}

/// A step of turning over a square of bits: of each `2·N` rows, the upper ones exchange their high `N` of
/// `2·N` bits for the low ones of the rows `N` below. `low` has the low bits set.
#[inline(always)]
fn turn<const N: usize>(square: &mut [u64; WORD], low: u64) {
    for pair in square.chunks_exact_mut(2 * N) {
        let (upper, lower) = pair.split_at_mut(N);
        for (upper, lower) in upper.iter_mut().zip(lower) {
            let exchanged = (*upper >> N ^ *lower) & low;
            *lower ^= exchanged;
            *upper ^= exchanged << N;
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
        match (job.a, job.last == V::LANES) {
            (Factors::Numbers(a), true) => {
                all::<V, Numbers<V>, NV, false>(job, Numbers::new(a, job))
            }
            (Factors::Numbers(a), false) => {
                all::<V, Numbers<V>, NV, true>(job, Numbers::new(a, job))
            }
            (Factors::Bytes(a, values), true) => all::<V, Bytes, NV, false>(job, Bytes(a, values)),
            (Factors::Bytes(a, values), false) => all::<V, Bytes, NV, true>(job, Bytes(a, values)),
            (Factors::Pairs(..), _) => unreachable!("pairs have kernels of their own"),
        }
    }
}

/// The body of every [`Rows`] for pairs of terms, whose `V` multiplies words.
///
/// # Safety
/// As for [`Rows`], for the instruction set of `V`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn rows_of_pairs<V: Vector, const NV: usize>(job: &Job<'_>) {
    let Factors::Pairs(a, values) = job.a else {
        unreachable!("these kernels take pairs");
    };
    let a = Pairs(a, values, job.a_step);
    // SAFETY: what the caller guarantees is what the tiles need.
    unsafe {
        if job.last == V::LANES {
            all::<V, Pairs, NV, false>(job, a);
        } else {
            all::<V, Pairs, NV, true>(job, a);
        }
    }
}

/// Where factors come from.
///
/// # Safety
/// As for [`Vector`].
unsafe trait Source<V: Vector>: Copy {
    /// Terms that are multiplied at a time, as a power of two.
    const TOGETHER: u32;
    /// Factor `at`, less the background, in all lanes; with those multiplied at the same time.
    unsafe fn factor(self, at: usize) -> V;
}

/// Numbers, and what is added to each.
#[derive(Clone, Copy)]
struct Numbers<V>(*const f32, V);

impl<V: Vector> Numbers<V> {
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn new(a: *const f32, job: &Job<'_>) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Numbers(a, unsafe { V::splat(-job.background) })
    }
}

// SAFETY: as for `Vector`.
unsafe impl<V: Vector> Source<V> for Numbers<V> {
    const TOGETHER: u32 = 0;
    #[inline(always)]
    unsafe fn factor(self, at: usize) -> V {
        // SAFETY: the caller vouches for the instruction set and the address.
        unsafe { V::splat(*self.0.add(at)).add(self.1) }
    }
}

/// Bytes, and what each stands for.
#[derive(Clone, Copy)]
struct Bytes(*const u8, *const f32);

// SAFETY: as for `Vector`.
unsafe impl<V: Vector> Source<V> for Bytes {
    const TOGETHER: u32 = 0;
    #[inline(always)]
    unsafe fn factor(self, at: usize) -> V {
        // SAFETY: the caller vouches for the instruction set and the address, and there is a number for
        // each byte.
        unsafe { V::splat(*self.1.add(usize::from(*self.0.add(at)))) }
    }
}

/// Bytes, what each stands for as a bfloat16 number, and the distance to the next term.
#[derive(Clone, Copy)]
struct Pairs(*const u8, *const f32, usize);

// SAFETY: as for `Vector`.
unsafe impl<V: Vector> Source<V> for Pairs {
    const TOGETHER: u32 = 1;
    #[inline(always)]
    unsafe fn factor(self, at: usize) -> V {
        // SAFETY: the caller vouches for the instruction set and for both addresses, and there is a number
        // for each byte.
        unsafe {
            let half = |at: usize| (*self.1.add(usize::from(*self.0.add(at)))).to_bits();
            V::splat(f32::from_bits(half(at) | half(at + self.2) << 16))
        }
    }
}

/// The even bits.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// [`rows`] of one source, with the last vector cut or not.
#[inline(always)]
unsafe fn all<V: Vector, S: Source<V>, const NV: usize, const CUT: bool>(job: &Job<'_>, a: S) {
    // SAFETY: rows below `job.rows`, for which the caller vouches.
    unsafe {
        for i in (0..job.rows - job.rows % 2).step_by(2) {
            tile::<V, S, 2, NV, CUT>(job, a, i);
        }
        if job.rows % 2 == 1 {
            tile::<V, S, 1, NV, CUT>(job, a, job.rows - 1);
        }
    }
}

/// `R` rows from `i` on. A factor of one row that is the background beside one of the other that is not
/// adds a zero.
#[inline(always)]
unsafe fn tile<V: Vector, S: Source<V>, const R: usize, const NV: usize, const CUT: bool>(
    job: &Job<'_>,
    a: S,
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
        for q in 0..job.count {
            let mut word = named(q);
            if S::TOGETHER == 1 {
                word = (word | word >> 1) & EVEN;
            }
            let first = i * job.a_row + q * WORD * job.a_step;
            let b = job.b.wrapping_add((q * WORD >> S::TOGETHER) * job.b_row);
            while word != 0 {
                let term = word.trailing_zeros() as usize;
                word &= word - 1;
                let b = b.add((term >> S::TOGETHER) * job.b_row);
                let x: [V; R] =
                    std::array::from_fn(|r| a.factor(first + r * job.a_row + term * job.a_step));
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

/// The body of every [`Differ`] of numbers.
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

/// A [`Differ`] of bytes. `mask` gives the word of 64 bytes.
///
/// # Safety
/// As for [`Differ`]; `mask` reads 64 bytes.
#[inline(always)]
pub(super) unsafe fn differ_bytes(
    from: *const u8,
    len: usize,
    background: u8,
    words: *mut u64,
    mask: impl Fn(*const u8) -> u64,
) {
    // SAFETY: the caller guarantees every address; the last, partial group is read from a copy.
    unsafe {
        let whole = len / WORD;
        for q in 0..whole {
            *words.add(q) = mask(from.add(q * WORD));
        }
        if len > whole * WORD {
            let mut last = [background; WORD];
            let left = from.add(whole * WORD);
            std::ptr::copy_nonoverlapping(left, last.as_mut_ptr(), len - whole * WORD);
            *words.add(whole) = mask(last.as_ptr());
        }
    }
}
