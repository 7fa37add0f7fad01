//! Register tiles for AVX2 whose last vector is shared by two rows.
//!
//! Twenty columns are two vectors and half of a third. Here two rows put their last four columns into one:
//!
//! ```text
//!            B   [ b0 .. b7 ] [ b8 .. b15 ]    [ b16..b19 | b16..b19 ]
//!      A   x0    [   c00    ] [    c01    ]    each half of the sums has the x of its row
//!          x1    [   c10    ] [    c11    ]    [    x0    |    x1    ]
//! ```
//!
//! Each number is the same chain of fused multiply-adds as in the tiles of [`kernel`](super::kernel).
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Call, Shared, Tile};

/// Numbers in a vector.
const LANES: usize = 8;

/// Rows that share a vector.
const SHARE: usize = 2;

/// Tiles of `MR` rows of `NV` vectors and four numbers more. What [`Call::last`] says is not looked at.
///
/// # Safety
/// As for [`Tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const MR: usize, const NV: usize>(call: &Call<'_>) {
    for i in 0..call.tiles {
        // SAFETY: the instruction set is enabled here; the addresses are the caller's.
        unsafe { one::<MR, NV>(&call.tile(i, MR)) };
    }
}

/// One [`tile`].
///
/// # Safety
/// As for [`Tile`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn one<const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: the instruction set is enabled here; the addresses are the caller's: four numbers are read
    // and written past the `NV` vectors of each row, and no more.
    unsafe {
        if call.add {
            for i in 0..MR {
                for v in 0..=NV {
                    let at = call.c.wrapping_add(i * call.c_row + v * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(at.cast());
                }
            }
        }
        let mut acc = [[_mm256_setzero_ps(); NV]; MR];
        // The first `MR.div_ceil(SHARE)` are used.
        let mut shared = [_mm256_setzero_ps(); MR];
        for tap in call.taps {
            let mut a = call.a.wrapping_add(tap.a);
            let mut b = call.b.wrapping_add(tap.b);
            for _ in 0..call.k {
                let mut row = [_mm256_setzero_ps(); NV];
                for (v, x) in row.iter_mut().enumerate() {
                    *x = _mm256_loadu_ps(b.add(v * LANES));
                }
                let rest = _mm_loadu_ps(b.add(NV * LANES));
                let rest = _mm256_set_m128(rest, rest);
                let mut above = _mm256_setzero_ps();
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(i * call.a_row));
                    for (acc, &b) in acc.iter_mut().zip(&row) {
                        *acc = _mm256_fmadd_ps(x, b, *acc);
                    }
                    if i % SHARE == 0 {
                        above = x;
                    }
                    if i % SHARE == 1 || i + 1 == MR {
                        let mixed = _mm256_blend_ps::<0xF0>(above, x);
                        shared[i / SHARE] = _mm256_fmadd_ps(mixed, rest, shared[i / SHARE]);
                    }
                }
                // With no term, or past the last, these may point outside the operands.
                a = a.wrapping_add(call.a_step);
                b = b.wrapping_add(call.b_row);
            }
        }
        if let Some(scale) = call.scale {
            let scale = _mm256_set1_ps(scale);
            for acc in &mut acc {
                for sum in acc {
                    *sum = _mm256_mul_ps(scale, *sum);
                }
            }
            for sum in &mut shared {
                *sum = _mm256_mul_ps(scale, *sum);
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            let at = call.c.add(i * call.c_row);
            for (v, &sum) in acc.iter().enumerate() {
                let at = at.add(v * LANES);
                let sum = if call.add {
                    _mm256_add_ps(_mm256_loadu_ps(at), sum)
                } else {
                    sum
                };
                _mm256_storeu_ps(at, sum);
            }
            let sums = shared[i / SHARE];
            let sum = if i % SHARE == 0 {
                _mm256_castps256_ps128(sums)
            } else {
                _mm256_extractf128_ps::<1>(sums)
            };
            let at = at.add(NV * LANES);
            let sum = if call.add {
                _mm_add_ps(_mm_loadu_ps(at), sum)
            } else {
                sum
            };
            _mm_storeu_ps(at, sum);
        }
    }
}

// Sixteen registers: the sums, what rows share of them, a row of B, two broadcasts.
const ONE_AND_A_HALF: [Tile; 8] = tiles!(1: 1 2 3 4 5 6 7 8);
const TWO_AND_A_HALF: [Tile; 4] = tiles!(2: 1 2 3 4);

/// The tiles of all widths, the widest first.
pub(super) static TILES: [Shared; 2] = [
    Shared {
        cols: 20,
        fewest: 20,
        share: SHARE,
        tiles: &TWO_AND_A_HALF,
        near: &TWO_AND_A_HALF,
        by_terms: &[],
    },
    Shared {
        cols: 12,
        fewest: 12,
        share: SHARE,
        tiles: &ONE_AND_A_HALF,
        near: &ONE_AND_A_HALF,
        by_terms: &[],
    },
];
