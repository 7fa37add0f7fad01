//! Register tiles for AVX-512 whose last vector is shared by some rows.
//!
//! Twenty columns are one vector and a quarter of another. A tile of two vectors for each row would leave
//! three eighths of its multiplications to lanes that nobody wants; here four rows put their last four
//! columns into one vector:
//!
//! ```text
//!            B   [ b0 .. b15 ]    [ b16..b19 | b16..b19 | b16..b19 | b16..b19 ]
//!      A   x0    [    c0     ]
//!          x1    [    c1     ]    each quarter of the sums
//!          x2    [    c2     ]    has the x of its row
//!          x3    [    c3     ]    [    x0    |    x1    |    x2    |    x3    ]
//! ```
//!
//! Putting the x of four rows into one vector takes three instructions, which on some CPUs take turns with the
//! multiplications. Where the rows of A are neighbours, as in a gradient of a weight, one load repeats the four; then
//! it is the numbers of B that are stretched:
//!
//! ```text
//!                                 [ b16 b16 b16 b16 | b17 .. | b18 .. | b19 .. ]
//!                                 [ x0  x1  x2  x3  | x0 ..  | x0 ..  | x0 ..  ]
//! ```
//!
//! Each number is the same chain of fused multiply-adds as in the tiles of [`kernel`](super::kernel).
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::hint::black_box;

use super::column::Column;
use super::{Call, Shared, Tile};

/// Numbers in a vector.
const LANES: usize = 16;

/// Tiles of `MR` rows of `NV` vectors and `LANES / SHARE` numbers more, which `SHARE` rows have in one
/// vector: 2 or 4. What [`Call::last`] says is not looked at.
///
/// # Safety
/// As for [`Tile`].
#[target_feature(enable = "avx512f")]
unsafe fn tile<const MR: usize, const NV: usize, const SHARE: usize>(call: &Call<'_>) {
    for i in 0..call.tiles {
        // SAFETY: the instruction set is enabled here; the addresses are the caller's.
        unsafe { one::<MR, NV, SHARE, false>(&call.tile(i, MR)) };
    }
}

/// [`tile`], where the rows of A are neighbours.
///
/// # Safety
/// As for [`Tile`].
#[target_feature(enable = "avx512f")]
unsafe fn near<const MR: usize, const NV: usize, const SHARE: usize>(call: &Call<'_>) {
    for i in 0..call.tiles {
        let call = Call {
            a_row: 1,
            ..call.tile(i, MR)
        };
        // SAFETY: the instruction set is enabled here; the addresses are the caller's.
        unsafe { one::<MR, NV, SHARE, true>(&call) };
    }
}

