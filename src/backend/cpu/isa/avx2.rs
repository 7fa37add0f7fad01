//! Kernels for CPUs with AVX2 and FMA.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::Isa;
use super::super::table::Table;
use super::kernel::{self, Vector};
use super::sparse::{self, Compare, SparseKernels};
use super::winograd::{self, Job, Transform};
use super::{Blocking, Call, Matrices, Tile, avx2_shared};

/// The first lanes of a vector.
#[derive(Clone, Copy)]
pub(super) struct First {
    mask: __m256i,
    lanes: usize,
}

/// `LANES` ones and as many zeros: a window onto it is a mask.
static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

// SAFETY: uses AVX2 and FMA only, which callers have made sure of.
unsafe impl Vector for __m256 {
    const LANES: usize = 8;
    type Mask = First;
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> First {
        // SAFETY: with `lanes <= 8` the window lies inside the array.
        let mask = unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - lanes).cast()) };
        First { mask, lanes }
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 8 numbers and the instruction set.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, first: First) -> Self {
        // SAFETY: lanes outside the mask are not read.
        unsafe { _mm256_maskload_ps(from, first.mask) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 8 numbers and the instruction set.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, First { lanes, .. }: First) {
        // Four, two and one: AMD's masked store takes a dozen cycles.
        // SAFETY: the caller vouches for `lanes` numbers and the instruction set.
        unsafe {
            if lanes == 8 {
                return self.store(to);
            }
            let (mut left, mut to) = (_mm256_castps256_ps128(self), to);
            if lanes & 4 != 0 {
                _mm_storeu_ps(to, left);
                (left, to) = (_mm256_extractf128_ps::<1>(self), to.add(4));
            }
            if lanes & 2 != 0 {
                _mm_storel_pd(to.cast(), _mm_castps_pd(left));
                (left, to) = (_mm_movehl_ps(left, left), to.add(2));
            }
            if lanes & 1 != 0 {
                _mm_store_ss(to, left);
            }
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a hint; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_mul_ps(self, other) }
    }
}

// SAFETY: as for `Vector`.
unsafe impl Compare for __m256 {
    #[inline(always)]
    unsafe fn differs(self, other: Self) -> u64 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(self, other)) as u64 }
    }
}

/// A tile of `MR` rows and `NV` vectors.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::tile::<__m256, MR, NV>(call) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn copy(m: &Matrices, rows: usize, cols: usize) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::copy::<__m256>(m, rows, cols) }
}

/// Eight rows by four columns at a time, in registers.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose(m: &Matrices, rows: usize, cols: usize) {
    if rows < 8 || cols < 4 {
        // SAFETY: the addresses are the caller's.
        return unsafe { kernel::transpose(m, rows, cols) };
    }
    // The last rows and columns may overlap those before, which they write once more.
    for i in (0..rows).step_by(8).map(|i| i.min(rows - 8)) {
        for j in (0..cols).step_by(4).map(|j| j.min(cols - 4)) {
            let pair = |r: usize| {
                let at = |i: usize| m.src.wrapping_add(i * m.src_row + j);
                // SAFETY: `i + 8 <= rows` and `j + 4 <= cols`.
                let [low, high] = [r, r + 4].map(|r| unsafe { _mm_loadu_ps(at(i + r)) });
                _mm256_set_m128(high, low)
            };
            let v = [pair(0), pair(1), pair(2), pair(3)];
            let low = _mm256_castps_pd(_mm256_unpacklo_ps(v[0], v[1]));
            let high = _mm256_castps_pd(_mm256_unpackhi_ps(v[0], v[1]));
            let low2 = _mm256_castps_pd(_mm256_unpacklo_ps(v[2], v[3]));
            let high2 = _mm256_castps_pd(_mm256_unpackhi_ps(v[2], v[3]));
            let columns = [
                _mm256_unpacklo_pd(low, low2),
                _mm256_unpackhi_pd(low, low2),
                _mm256_unpacklo_pd(high, high2),
                _mm256_unpackhi_pd(high, high2),
            ];
            for (c, &column) in columns.iter().enumerate() {
                // SAFETY: as above.
                unsafe {
                    let to = m.dst.add((j + c) * m.dst_row + i);
                    _mm256_storeu_ps(to, _mm256_castpd_ps(column));
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn winograd(transform: Transform, job: &Job<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { winograd::run::<__m256, 6>(transform, job) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn differ(from: *const f32, len: usize, background: f32, words: *mut u64) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { sparse::differ::<__m256>(from, len, background, words) }
}

/// Whoever has AVX-512 has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn differ_bytes(from: *const u8, len: usize, background: u8, words: *mut u64) {
    let other = _mm256_set1_epi8(background as i8);
    let equal = |at: *const u8| {
        // SAFETY: the caller vouches for 32 bytes.
        let bytes = unsafe { _mm256_loadu_si256(at.cast()) };
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, other)) as u32
    };
    let mask =
        |at: *const u8| !(u64::from(equal(at)) | u64::from(equal(at.wrapping_add(32))) << 32);
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { sparse::differ_bytes(from, len, background, words, mask) }
}

/// The rows of a product whose left factor is mostly one value.
#[target_feature(enable = "avx2,fma")]
unsafe fn sparse_rows<const NV: usize>(job: &sparse::Job<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { sparse::rows::<__m256, 1, NV>(job) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn burn(rounds: usize) -> f32 {
    // SAFETY: the instruction set is enabled here; there are no addresses.
    unsafe { kernel::burn::<__m256, 12>(rounds) }
}

// Sixteen registers: 12 x 1 and 6 x 2 vectors leave four for B, the broadcast and the mask. 4 x 3 would leave one too
// few: the compiler then moves registers about in the innermost loop.
const ONE: [Tile; 12] = tiles!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
const TWO: [Tile; 6] = tiles!(2: 1 2 3 4 5 6);
const THREE: [Tile; 3] = tiles!(3: 1 2 3);

// One row of at most thirteen vectors, a factor, what is taken off it. With two rows of five the bits are gone through
// three times for a hundred columns, and half of the terms that they name are those of the other row alone.
const SPARSE: [sparse::Rows; 13] = sparse_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13);

/// The table of a CPU with AVX2 and FMA.
pub(crate) static TABLE: Table = {
    let blocking = Blocking {
        nv: 2,
        mc: 96,
        nc: 1024,
        kc: 352,
        cached: 1 << 17,
    };
    // SAFETY: `dispatch` hands this table out only where AVX2 and FMA were detected, and entry `i`
    // of the list for `v` vectors is the tile of `i + 1` rows and `v` vectors of 8 lanes; so it is in the
    // lists of `avx2_shared`, for their columns.
    unsafe {
        Table::new(
            Isa::Avx2,
            8,
            [&ONE, &TWO, &THREE, &[]],
            [copy, transpose],
            winograd,
            (burn, 12),
            Some(blocking),
        )
        .with_sparse(SparseKernels::new(8, (differ, differ_bytes), &SPARSE))
        .with_shared(&avx2_shared::TILES)
    }
};
