//! Kernels that multiply bfloat16 numbers and add in f32.
//!
//! bfloat16 is the upper half of an f32: 8 bits of exponent, 7 of fraction. The hardware adds two
//! products at a time, so the terms of a sum lie in *words*: term `2p` in the lower half of 32 bits,
//! term `2p + 1` in the upper half, zero where the number of terms is odd. A matrix of words is stored
//! like one of f32, so tiles, taps, copies and transpositions are those of f32, with half as many terms:
//!
//! ```text
//! A  [row][p]        x00·x01 | x02·x03 | ..      terms of a row side by side
//! B  [p][column]     y00·y10 | y01·y11 | ..      terms 2p and 2p + 1 of a column side by side
//! ```
//!
//! A number can be split in two: `high = round(x)`, `low = round(x - high)`. Then `low` has a *plane* of
//! words of its own behind that of `high`.
#![allow(unsafe_code)]

use std::fmt;

use super::super::dispatch::Isa;
use super::super::table::Table;

/// The words of one operand are made by this.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// First word of the destination.
    pub dst: *mut f32,
    /// Distance between rows of the destination.
    pub dst_row: usize,
    /// First number of the source.
    pub src: *const f32,
    /// Distance between rows of the source.
    pub src_row: usize,
    /// Rows of the source.
    pub rows: usize,
    /// Columns of the source.
    pub cols: usize,
    /// Words written for the terms, of which those past the source are zero.
    pub depth: usize,
    /// Distance from a word of `high` to that of `low`, if numbers are split.
    pub low: Option<usize>,
}

/// Makes words from numbers.
///
/// # Safety
/// The CPU has the instructions of the kernels, `rows x cols` numbers may be read, and what the two
/// functions of [`PairKernels`] say is written may be written.
pub(super) type Pack = unsafe fn(&Packing);

/// The kernels of one way to multiply bfloat16 numbers. Whoever holds a `&'static PairKernels` from
/// [`present`] runs on a CPU that has the instructions, so its methods are safe.
pub(crate) struct PairKernels {
    name: &'static str,
    isa: Isa,
    table: Table,
    along: Pack,
    across: Pack,
    unit: usize,
}

impl fmt::Debug for PairKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PairKernels {
    /// Kernels for a static.
    ///
    /// # Safety
    /// The functions keep the contracts of their types on a CPU that has these kernels' instructions, and
    /// nothing but [`present`] (or a test, for kernels that need no instructions) hands them out.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(super) const unsafe fn new(
        (name, isa): (&'static str, Isa),
        table: Table,
        [along, across]: [Pack; 2],
        unit: usize,
    ) -> Self {
        // Kernels for numbers would read a matrix of words past its end.
        assert!(match table.sparse() {
            Some(kernels) => kernels.terms() == 2,
            None => true,
        });
        PairKernels {
            name,
            isa,
            table,
            along,
            across,
            unit,
        }
    }

    /// What they are called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The cap under which they are still used.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Copies, transposes and multiplies words as if they were numbers.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The words of a row of terms are padded to a multiple of this.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// Whether a product wants the words of a row of A side by side ([`Terms::a_step`] 1).
    ///
    /// [`Terms::a_step`]: super::super::terms::Terms::a_step
    pub fn upright(&self) -> bool {
        self.unit > 1
    }

    /// Whether they are faster than those of f32 on this CPU.
    pub fn fast(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let fast = super::avx512_bf16::fast();
        #[cfg(not(target_arch = "x86_64"))]
        let fast = false;
        fast || self.isa > Isa::Avx512
    }

    /// Words of neighbouring columns: `dst[i][p] = src[i][2p]·src[i][2p + 1]` for `p < depth`, and those of
    /// `low` at that distance.
    ///
    /// # Panics
    /// If an operand is too short.
    #[track_caller]
    pub fn along(
        &self,
        dst: (&mut [f32], usize),
        src: (&[f32], usize),
        (rows, cols): (usize, usize),
        (depth, low): (usize, Option<usize>),
    ) {
        let written = (rows, depth);
        self.pack(self.along, dst, src, (rows, cols), written, (depth, low));
    }

    /// Words of neighbouring rows: `dst[q][j] = src[2q][j]·src[2q + 1][j]` for `q < depth`, and those of
    /// `low` at that distance.
    ///
    /// # Panics
    /// If an operand is too short.
    #[track_caller]
    pub fn across(
        &self,
        dst: (&mut [f32], usize),
        src: (&[f32], usize),
        (rows, cols): (usize, usize),
        (depth, low): (usize, Option<usize>),
    ) {
        let written = (depth, cols);
        self.pack(self.across, dst, src, (rows, cols), written, (depth, low));
    }