/// One [`tile`], or one of [`near`].
///
/// # Safety
/// As for [`Tile`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn one<const MR: usize, const NV: usize, const SHARE: usize, const NEAR: bool>(
    call: &Call<'_>,
) {
    const { assert!(SHARE == 2 || SHARE == 4) };
    // The lanes from those of row `q` on. The compiler, if it knew them, would mix by shuffles, which take
    // turns with the multiplications.
    let mut from = [0; SHARE];
    for (q, mask) in from.iter_mut().enumerate() {
        *mask = black_box(u16::MAX << (q * (LANES / SHARE)));
    }
    // The same for `NEAR`, and where its lanes come from when a row of B is stretched, and when the rows' sums are
    // put one after another.
    let every: u16 = if SHARE == 4 { 0x1111 } else { 0x5555 };
    let stretch = lanes(|lane| lane / SHARE);
    let order = lanes(|lane| lane % (LANES / SHARE) * SHARE + lane / (LANES / SHARE));
    // SAFETY: the instruction set is enabled here; the addresses are the caller's: `part` numbers are read
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
        let mut acc = [[_mm512_setzero_ps(); NV]; MR];
        // The first `MR.div_ceil(SHARE)` are used.
        let mut shared = [_mm512_setzero_ps(); MR];
        let mut ahead = call.ahead;
        for tap in call.taps {
            let mut a = Column::new(call.a.wrapping_add(tap.a), call.a_row, true);
            let mut b = call.b.wrapping_add(tap.b);
            let mut left = call.k;
            if SHARE == 4 && !NEAR && call.a_step == 1 {
                while left >= SHARE {
                    let quarters = quarters::<MR>(&a, &from);
                    if call.ahead_step > 0 {
                        for _ in 0..SHARE {
                            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                            ahead = ahead.wrapping_byte_add(call.ahead_step);
                        }
                    }
                    a.advance(0);
                    term::<MR, NV, 0>(&mut acc, &mut shared, &a, b, &quarters);
                    b = b.wrapping_add(call.b_row);
                    term::<MR, NV, 1>(&mut acc, &mut shared, &a, b, &quarters);
                    b = b.wrapping_add(call.b_row);
                    term::<MR, NV, 2>(&mut acc, &mut shared, &a, b, &quarters);
                    b = b.wrapping_add(call.b_row);
                    term::<MR, NV, 3>(&mut acc, &mut shared, &a, b, &quarters);
                    b = b.wrapping_add(call.b_row);
                    a.advance(SHARE);
                    left -= SHARE;
                }
            }
            for _ in 0..left {
                if call.ahead_step > 0 {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    ahead = ahead.wrapping_byte_add(call.ahead_step);
                }
                let mut row = [_mm512_setzero_ps(); NV];
                for (v, x) in row.iter_mut().enumerate() {
                    *x = _mm512_loadu_ps(b.add(v * LANES));
                }
                let rest = b.add(NV * LANES);
                let rest = match (NEAR, SHARE == 4) {
                    (false, true) => _mm512_broadcast_f32x4(_mm_loadu_ps(rest)),
                    (false, false) => {
                        _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_loadu_pd(rest.cast())))
                    }
                    (true, true) => {
                        let rest = _mm512_castps128_ps512(_mm_loadu_ps(rest));
                        _mm512_permutexvar_ps(stretch, rest)
                    }
                    (true, false) => {
                        let rest = _mm512_castps256_ps512(_mm256_loadu_ps(rest));
                        _mm512_permutexvar_ps(stretch, rest)
                    }
                };
                for (rows, shared) in shared.iter_mut().enumerate().take(MR.div_ceil(SHARE)) {
                    let mut mixed = _mm512_setzero_ps();
                    let here = SHARE.min(MR - rows * SHARE);
                    for (q, &from) in from.iter().enumerate().take(here) {
                        let i = rows * SHARE + q;
                        let x = _mm512_set1_ps(*a.at(i));
                        for (acc, &b) in acc[i].iter_mut().zip(&row) {
                            *acc = _mm512_fmadd_ps(x, b, *acc);
                        }
                        mixed = match q {
                            0 => x,
                            _ if NEAR => _mm512_mask_mov_ps(mixed, every << q, x),
                            _ => _mm512_mask_mov_ps(mixed, from, x),
                        };
                    }
                    if NEAR && here == SHARE {
                        let rows = a.at(rows * SHARE);
                        mixed = if SHARE == 4 {
                            _mm512_broadcast_f32x4(_mm_loadu_ps(rows))
                        } else {
                            _mm512_castpd_ps(_mm512_set1_pd(rows.cast::<f64>().read_unaligned()))
                        };
                    }
                    *shared = _mm512_fmadd_ps(mixed, rest, *shared);
                }
                // With no term, or past the last, these may point outside the operands.
                a.advance(call.a_step);
                b = b.wrapping_add(call.b_row);
            }
        }
        if NEAR {
            for sum in shared.iter_mut().take(MR.div_ceil(SHARE)) {
                *sum = _mm512_permutexvar_ps(order, *sum);
            }
        }
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
            finish::<MR, NV, SHARE, true>(call, &acc, &shared);
        } else {
            finish::<MR, NV, SHARE, false>(call, &acc, &shared);
        }
    }
}

/// Four terms of each four rows: a quarter of a vector for each row.
///
/// # Safety
/// The CPU has AVX-512F, and the terms may be read.
#[inline(always)]
unsafe fn quarters<const MR: usize>(a: &Column, from: &[u16]) -> [__m512; MR] {
    // SAFETY: the caller vouches for both.
    unsafe {
        let mut quarters = [_mm512_setzero_ps(); MR];
        for (rows, quarters) in quarters.iter_mut().enumerate().take(MR.div_ceil(4)) {
            for (q, &from) in from.iter().enumerate().take(4.min(MR - rows * 4)) {
                let terms = _mm512_broadcast_f32x4(_mm_loadu_ps(a.at(rows * 4 + q)));
                *quarters = match q {
                    0 => terms,
                    _ => _mm512_mask_mov_ps(*quarters, from, terms),
                };
            }
        }
        quarters
    }
}

