//! The words that say where a matrix differs from its background, of rows and of columns.
#![allow(unsafe_code)]

use super::super::super::dispatch::each_isa;
use super::{Compare, WORD, first_bits};

each_isa! {
    /// The words of columns from those of at most 64 rows: bit `r` of `down[j]` is bit `j % 64` of
    /// `across[r · down.len().div_ceil(64) + j / 64]`.
    pub(crate) fn words_down(across: &[u64], down: &mut [u64]) {
        let count = down.len().div_ceil(WORD);
        for (q, down) in down.chunks_mut(WORD).enumerate() {
            let mut square = [0; WORD];
            for (word, row) in square.iter_mut().zip(across.chunks_exact(count)) {
                *word = row[q];
            }
            turn::<32>(&mut square, 0x0000_0000_ffff_ffff);
            turn::<16>(&mut square, 0x0000_ffff_0000_ffff);
            turn::<8>(&mut square, 0x00ff_00ff_00ff_00ff);
            turn::<4>(&mut square, 0x0f0f_0f0f_0f0f_0f0f);
            turn::<2>(&mut square, 0x3333_3333_3333_3333);
            turn::<1>(&mut square, 0x5555_5555_5555_5555);
            down.copy_from_slice(&square[..down.len()]);
        }
    }
}

/// A step of turning over a square of bits: of each `2·N` rows, the upper ones exchange their high `N` of
/// `2·N` bits for the low ones of the rows `N` below. `low` has the low bits set.
#[inline(always)]
fn turn<const N: usize>(square: &mut [u64; WORD], low: u64) {
    for pair in square.chunks_exact_mut(2 * N) {
        let (upper, lower) = pair.split_at_mut(N);
        for (upper, lower) in upper.iter_mut().zip(lower) {
            let exchanged = (*upper >> N ^ *lower) & low;
            *lower ^= exchanged;
            *upper ^= exchanged << N;
        }
    }
}

/// The body of every [`Differ`](super::Differ) of numbers.
///
/// # Safety
/// As for [`Differ`](super::Differ), for the instruction set of `V`.
#[inline(always)]
pub(in super::super) unsafe fn differ<V: Compare>(
    from: *const f32,
    len: usize,
    background: f32,
    words: *mut u64,
) {
    const { assert!(WORD.is_multiple_of(V::LANES)) };
    // SAFETY: the caller guarantees the instruction set and every address.
    unsafe {
        let background = V::splat(background);
        let whole = len / WORD;
        for q in 0..whole {
            let mut word = 0;
            // A bound that the compiler knows.
            for j in (0..WORD).step_by(V::LANES) {
                word |= V::load(from.add(q * WORD + j)).differs(background) << j;
            }
            *words.add(q) = word;
        }
        let (from, left) = (from.add(whole * WORD), len % WORD);
        let mut word = 0;
        for j in (0..left).step_by(V::LANES) {
            let lanes = (left - j).min(V::LANES);
            let x = V::load_masked(from.add(j), V::mask(lanes));
            word |= (x.differs(background) & first_bits(lanes)) << j;
        }
        if left > 0 {
            *words.add(whole) = word;
        }
    }
}

/// A [`Differ`](super::Differ) of bytes. `mask` gives the word of 64 bytes.
///
/// # Safety
/// As for [`Differ`](super::Differ); `mask` reads 64 bytes.
#[inline(always)]
pub(in super::super) unsafe fn differ_bytes(
    from: *const u8,
    len: usize,
    background: u8,
    words: *mut u64,
    mask: impl Fn(*const u8) -> u64,
) {
    // SAFETY: the caller guarantees every address; the last, partial group is read from a copy.
    unsafe {
        let whole = len / WORD;
        for q in 0..whole {
            *words.add(q) = mask(from.add(q * WORD));
        }
        if len > whole * WORD {
            let mut last = [background; WORD];
            let left = from.add(whole * WORD);
            std::ptr::copy_nonoverlapping(left, last.as_mut_ptr(), len - whole * WORD);
            *words.add(whole) = mask(last.as_ptr());
        }
    }
}
