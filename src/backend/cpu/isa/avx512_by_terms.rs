//! Register tiles for AVX-512 in which some terms of the last columns share a vector.
//!
//! Of twenty columns the last four fill a quarter of a vector. Where the terms of A are neighbours, four of them go into
//! one vector and are repeated for each of the columns, which takes one load; those of B are put together once for all
//! rows:
//!
//! ```text
//!            B   [ b0 .. b15 ]    column 16           17        18        19
//!                     four times  [ b0 b1 b2 b3 | b0 .. b3 | b0 .. b3 | b0 .. b3 ]   b0 .. b3: terms of B
//!      A   x0    [    c0     ]    [ x0 x1 x2 x3 | x0 .. x3 | x0 .. x3 | x0 .. x3 ]   x0 .. x3: terms of a row of A
//!                                 [ s0 s1 s2 s3 | s0 .. s3 | s0 .. s3 | s0 .. s3 ]
//! ```
//!
//! That is one multiplication for the last columns of four terms of a row, as if four rows shared a vector
//! ([`avx512_shared`](super::avx512_shared)), and nothing to mix.
//!
//! At the end the four sums of a column are added, `(s0 + s2) + (s1 + s3)`, of two terms `s0 + s1`. So the last columns
//! are rounded otherwise than the others, whose numbers are each one chain of fused multiply-adds. But it is the number
//! of columns beyond whole vectors and that of terms that decide, never the rows: a row has the same bits whatever
//! others it is computed with, and wherever columns are cut at whole vectors.
//!
//! By themselves one to three columns, as those of an image, go the way of four, with a mask.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx512_sums::{LANES, ask, finish, four, lanes, repeated, vectors};
use super::column::Column;
use super::{Call, Tile};

/// Tiles of `MR` rows of `NV` vectors and `LANES / SHARE` numbers more, of which `SHARE` terms lie in one vector: 2 or
/// 4. What [`Call::last`] says is looked at where there are four and no whole vector: so many of them are wanted.
///
/// # Safety
/// As for [`Tile`]; the terms of A are neighbours, and [`Call::k`] is a multiple of `SHARE`.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const MR: usize, const NV: usize, const SHARE: usize>(call: &Call<'_>) {
    for i in 0..call.tiles {
        // SAFETY: the instruction set is enabled here; the rest is the caller's.
        unsafe { one::<MR, NV, SHARE>(&call.tile(i, MR)) };
    }
}

/// One [`tile`].
///
/// # Safety
/// As for [`tile`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn one<const MR: usize, const NV: usize, const SHARE: usize>(call: &Call<'_>) {
    const { assert!(SHARE == 2 || SHARE == 4) };
    // Term by term the last columns of B come from memory; column by column they are wanted.
    let turn = lanes(|lane| lane % SHARE * (LANES / SHARE) + lane / SHARE);
    let wanted = (NV == 0 && SHARE == 4).then_some(!(u16::MAX << call.last.min(4)));
    // SAFETY: the instruction set is enabled here; the addresses are the caller's: `SHARE` neighbours of a row of A are
    // as many terms, and `LANES / SHARE` numbers are read and written past the `NV` vectors of each row.
    unsafe {
        ask::<MR, NV>(call);
        let mut acc = [[_mm512_setzero_ps(); NV]; MR];
        let mut shared = [_mm512_setzero_ps(); MR];
        let mut ahead = call.ahead;
        for tap in call.taps {
            let mut a = Column::new(call.a.wrapping_add(tap.a), call.a_row, true);
            let mut b = call.b.wrapping_add(tap.b);
            for _ in 0..call.k / SHARE {
                let terms = rows::<SHARE>(b.add(NV * LANES), call.b_row, wanted);
                let terms = _mm512_permutexvar_ps(turn, terms);
                for (i, sum) in shared.iter_mut().enumerate() {
                    *sum = _mm512_fmadd_ps(repeated::<SHARE>(a.at(i)), terms, *sum);
                }
                // The compiler is not to see that the same numbers are read again: it would keep them in registers and
                // put sums on the stack.
                a.advance(0);
                // Asking here, not first, divides the instructions: or the compiler does those above last, and what
                // they have loaded takes registers all along.
                if call.ahead_step > 0 {
                    for _ in 0..SHARE {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                        ahead = ahead.wrapping_byte_add(call.ahead_step);
                    }
                }
                for t in 0..SHARE {
                    let row = vectors::<NV>(b);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*a.at(i).add(t));
                        for (acc, &b) in acc.iter_mut().zip(&row) {
                            *acc = _mm512_fmadd_ps(x, b, *acc);
                        }
                    }
                    // Past the last term it may point outside the operand.
                    b = b.wrapping_add(call.b_row);
                }
                a.advance(SHARE);
            }
        }
        finish::<MR, NV, SHARE>(call, acc, by_rows::<MR, SHARE>(shared), wanted);
    }
}

