//! Kernels of products whose left factor is mostly one value, the *background*: black pixels.
//!
//! Which factors differ from the background is written down as words of 64 bits, one word for 64 terms of
//! a row. A tile of one or two rows stays in registers while the bits of its words are gone through.
#![allow(unsafe_code)]

mod tile;
mod words;

pub(super) use tile::rows;
#[cfg(target_arch = "x86_64")]
pub(super) use tile::rows_of_pairs;
pub(crate) use words::words_down;
pub(super) use words::{differ, differ_bytes};

use super::super::terms::Finish;
use super::super::tiles::TileMut;
use super::bf16::round;
use super::kernel::Vector;
use std::ops::Range;

/// Terms that one word tells about.
pub(crate) const WORD: usize = 64;

/// Most vectors of a tile.
const MOST: usize = 13;

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
/// The CPU has the instruction set, and there are no fewer columns than lanes. For the rows `i`, the columns `j`
/// of the kernel's vectors (as cut by `last`) and every bit `t` of word `q` that is set and counts,
/// `words[i·word_row + q·word_step]`,
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
    pub const fn terms(&self) -> usize {
        1 + self.pairs as usize
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
