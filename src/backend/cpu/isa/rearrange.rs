//! Images of bytes that are all brought into one order: where the bytes of 32 images at one position lie side by
//! side, the order is a choice of rows.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::{Isa, select};
use super::super::scratch;

/// Images that are turned over at a time: bytes of a vector.
const IMAGES: usize = 32;

/// Positions that are turned over at a time: bytes of half a vector.
const POSITIONS: usize = 16;

/// Images from which turning 32 over is faster than looking up each byte.
const LEAST: usize = 6;

/// Byte `p` of `out[i · row..]` becomes byte `map[p]` of image `i`, or zero for a place beyond it. False, and nothing
/// done, if the CPU (or the cap on its instructions) has no AVX2, or there are too few or too small images.
///
/// # Panics
/// If there are images of different sizes, or `out` is too short.
#[track_caller]
pub(crate) fn rearrange(images: &[&[u8]], map: &[u32], out: &mut [u8], row: usize) -> bool {
    let len = images.first().map_or(0, |image| image.len());
    let small = len < POSITIONS || map.len() < POSITIONS || images.len() < LEAST;
    if small || select().isa() < Isa::Avx2 {
        return false;
    }
    let end = (images.len() - 1) * row + map.len();
    assert!(
        images.iter().all(|image| image.len() == len) && end <= out.len(),
        "{} images of {len} bytes in another order, {row} apart, to {} bytes",
        images.len(),
        out.len()
    );
    scratch::numbers((len + 1) * IMAGES / size_of::<f32>(), |memory| {
        let positions: &mut [[u8; IMAGES]] = bytemuck::cast_slice_mut(memory);
        // A zero behind each image.
        positions[len] = [0; IMAGES];
        for (images, out) in images.chunks(IMAGES).zip(out.chunks_mut(IMAGES * row)) {
            // SAFETY: the table in use has AVX2 because this CPU does.
            unsafe { together(images, positions, map, out, row) };
        }
    });
    true
}

/// [`rearrange`] of up to 32 images, with room for their positions. Fewer come several times.
#[target_feature(enable = "avx2")]
fn together(
    images: &[&[u8]],
    positions: &mut [[u8; IMAGES]],
    map: &[u32],
    out: &mut [u8],
    row: usize,
) {
    let outside = positions.len() - 1;
    let images: [(&[u8], usize); IMAGES] = std::array::from_fn(|i| {
        let i = i % images.len();
        (images[i], i * row)
    });
    let bytes = |i: usize, at: usize| -> [u8; POSITIONS] {
        let (image, _) = images[i];
        image[at..at + POSITIONS].try_into().expect("so many")
    };
    for at in steps(outside) {
        let mut square =
            std::array::from_fn(|i| bytemuck::cast([bytes(i, at), bytes(i + POSITIONS, at)]));
        turn(&mut square);
        positions[at..at + POSITIONS].copy_from_slice(bytemuck::cast_slice(&square));
    }
    for at in steps(map.len()) {
        let places = &map[at..at + POSITIONS];
        let mut square =
            std::array::from_fn(|p| bytemuck::cast(positions[(places[p] as usize).min(outside)]));
        turn(&mut square);
        for (i, both) in square.into_iter().enumerate() {
            let both: [[u8; POSITIONS]; 2] = bytemuck::cast(both);
            for (i, bytes) in (i..).step_by(POSITIONS).zip(both) {
                out[images[i].1 + at..][..POSITIONS].copy_from_slice(&bytes);
            }
        }
    }
}

/// Where steps over `len` positions begin; the last ends with them.
fn steps(len: usize) -> impl Iterator<Item = usize> {
    (0..len)
        .step_by(POSITIONS)
        .map(move |at| at.min(len - POSITIONS))
}

/// Rows become columns in both halves: each of four rounds moves the highest bit of a byte's row to the end of its
/// column, and that of its column to the end of its row.
#[target_feature(enable = "avx2")]
fn turn(square: &mut [__m256i; POSITIONS]) {
    for _ in 0..POSITIONS.ilog2() {
        let (upper, lower) = square.split_at(POSITIONS / 2);
        let mut next = [_mm256_setzero_si256(); POSITIONS];
        for (next, (&upper, &lower)) in next.chunks_exact_mut(2).zip(upper.iter().zip(lower)) {
            next[0] = _mm256_unpacklo_epi8(upper, lower);
            next[1] = _mm256_unpackhi_epi8(upper, lower);
        }
        *square = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::check;
    use crate::pixels;

    #[test]
    fn bytes_come_from_where_the_map_says() {
        check::tables(); // Says what is required and missing.
        let random = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 7;
        for (len, count) in [(16, 16), (17, 40), (784, 784), (1025, 31)] {
            for images in [6, 7, 31, 32, 33, 64, 70] {
                let place = |i: usize| match random(i + len) % 9 {
                    0 => u32::MAX,
                    1 => len as u32,
                    2 => len as u32 - 1,
                    3 => len as u32 + random(i) % 200_000,
                    _ => random(i + 7) % len as u32,
                };
                let map: Vec<u32> = (0..count).map(place).collect();
                let bytes: Vec<u8> = (0..images * len)
                    .map(|i| (random(i) % 255) as u8 + 1)
                    .collect();
                let stored: Vec<&[u8]> = bytes.chunks_exact(len).collect();
                let row = count + 3;
                let (mut found, mut want) = (vec![77; images * row], vec![77; images * row]);
                for (image, out) in stored.iter().zip(want.chunks_exact_mut(row)) {
                    pixels::rearrange(image, &map, &mut out[..count]);
                }
                if !rearrange(&stored, &map, &mut found, row) {
                    assert!(select().isa() < Isa::Avx2);
                    return;
                }
                assert_eq!(
                    found, want,
                    "{images} images of {len} bytes, {count} places"
                );
            }
        }
    }

    #[test]
    fn little_is_left_to_others() {
        let image: &[u8] = &[1; 16];
        let mut out = [0; 200];
        assert!(!rearrange(&[], &[0; 16], &mut out, 16));
        assert!(!rearrange(&[image; LEAST - 1], &[0; 16], &mut out, 16));
        assert!(!rearrange(&[image; LEAST], &[0; 15], &mut out, 16));
        assert!(!rearrange(&[&image[1..]; LEAST], &[0; 16], &mut out, 16));
    }
}
