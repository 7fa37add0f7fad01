//! Kernels for CPUs with AVX512-BF16: sixteen pairs of products in an instruction.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::Isa;
use super::super::table::Table;
use super::bf16::{Packing, PairKernels};
use super::kernel::{self, Vector};
use super::sparse::{self, SparseKernels};
use super::{Call, Tile, avx2, avx512};

/// Whether this CPU has the instructions.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether a product of words takes as long as one of numbers, so that it has twice the speed. It does on AMD's CPUs
/// that have the instructions, from Zen 4 on; on Intel's, which leave such products to AMX, it takes four times as
/// long (measured on family 6, model 207), so that f32 has twice its speed.
#[allow(unused_unsafe)] // Newer compilers call this function safe.
pub(super) fn fast() -> bool {
    // SAFETY: every x86-64 CPU has CPUID.
    let vendor = unsafe { __cpuid(0) };
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes) == [*b"Auth", *b"enti", *b"cAMD"]
}

/// Sixteen sums, or sixteen words.
#[derive(Clone, Copy)]
struct Words(__m512);

// SAFETY: uses AVX-512F and AVX512-BF16 only, which callers have made sure of.
unsafe impl Vector for Words {
    const LANES: usize = 16;
    type Mask = __mmask16;
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __mmask16 {
        avx512::bits(lanes)
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Words(unsafe { _mm512_setzero_ps() })
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Words(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 words and the instruction set.
        Words(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
        // SAFETY: lanes outside the mask are not read.
        Words(unsafe { _mm512_maskz_loadu_ps(mask, from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 numbers and the instruction set.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
        // SAFETY: lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask, self.0) }
    }
    /// Adds the products of both terms of each word.
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set; a word is two bfloat16 numbers.
        unsafe {
            let pairs = |v: Words| std::mem::transmute::<__m512, __m512bh>(v.0);
            Words(_mm512_dpbf16_ps(self.0, pairs(a), pairs(b)))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a hint; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Words(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Words(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Words(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
}

/// A tile of `MR` rows and `NV` vectors.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::tile::<Words, MR, NV>(call) }
}

/// The rows of a product whose left factor is mostly one value.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn sparse_rows<const NV: usize>(job: &sparse::Job<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { sparse::rows_of_pairs::<Words, NV>(job) }
}

/// Sums that are added to at the same time: enough for the six cycles that each takes.
const BURN: usize = 24;

/// Adds products of zeros: a word has no number that stays what it is when it is multiplied and added to.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn burn(rounds: usize) -> f32 {
    // SAFETY: the instruction set is enabled here; there are no addresses.
    unsafe {
        let x = Words::splat(std::hint::black_box(0.0));
        let mut sums = [x; BURN];
        for sum in &mut sums {
            // Equal chains would be computed once.
            *sum = Words::splat(std::hint::black_box(0.0));
        }
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.add_product(x, x);
            }
        }
        let total = sums.into_iter().fold(x, |total, sum| total.add(sum));
        _mm512_cvtss_f32(total.0)
    }
}

/// The words of `x` and then those of `y`, terms in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(x: __m512, y: __m512) -> __m512i {
    // SAFETY: both types are 512 plain bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(y, x)) }
}

/// What rounding took from `x` and `y`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rest(x: __m512, y: __m512, high: __m512i) -> (__m512, __m512) {
    let widen = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
    let (of_x, of_y) = (
        _mm512_castsi512_si256(high),
        _mm512_extracti64x4_epi64::<1>(high),
    );
    (_mm512_sub_ps(x, widen(of_x)), _mm512_sub_ps(y, widen(of_y)))
}

/// Words of neighbouring columns, sixteen at a time.
///
/// # Safety
/// As for [`Pack`](super::bf16::Pack).
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn along(p: &Packing) {
    let lanes = |left: usize| avx512::bits(left.min(16));
    for i in 0..p.rows {
        let src = p.src.wrapping_add(i * p.src_row);
        let dst = p.dst.wrapping_add(i * p.dst_row);
        for word in (0..p.depth).step_by(16) {
            let left = p.cols.saturating_sub(2 * word);
            let stored = lanes(p.depth - word);
            let at = src.wrapping_add(2 * word);
            // SAFETY: lanes past the source are not read, and become zero; words past `depth` are not
            // written.
            unsafe {
                let x = _mm512_maskz_loadu_ps(lanes(left), at);
                let after = at.wrapping_add(16);
                let y = _mm512_maskz_loadu_ps(lanes(left.saturating_sub(16)), after);
                let high = rounded(x, y);
                let to = dst.add(word);
                _mm512_mask_storeu_epi32(to.cast(), stored, high);
                if let Some(low) = p.low {
                    let (x, y) = rest(x, y, high);
                    _mm512_mask_storeu_epi32(to.add(low).cast(), stored, rounded(x, y));
                }
            }
        }
    }
}

/// The order that brings the terms of two rows together: 0, 16, 1, 17, ..
const TOGETHER: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    order
};

/// Words of neighbouring rows, sixteen columns at a time.
///
/// # Safety
/// As for [`Pack`](super::bf16::Pack).
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn across(p: &Packing) {
    // SAFETY: the array is 64 bytes.
    let together = unsafe { _mm512_loadu_si512(TOGETHER.as_ptr().cast()) };
    for word in 0..p.depth {
        let there = |row: usize, mask: __mmask16| if row < p.rows { mask } else { 0 };
        let even = p.src.wrapping_add(2 * word * p.src_row);
        let odd = even.wrapping_add(p.src_row);
        let dst = p.dst.wrapping_add(word * p.dst_row);
        for j in (0..p.cols).step_by(16) {
            let mask = avx512::bits((p.cols - j).min(16));
            // SAFETY: rows past the source are not read, and become zero; `mask` ends with the columns.
            unsafe {
                let x = _mm512_maskz_loadu_ps(there(2 * word, mask), even.wrapping_add(j));
                let y = _mm512_maskz_loadu_ps(there(2 * word + 1, mask), odd.wrapping_add(j));
                let high = rounded(x, y);
                let to = dst.add(j);
                let words = _mm512_permutexvar_epi16(together, high);
                _mm512_mask_storeu_epi32(to.cast(), mask, words);
                if let Some(low) = p.low {
                    let (x, y) = rest(x, y, high);
                    let words = _mm512_permutexvar_epi16(together, rounded(x, y));
                    _mm512_mask_storeu_epi32(to.add(low).cast(), mask, words);
                }
            }
        }
    }
}

const ONE: [Tile; 14] = tiles!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
const TWO: [Tile; 14] = tiles!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
const THREE: [Tile; 9] = tiles!(3: 1 2 3 4 5 6 7 8 9);
const FOUR: [Tile; 6] = tiles!(4: 1 2 3 4 5 6);

const SPARSE: [sparse::Rows; 8] = sparse_rows!(1 2 3 4 5 6 7 8);

/// Sparse products of words.
pub(super) const SPARSE_PAIRS: SparseKernels = {
    // SAFETY: handed out only where AVX512-BF16 was detected, here and with AMX; vectors are of 16 words.
    unsafe { SparseKernels::new(16, (avx512::differ, avx2::differ_bytes), &SPARSE).of_pairs() }
};

/// The kernels of a CPU with AVX512-BF16.
pub(crate) static KERNELS: PairKernels = {
    // SAFETY: `present` hands these kernels out only where their instructions were detected; entry `i` of
    // the list for `v` vectors is the tile of `i + 1` rows and `v` vectors, and a round of `burn` is two
    // products in each lane of `BURN` vectors.
    unsafe {
        let table = Table::new(
            Isa::Avx512,
            16,
            [&ONE, &TWO, &THREE, &FOUR],
            [avx512::copy, avx512::transpose],
            avx512::winograd,
            (burn, 2 * BURN),
            None,
        )
        .with_sparse(SPARSE_PAIRS);
        PairKernels::new(("avx512-bf16", Isa::Avx512), table, [along, across], 1)
    }
};
