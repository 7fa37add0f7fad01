//! Kernels for CPUs with AVX-512F.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::Isa;
use super::super::table::Table;
use super::kernel::{self, Vector};
use super::sparse::{self, Compare, SparseKernels};
use super::winograd::{self, Job, Transform};
use super::{Blocking, Call, Matrices, Tile, avx2, avx512_shared};

/// The first `lanes` bits, `0 ..= 16`.
pub(super) fn bits(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as u16
}

// SAFETY: uses AVX-512F only, which callers have made sure of.
unsafe impl Vector for __m512 {
    const LANES: usize = 16;
    type Mask = __mmask16;
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __mmask16 {
        bits(lanes)
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 numbers and the instruction set.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
        // SAFETY: lanes outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 numbers and the instruction set.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
        // SAFETY: lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask, self) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a hint; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(at: *const f32) {
        // SAFETY: a hint; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_mul_ps(self, other) }
    }
}

// SAFETY: as for `Vector`.
unsafe impl Compare for __m512 {
    #[inline(always)]
    unsafe fn differs(self, other: Self) -> u64 {
        // SAFETY: the caller vouches for the instruction set.
        u64::from(unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self, other) })
    }
}

/// A tile of `MR` rows and `NV` vectors.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::tile::<__m512, MR, NV>(call) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn copy(m: &Matrices, rows: usize, cols: usize) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::copy::<__m512>(m, rows, cols) }
}

/// Numbers ahead of those in hand that a transposition asks for, if rows are as long. Otherwise it asks for the same ones of
/// sixteen rows further down.
const AHEAD: usize = 128;

/// Transposes 16 rows by 4 columns at a time. Register `r` takes rows `r`, `4 + r`, `8 + r` and
/// `12 + r` as they are loaded, a quarter each; turning over the 4 x 4 numbers in the same quarter of
/// the four registers then leaves a whole column in each.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(m: &Matrices, rows: usize, cols: usize) {
    if cols < 4 {
        // SAFETY: the addresses are the caller's.
        return unsafe { kernel::transpose(m, rows, cols) };
    }
    let ahead = if cols < AHEAD { 16 * m.src_row } else { AHEAD };
    for i0 in (0..rows).step_by(16) {
        let height = (rows - i0).min(16);
        // Rows past the end repeat the last one; the mask keeps them out of the destination.
        let row: [*const f32; 16] =
            std::array::from_fn(|i| m.src.wrapping_add((i0 + i.min(height - 1)) * m.src_row));
        for j in (0..cols).step_by(4) {
            // The last four columns may overlap those before, which they write once more.
            let j = j.min(cols - 4);
            let gather = |r: usize| {
                // SAFETY: all rows are below `rows`, and `j + 4 <= cols`; a prefetch may be of any
                // address.
                unsafe {
                    if j % 16 == 0 {
                        for row in row.iter().skip(r).step_by(4) {
                            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(j + ahead).cast());
                        }
                    }
                    let v = _mm512_castps128_ps512(_mm_loadu_ps(row[r].add(j)));
                    let v = _mm512_insertf32x4::<1>(v, _mm_loadu_ps(row[4 + r].add(j)));
                    let v = _mm512_insertf32x4::<2>(v, _mm_loadu_ps(row[8 + r].add(j)));
                    _mm512_insertf32x4::<3>(v, _mm_loadu_ps(row[12 + r].add(j)))
                }
            };
            let v = [gather(0), gather(1), gather(2), gather(3)];
            let low = _mm512_castps_pd(_mm512_unpacklo_ps(v[0], v[1]));
            let high = _mm512_castps_pd(_mm512_unpackhi_ps(v[0], v[1]));
            let low2 = _mm512_castps_pd(_mm512_unpacklo_ps(v[2], v[3]));
            let high2 = _mm512_castps_pd(_mm512_unpackhi_ps(v[2], v[3]));
            let columns = [
                _mm512_unpacklo_pd(low, low2),
                _mm512_unpackhi_pd(low, low2),
                _mm512_unpacklo_pd(high, high2),
                _mm512_unpackhi_pd(high, high2),
            ];
            for (c, &column) in columns.iter().enumerate() {
                let column = _mm512_castpd_ps(column);
                // SAFETY: `j + c < cols`, and the mask ends at row `rows`.
                unsafe {
                    let to = m.dst.add((j + c) * m.dst_row + i0);
                    if height == 16 {
                        _mm512_storeu_ps(to, column);
                    } else {
                        _mm512_mask_storeu_ps(to, bits(height), column);
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn winograd(transform: Transform, job: &Job<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { winograd::run::<__m512, 3>(transform, job) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn differ(from: *const f32, len: usize, background: f32, words: *mut u64) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { sparse::differ::<__m512>(from, len, background, words) }
}

/// The rows of a product whose left factor is mostly one value.
#[target_feature(enable = "avx512f")]
unsafe fn sparse_rows<const NV: usize>(job: &sparse::Job<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { sparse::rows::<__m512, 2, NV>(job) }
}

#[target_feature(enable = "avx512f")]
unsafe fn burn(rounds: usize) -> f32 {
    // SAFETY: the instruction set is enabled here; there are no addresses.
    unsafe { kernel::burn::<__m512, 16>(rounds) }
}

// Thirty-two registers: rows times vectors of sums, one register for each vector of B, one broadcast.
const ONE: [Tile; 14] = tiles!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
const TWO: [Tile; 14] = tiles!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
const THREE: [Tile; 9] = tiles!(3: 1 2 3 4 5 6 7 8 9);
const FOUR: [Tile; 6] = tiles!(4: 1 2 3 4 5 6);

// Two rows of at most eight vectors, one vector of B, two broadcasts, what is taken off them, the mask.
const SPARSE: [sparse::Rows; 8] = sparse_rows!(1 2 3 4 5 6 7 8);

/// The table of a CPU with AVX-512F.
pub(crate) static TABLE: Table = {
    let blocking = Blocking {
        nv: 2,
        mc: 112,
        nc: 1024,
        kc: 512,
        cached: 1 << 17,
    };
    // SAFETY: `dispatch` hands this table out only where AVX-512F was detected, and entry `i` of
    // the list for `v` vectors is the tile of `i + 1` rows and `v` vectors of 16 lanes; so it is in
    // the lists of `avx512_shared`, for their columns, and those by terms want of these what `Shared` says.
    unsafe {
        Table::new(
            Isa::Avx512,
            16,
            [&ONE, &TWO, &THREE, &FOUR],
            [copy, transpose],
            winograd,
            (burn, 16),
            Some(blocking),
        )
        .with_sparse(SparseKernels::new(
            16,
            (differ, avx2::differ_bytes),
            &SPARSE,
        ))
        .with_shared(&avx512_shared::TILES)
    }
};