/// Adds term `T` of four.
///
/// # Safety
/// The CPU has AVX-512F, and the numbers of A and B may be read.
#[inline(always)]
unsafe fn term<const MR: usize, const NV: usize, const T: usize>(
    acc: &mut [[__m512; NV]; MR],
    shared: &mut [__m512; MR],
    a: &Column,
    b: *const f32,
    quarters: &[__m512; MR],
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let mut row = [_mm512_setzero_ps(); NV];
        for (v, x) in row.iter_mut().enumerate() {
            *x = _mm512_loadu_ps(b.add(v * LANES));
        }
        let rest = _mm512_broadcast_f32x4(_mm_loadu_ps(b.add(NV * LANES)));
        for (rows, shared) in shared.iter_mut().enumerate().take(MR.div_ceil(4)) {
            for q in 0..4.min(MR - rows * 4) {
                let i = rows * 4 + q;
                let x = _mm512_set1_ps(*a.at(i).add(T));
                for (acc, &b) in acc[i].iter_mut().zip(&row) {
                    *acc = _mm512_fmadd_ps(x, b, *acc);
                }
            }
            let x = quarters[rows];
            let x = match T {
                0 => _mm512_permute_ps::<0x00>(x),
                1 => _mm512_permute_ps::<0x55>(x),
                2 => _mm512_permute_ps::<0xaa>(x),
                _ => _mm512_permute_ps::<0xff>(x),
            };
            *shared = _mm512_fmadd_ps(x, rest, *shared);
        }
    }
}

/// A vector of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(of: impl Fn(usize) -> usize) -> __m512i {
    let lanes: [i32; LANES] = std::array::from_fn(|lane| of(lane) as i32);
    // SAFETY: sixteen numbers.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// Writes the sums of a [`tile`], or adds them if `ADD`.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn finish<const MR: usize, const NV: usize, const SHARE: usize, const ADD: bool>(
    call: &Call<'_>,
    acc: &[[__m512; NV]; MR],
    shared: &[__m512; MR],
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
                write_4::<ADD>(at(0), _mm512_castps512_ps128(sums));
                if left > 1 {
                    write_4::<ADD>(at(1), _mm512_extractf32x4_ps::<1>(sums));
                }
                if left > 2 {
                    write_4::<ADD>(at(2), _mm512_extractf32x4_ps::<2>(sums));
                }
                if left > 3 {
                    write_4::<ADD>(at(3), _mm512_extractf32x4_ps::<3>(sums));
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

/// Writes or adds four numbers.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read and written.
#[inline(always)]
unsafe fn write_4<const ADD: bool>(at: *mut f32, sum: __m128) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let sum = if ADD {
            _mm_add_ps(_mm_loadu_ps(at), sum)
        } else {
            sum
        };
        _mm_storeu_ps(at, sum);
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

// Thirty-two registers: the sums, what rows share of them, a row of B, a broadcast and what is mixed of four.
const QUARTERS: [Tile; 16] = tiles!(1, 4: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
const HALVES: [Tile; 16] = tiles!(1, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
const TWO_AND_HALVES: [Tile; 10] = tiles!(2, 2: 1 2 3 4 5 6 7 8 9 10);

/// The same of [`near`].
mod of_neighbours {
    use super::{Tile, near as tile};

    pub(super) const QUARTERS: [Tile; 20] =
        tiles!(1, 4: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
    pub(super) const HALVES: [Tile; 16] = tiles!(1, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    pub(super) const TWO_AND_HALVES: [Tile; 10] = tiles!(2, 2: 1 2 3 4 5 6 7 8 9 10);
}

/// The tiles of all widths, the widest first.
pub(super) static TILES: [Shared; 3] = [
    Shared {
        cols: 40,
        rows: 2,
        tiles: &TWO_AND_HALVES,
        near: &of_neighbours::TWO_AND_HALVES,
    },
    Shared {
        cols: 24,
        rows: 2,
        tiles: &HALVES,
        near: &of_neighbours::HALVES,
    },
    Shared {
        cols: 20,
        rows: 4,
        tiles: &QUARTERS,
        near: &of_neighbours::QUARTERS,
    },
];
