//! Bytes of a small image brought into another order: 128 of them are looked up by one instruction.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::{Isa, select};

/// Bytes that fit, with a zero behind them.
const ROOM: usize = 1024;

/// Bytes among which one instruction chooses.
const TABLE: usize = 128;

/// `out[i] = image[map[i]]`, zero where that is beyond the image; false, and nothing done, if the image is
/// too large or this CPU (or the cap on its instructions) does not offer AVX512-VBMI.
///
/// # Panics
/// If `map` and `out` differ in length.
#[track_caller]
pub(crate) fn rearrange(image: &[u8], map: &[u32], out: &mut [u8]) -> bool {
    assert_eq!(map.len(), out.len(), "rearranged bytes");
    let present = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi");
    if image.len() >= ROOM || !present || select().isa() < Isa::Avx512 {
        return false;
    }
    // SAFETY: the CPU has the instructions, `map` is as long as `out`, and the image leaves room for a zero.
    unsafe { vbmi(image, map, out) };
    true
}

/// # Safety
/// The CPU has the instructions, `map` is as long as `out`, and `image` shorter than [`ROOM`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn vbmi(image: &[u8], map: &[u32], out: &mut [u8]) {
    let mut padded = [0; ROOM];
    padded[..image.len()].copy_from_slice(image);
    // The zero behind the image is looked up too.
    let tables = (image.len() + 1).div_ceil(TABLE);
    let outside = _mm512_set1_epi32(image.len() as i32);
    let (map_start, len) = (map.as_ptr(), out.len());
    for first in (0..len).step_by(64) {
        // Sixteen places, or those that are left of them.
        let places = |part: usize| {
            let at = first + 16 * part;
            let left = len.saturating_sub(at).min(16);
            let mask = ((1u32 << left) - 1) as __mmask16;
            // SAFETY: lanes past the end of the map are not read.
            let places =
                unsafe { _mm512_maskz_loadu_epi32(mask, map_start.wrapping_add(at).cast()) };
            _mm512_cvtepi32_epi16(_mm512_min_epu32(places, outside))
        };
        let both = |low: __m256i, high: __m256i| {
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        let halves = [both(places(0), places(1)), both(places(2), places(3))];
        let [low, high] = halves.map(|half| _mm512_cvtepi16_epi8(half));
        // The lower seven bits say where in a table a byte is, the others in which.
        let within = both(low, high);
        let [low, high] = halves.map(|half| _mm512_cvtepi16_epi8(_mm512_srli_epi16::<7>(half)));
        let table_of = both(low, high);
        let mut bytes = _mm512_setzero_si512();
        for table in 0..tables {
            let here = _mm512_cmpeq_epi8_mask(table_of, _mm512_set1_epi8(table as i8));
            // SAFETY: `tables · TABLE` bytes are no more than the room.
            let [a, b] = [0, 64].map(|half| unsafe {
                _mm512_loadu_si512(padded.as_ptr().add(table * TABLE + half).cast())
            });
            let found = _mm512_maskz_permutex2var_epi8(here, a, within, b);
            bytes = _mm512_or_si512(bytes, found);
        }
        let left = (len - first).min(64);
        let mask = u64::MAX >> (64 - left);
        // SAFETY: lanes past the end are not written.
        unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().add(first).cast(), mask, bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::check;

    #[test]
    fn bytes_come_from_where_the_map_says() {
        check::tables(); // Says what is required and missing.
        let random = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 7;
        for len in [1, 2, 63, 64, 127, 128, 129, 784, 895, 896, 1022, 1023] {
            let image: Vec<u8> = (0..len).map(|i| (random(i) % 255) as u8 + 1).collect();
            for count in [1, 15, 16, 17, 63, 64, 65, 130, 784] {
                let place = |i: usize| match random(i + len) % 9 {
                    0 => u32::MAX,
                    1 => len as u32,
                    2 => len as u32 - 1,
                    3 => len as u32 + random(i) % 200_000,
                    _ => random(i + 7) % len as u32,
                };
                let map: Vec<u32> = (0..count).map(place).collect();
                let byte = |&p: &u32| image.get(p as usize).copied().unwrap_or(0);
                let want: Vec<u8> = map.iter().map(byte).collect();
                let mut out = vec![77; count + 1];
                if !rearrange(&image, &map, &mut out[..count]) {
                    assert!(
                        select().isa() < Isa::Avx512 || !is_x86_feature_detected!("avx512vbmi")
                    );
                    return;
                }
                assert_eq!(out[..count], want, "{len} bytes, {count} places");
                assert_eq!(out[count], 77);
            }
        }
    }

    #[test]
    fn large_images_are_left_to_others() {
        assert!(!rearrange(&[1; 1024], &[0], &mut [0]));
    }
}
