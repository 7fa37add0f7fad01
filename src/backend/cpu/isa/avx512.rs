//! Kernels for CPUs with AVX-512F.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::{Isa, Table};
use super::kernel::{self, Vector};
use super::{Blocking, Call, Matrices, Tile};

/// The first `lanes` bits, `0 ..= 16`.
fn bits(lanes: usize) -> __mmask16 {
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
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_add_ps(self, other) }
    }
}

/// A tile of `MR` rows and `NV` vectors.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::tile::<__m512, MR, NV>(call) }
}

#[target_feature(enable = "avx512f")]
unsafe fn copy(m: &Matrices, rows: usize, cols: usize) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's.
    unsafe { kernel::copy::<__m512>(m, rows, cols) }
}

/// Transposes blocks of 16 x 16 in registers. Call a number's row and lane in a block its eight-bit
/// address: interleaving vectors `i` and `i + 8` into `2i` and `2i + 1` rotates that address by one
/// bit, so doing it four times swaps row and lane.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(m: &Matrices, rows: usize, cols: usize) {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    for i0 in (0..rows).step_by(16) {
        let height = (rows - i0).min(16);
        for j0 in (0..cols).step_by(16) {
            let width = (cols - j0).min(16);
            let mut block = [_mm512_setzero_ps(); 16];
            for (i, v) in block.iter_mut().enumerate().take(height) {
                // SAFETY: row `i0 + i < rows`, and the mask ends at column `cols`.
                *v = unsafe {
                    _mm512_maskz_loadu_ps(bits(width), m.src.add((i0 + i) * m.src_row + j0))
                };
            }
            for _ in 0..4 {
                let before = block;
                for i in 0..8 {
                    block[2 * i] = _mm512_permutex2var_ps(before[i], low, before[i + 8]);
                    block[2 * i + 1] = _mm512_permutex2var_ps(before[i], high, before[i + 8]);
                }
            }
            for (j, &v) in block.iter().enumerate().take(width) {
                // SAFETY: row `j0 + j < cols` of the destination, whose mask ends at `rows`.
                unsafe {
                    _mm512_mask_storeu_ps(m.dst.add((j0 + j) * m.dst_row + i0), bits(height), v);
                }
            }
        }
    }
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

/// The table of a CPU with AVX-512F.
pub(crate) static TABLE: Table = {
    let blocking = Blocking {
        mr: 14,
        nv: 2,
        mc: 140,
        nc: 1024,
        kc: 1024,
    };
    // SAFETY: `dispatch` hands this table out only where AVX-512F was detected, and entry `i` of
    // the list for `v` vectors is the tile of `i + 1` rows and `v` vectors of 16 lanes.
    unsafe {
        Table::new(
            Isa::Avx512,
            16,
            [&ONE, &TWO, &THREE, &FOUR],
            [copy, transpose],
            (burn, 16),
            Some(blocking),
        )
    }
};