    #[track_caller]
    fn pack(
        &self,
        kernel: Pack,
        (dst, dst_row): (&mut [f32], usize),
        (src, src_row): (&[f32], usize),
        (rows, cols): (usize, usize),
        written: (usize, usize),
        (depth, low): (usize, Option<usize>),
    ) {
        let holds = |len: usize, row: usize, (rows, cols): (usize, usize)| {
            let end = rows.saturating_sub(1).checked_mul(row);
            let end = end.and_then(|n| n.checked_add(cols));
            rows == 0 || cols == 0 || end.is_some_and(|end| end <= len)
        };
        let room = dst.len().checked_sub(low.unwrap_or(0));
        assert!(
            holds(src.len(), src_row, (rows, cols))
                && room.is_some_and(|room| holds(room, dst_row, written)),
            "words of {rows} x {cols} from {} numbers, {written:?} into {} ({low:?})",
            src.len(),
            dst.len()
        );
        let packing = Packing {
            dst: dst.as_mut_ptr(),
            dst_row,
            src: src.as_ptr(),
            src_row,
            rows,
            cols,
            depth,
            low,
        };
        // SAFETY: this CPU has the instructions (see `PairKernels`), the source holds its numbers and
        // the destination, exclusively ours, what is written of both planes (asserted).
        unsafe { kernel(&packing) }
    }
}

/// The kernels that this CPU can run, from the slowest to the fastest.
pub(crate) fn present() -> impl DoubleEndedIterator<Item = &'static PairKernels> {
    let present: [Option<&'static PairKernels>; 2] = [
        #[cfg(target_arch = "x86_64")]
        super::avx512_bf16::detected().then_some(&super::avx512_bf16::KERNELS),
        #[cfg(target_arch = "x86_64")]
        (super::avx512_bf16::detected() && super::amx::usable()).then_some(&super::amx::KERNELS),
        #[cfg(not(target_arch = "x86_64"))]
        None,
        #[cfg(not(target_arch = "x86_64"))]
        None,
    ];
    present.into_iter().flatten()
}

/// The bits of `x` rounded to bfloat16: to the nearest, ties to even. A NaN stays a NaN; what is too
/// small for a normal number becomes zero, as the hardware has it.
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    if x.is_subnormal() {
        return (bits >> 31 << 15) as u16;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The number with these bits.
#[cfg(test)]
pub(super) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// [`PairKernels::along`] and [`PairKernels::across`] in plain Rust.
#[cfg(test)]
pub(super) mod plain {
    use super::{Packing, round, widen};

    /// Writes the words of two terms.
    ///
    /// # Safety
    /// `at`, and `low` after it, may be written.
    unsafe fn write(at: *mut f32, low: Option<usize>, terms: [f32; 2]) {
        let high = terms.map(round);
        let word = |[even, odd]: [u16; 2]| f32::from_bits(u32::from(odd) << 16 | u32::from(even));
        // SAFETY: the caller's.
        unsafe {
            *at = word(high);
            if let Some(low) = low {
                let rest = [0, 1].map(|i| round(terms[i] - widen(high[i])));
                *at.add(low) = word(rest);
            }
        }
    }

    /// # Safety
    /// As for [`Pack`](super::Pack).
    pub unsafe fn along(p: &Packing) {
        for i in 0..p.rows {
            for word in 0..p.depth {
                let term = |j: usize| {
                    if j >= p.cols {
                        return 0.0;
                    }
                    // SAFETY: inside the source.
                    unsafe { *p.src.add(i * p.src_row + j) }
                };
                let terms = [term(2 * word), term(2 * word + 1)];
                // SAFETY: inside the destination.
                unsafe { write(p.dst.add(i * p.dst_row + word), p.low, terms) };
            }
        }
    }

    /// # Safety
    /// As for [`Pack`](super::Pack).
    pub unsafe fn across(p: &Packing) {
        for word in 0..p.depth {
            for j in 0..p.cols {
                let term = |i: usize| {
                    if i >= p.rows {
                        return 0.0;
                    }
                    // SAFETY: inside the source.
                    unsafe { *p.src.add(i * p.src_row + j) }
                };
                let terms = [term(2 * word), term(2 * word + 1)];
                // SAFETY: inside the destination.
                unsafe { write(p.dst.add(word * p.dst_row + j), p.low, terms) };
            }
        }
    }
}