/// `LANES / SHARE` numbers, or those of four that are `wanted`, of each of `SHARE` rows that are `row` apart.
///
/// # Safety
/// The CPU has AVX-512F, and they may be read.
#[inline(always)]
unsafe fn rows<const SHARE: usize>(first: *const f32, row: usize, wanted: Option<u16>) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe {
        if SHARE == 4 {
            let rows = _mm512_castps128_ps512(four(first, wanted));
            let rows = _mm512_insertf32x4::<1>(rows, four(first.add(row), wanted));
            let rows = _mm512_insertf32x4::<2>(rows, four(first.add(2 * row), wanted));
            _mm512_insertf32x4::<3>(rows, four(first.add(3 * row), wanted))
        } else {
            let rows = _mm512_castpd256_pd512(_mm256_loadu_pd(first.cast()));
            let below = _mm256_loadu_pd(first.add(row).cast());
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(rows, below))
        }
    }
}

/// The sums of all terms, those of `SHARE` rows in a vector, row after row, from the sums that terms share, of one row in
/// a vector, column after column. The first `MR.div_ceil(SHARE)` are meant; in the last, rows that there are not have
/// anything.
///
/// # Safety
/// The CPU has AVX-512F.
#[inline(always)]
unsafe fn by_rows<const MR: usize, const SHARE: usize>(shared: [__m512; MR]) -> [__m512; MR] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let in_pairs = lanes(|lane| lane % 8 / 2 * 4 + lane / 8 * 2 + lane % 2);
        let in_fours = lanes(|lane| lane % 4 * 4 + lane / 4);
        let mut sums = [_mm512_setzero_ps(); MR];
        for (i, sums) in sums.iter_mut().enumerate().take(MR.div_ceil(SHARE)) {
            let (first, last) = (i * SHARE, MR - 1);
            let (row, next) = (shared[first], shared[last.min(first + 1)]);
            *sums = if SHARE == 4 {
                let (third, fourth) = (shared[last.min(first + 2)], shared[last.min(first + 3)]);
                // In each quarter one column: of four rows the sums of even terms, and of odd ones.
                let low = _mm512_castps_pd(halved(row, next));
                let high = _mm512_castps_pd(halved(third, fourth));
                let even = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                let odd = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                _mm512_permutexvar_ps(in_fours, _mm512_add_ps(even, odd))
            } else {
                // In each quarter two columns of one row, then of the next.
                let even = _mm512_shuffle_ps::<0b10_00_10_00>(row, next);
                let odd = _mm512_shuffle_ps::<0b11_01_11_01>(row, next);
                _mm512_permutexvar_ps(in_pairs, _mm512_add_ps(even, odd))
            };
        }
        sums
    }
}

/// Adds the second two of each four numbers to the first two: in each quarter of a vector are the first sum of both rows and
/// then the second of both.
///
/// # Safety
/// The CPU has AVX-512F.
#[inline(always)]
unsafe fn halved(above: __m512, below: __m512) -> __m512 {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        _mm512_add_ps(
            _mm512_unpacklo_ps(above, below),
            _mm512_unpackhi_ps(above, below),
        )
    }
}

// Thirty-two registers: the sums, those that terms share, a row of B, what is put together of several, in which order, and
// a broadcast.
pub(super) const QUARTERS: [Tile; 12] = tiles!(1, 4: 1 2 3 4 5 6 7 8 9 10 11 12);
pub(super) const HALVES: [Tile; 12] = tiles!(1, 2: 1 2 3 4 5 6 7 8 9 10 11 12);
pub(super) const TWO_AND_HALVES: [Tile; 8] = tiles!(2, 2: 1 2 3 4 5 6 7 8);

// Here more rows would fit, and gain nothing: a dozen additions hide how long each takes.
pub(super) const ONLY_QUARTERS: [Tile; 12] = tiles!(0, 4: 1 2 3 4 5 6 7 8 9 10 11 12);
pub(super) const ONLY_HALVES: [Tile; 12] = tiles!(0, 2: 1 2 3 4 5 6 7 8 9 10 11 12);
