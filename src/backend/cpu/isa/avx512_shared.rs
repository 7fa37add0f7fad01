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
//! multiplications. So these tiles are for terms that [`avx512_by_terms`] cannot take. Where the rows of A are
//! neighbours, as in a gradient of a weight, one load repeats the four; then it is the numbers of B that are
//! stretched:
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

use super::avx512_sums::{LANES, ask, finish, lanes, repeated, vectors};
use super::column::Column;
use super::kernel::AHEAD;
use super::{Call, Shared, Tile, avx512_by_terms};

/// Rows of tiles that leave the loads of a core room enough to ask for a later term of A, of neighbours.
const MANY: usize = 12;

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
    // SAFETY: the instruction set is enabled here; the addresses are the caller's: `LANES / SHARE` numbers are read
    // and written past the `NV` vectors of each row, and no more.
    unsafe {
        ask::<MR, NV>(call);
        let mut acc = [[_mm512_setzero_ps(); NV]; MR];
        // The first `MR.div_ceil(SHARE)` are used.
        let mut shared = [_mm512_setzero_ps(); MR];
        let mut ahead = call.ahead;
        for tap in call.taps {
            let mut a = Column::new(call.a.wrapping_add(tap.a), call.a_row, true);
            let mut b = call.b.wrapping_add(tap.b);
            for _ in 0..call.k {
                if call.ahead_step > 0 {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    ahead = ahead.wrapping_byte_add(call.ahead_step);
                }
                if NEAR && MR >= MANY {
                    let next = a.at(0).wrapping_add(AHEAD * call.a_step);
                    _mm_prefetch::<_MM_HINT_T0>(next.cast());
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(MR - 1).cast());
                }
                let row = vectors::<NV>(b);
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
                        mixed = repeated::<SHARE>(a.at(rows * SHARE));
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
        finish::<MR, NV, SHARE>(call, acc, shared, None);
    }
}

// Thirty-two registers: the sums, what rows share of them, a row of B, what is repeated or stretched of it, a broadcast
// and what is mixed of some.
const QUARTERS: [Tile; 20] = tiles!(1, 4: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
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

/// The tiles of all widths, the widest first. Those without a whole vector are there for terms alone: columns are
/// also cut at whole vectors by who shares the work, and the last ones have to be rounded the same way then.
pub(super) static TILES: [Shared; 5] = [
    Shared {
        cols: 40,
        fewest: 40,
        share: 2,
        tiles: &TWO_AND_HALVES,
        near: &of_neighbours::TWO_AND_HALVES,
        by_terms: &avx512_by_terms::TWO_AND_HALVES,
    },
    Shared {
        cols: 24,
        fewest: 24,
        share: 2,
        tiles: &HALVES,
        near: &of_neighbours::HALVES,
        by_terms: &avx512_by_terms::HALVES,
    },
    Shared {
        cols: 20,
        fewest: 20,
        share: 4,
        tiles: &QUARTERS,
        near: &of_neighbours::QUARTERS,
        by_terms: &avx512_by_terms::QUARTERS,
    },
    Shared {
        cols: 8,
        fewest: 8,
        share: 2,
        tiles: &[],
        near: &[],
        by_terms: &avx512_by_terms::ONLY_HALVES,
    },
    Shared {
        cols: 4,
        fewest: 1,
        share: 4,
        tiles: &[],
        near: &[],
        by_terms: &avx512_by_terms::ONLY_QUARTERS,
    },
];
