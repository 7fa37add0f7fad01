//! What the AVX-512 tiles have in common whose last columns share a vector, by rows ([`avx512_shared`]) or by terms
//! ([`avx512_by_terms`]): how operands are read, and how the sums are written.
//!
//! [`avx512_shared`]: super::avx512_shared
//! [`avx512_by_terms`]: super::avx512_by_terms
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::Call;

/// Numbers in a vector.
pub(super) const LANES: usize = 16;

/// A vector of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes(of: impl Fn(usize) -> usize) -> __m512i {
    let lanes: [i32; LANES] = std::array::from_fn(|lane| of(lane) as i32);
    // SAFETY: sixteen numbers.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// Asks for the destination of `MR` rows of `NV` vectors and a part of one, if it will be read.
///
/// # Safety
/// The numbers of the destination may be read and written.
#[inline(always)]
pub(super) unsafe fn ask<const MR: usize, const NV: usize>(call: &Call<'_>) {
    if call.add {
        for i in 0..MR {
            for v in 0..=NV {
                // SAFETY: a number of the destination, which the caller vouches for.
                unsafe {
                    let at = call.c.add(i * call.c_row + v * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(at.cast());
                }
            }
        }
    }
}

/// `NV` vectors of neighbours.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read.
#[inline(always)]
pub(super) unsafe fn vectors<const NV: usize>(from: *const f32) -> [__m512; NV] {
    // SAFETY: the caller vouches for both.
    unsafe {
        let mut vectors = [_mm512_setzero_ps(); NV];
        for (v, x) in vectors.iter_mut().enumerate() {
            *x = _mm512_loadu_ps(from.add(v * LANES));
        }
        vectors
    }
}

/// `SHARE` neighbours, 2 or 4, again and again.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read.
#[inline(always)]
pub(super) unsafe fn repeated<const SHARE: usize>(from: *const f32) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe {
        if SHARE == 4 {
            _mm512_broadcast_f32x4(_mm_loadu_ps(from))
        } else {
            _mm512_castpd_ps(_mm512_set1_pd(from.cast::<f64>().read_unaligned()))
        }
    }
}

/// Writes the sums of `MR` rows as the call wants it, scaled and added: `NV` vectors of each row and `LANES / SHARE`
/// numbers more, or those of four that are `wanted`, which lie in the first vectors of `shared`, row after row.
///
/// # Safety
/// The CPU has AVX-512F, and the numbers of the destination may be read and written.
#[inline(always)]
pub(super) unsafe fn finish<const MR: usize, const NV: usize, const SHARE: usize>(
    call: &Call<'_>,
    mut acc: [[__m512; NV]; MR],
    mut shared: [__m512; MR],
    wanted: Option<u16>,
) {
    // SAFETY: the instruction set and the addresses are the caller's.
    unsafe {
        if let Some(scale) = call.scale {
            let scale = _mm512_set1_ps(scale);
            for acc in &mut acc {
                for sum in acc {
                    *sum = _mm512_mul_ps(scale, *sum);
                }
            }
            for sum in &mut shared {
                *sum = _mm512_mul_ps(scale, *sum);
            }
        }
        if call.add {
            put::<MR, NV, SHARE, true>(call, &acc, &shared, wanted);
        } else {
            put::<MR, NV, SHARE, false>(call, &acc, &shared, wanted);
        }
    }
}

/// Writes what is scaled already, or adds it if `ADD`.
///
/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn put<const MR: usize, const NV: usize, const SHARE: usize, const ADD: bool>(
    call: &Call<'_>,
    acc: &[[__m512; NV]; MR],
    shared: &[__m512; MR],
    wanted: Option<u16>,
) {
    // SAFETY: the instruction set and the addresses are the caller's.
    unsafe {
        for (i, acc) in acc.iter().enumerate() {
            for (v, &sum) in acc.iter().enumerate() {
                let at = call.c.add(i * call.c_row + v * LANES);
                let sum = if ADD {
                    _mm512_add_ps(_mm512_loadu_ps(at), sum)
                } else {
                    sum
                };
                _mm512_storeu_ps(at, sum);
            }
        }
        for (rows, &sums) in shared.iter().enumerate().take(MR.div_ceil(SHARE)) {
            let at = |q: usize| (call.c).add((rows * SHARE + q) * call.c_row + NV * LANES);
            let left = MR - rows * SHARE;
            if SHARE == 4 {
                write_4::<ADD>(at(0), _mm512_castps512_ps128(sums), wanted);
                if left > 1 {
                    write_4::<ADD>(at(1), _mm512_extractf32x4_ps::<1>(sums), wanted);
                }
                if left > 2 {
                    write_4::<ADD>(at(2), _mm512_extractf32x4_ps::<2>(sums), wanted);
                }
                if left > 3 {
                    write_4::<ADD>(at(3), _mm512_extractf32x4_ps::<3>(sums), wanted);
                }
            } else {
                write_8::<ADD>(at(0), _mm512_castps512_ps256(sums));
                if left > 1 {
                    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sums));
                    write_8::<ADD>(at(1), _mm256_castpd_ps(high));
                }
            }
        }
    }
}

/// Writes or adds four numbers, or those under a mask.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read and written.
#[inline(always)]
unsafe fn write_4<const ADD: bool>(at: *mut f32, sum: __m128, wanted: Option<u16>) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let sum = if ADD {
            _mm_add_ps(four(at, wanted), sum)
        } else {
            sum
        };
        match wanted {
            None => _mm_storeu_ps(at, sum),
            Some(wanted) => _mm512_mask_storeu_ps(at, wanted, _mm512_castps128_ps512(sum)),
        }
    }
}

/// Four numbers, or those under a mask and zeros.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read.
#[inline(always)]
pub(super) unsafe fn four(from: *const f32, wanted: Option<u16>) -> __m128 {
    // SAFETY: the caller vouches for both.
    unsafe {
        match wanted {
            None => _mm_loadu_ps(from),
            Some(wanted) => _mm512_castps512_ps128(_mm512_maskz_loadu_ps(wanted, from)),
        }
    }
}

/// Writes or adds eight numbers.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read and written.
#[inline(always)]
unsafe fn write_8<const ADD: bool>(at: *mut f32, sum: __m256) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let sum = if ADD {
            _mm256_add_ps(_mm256_loadu_ps(at), sum)
        } else {
            sum
        };
        _mm256_storeu_ps(at, sum);
    }
}
