//! Bytes of a small image brought into another order: 128 of them are looked up by one instruction.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::dispatch::{Isa, select};

/// Bytes that fit, with a zero behind them.
const ROOM: usize = 1024;

/// Bytes among which one instruction chooses.
const TABLE: usize = 128;

/// Where each byte of the other order comes from, as the instruction wants it.
pub(crate) struct Order {
    /// In which table a byte is, and where in it; a zero byte is last in the last.
    table: [u8; ROOM],
    within: [u8; ROOM],
    len: usize,
}

impl Order {
    /// The order in which byte `i` is byte `map[i]` of the image; `None` if that is too long or this CPU (or
    /// the cap on its instructions) does not offer AVX512-VBMI.
    pub fn new(map: &[u32]) -> Option<Self> {
        let present =
            is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi");
        if map.len() > ROOM || !present || select().isa() < Isa::Avx512 {
            return None;
        }
        let mut order = Order {
            table: [0; ROOM],
            within: [0; ROOM],
            len: map.len(),
        };
        let places = order.table.iter_mut().zip(&mut order.within);
        for ((table, within), &place) in places.zip(map) {
            let place = place.min(ROOM as u32 - 1);
            (*table, *within) = ((place / TABLE as u32) as u8, (place % TABLE as u32) as u8);
        }
        Some(order)
    }

    /// Writes the image in this order, with zeros for places beyond it; false, and nothing done, if the image
    /// is too large.
    ///
    /// # Panics
    /// If there is not a byte of `out` for each place.
    #[track_caller]
    pub fn rearrange(&self, image: &[u8], out: &mut [u8]) -> bool {
        assert_eq!(self.len, out.len(), "rearranged bytes");
        if image.len() >= ROOM {
            return false;
        }
        // SAFETY: an order is only made where the CPU has the instructions, `out` is as long as the order, and
        // the tables are those that the image reaches into.
        unsafe {
            match image.len().div_ceil(TABLE) {
                0 => out.fill(0),
                1 => vbmi::<1>(self, image, out),
                2 => vbmi::<2>(self, image, out),
                3 => vbmi::<3>(self, image, out),
                4 => vbmi::<4>(self, image, out),
                5 => vbmi::<5>(self, image, out),
                6 => vbmi::<6>(self, image, out),
                7 => vbmi::<7>(self, image, out),
                _ => vbmi::<8>(self, image, out),
            }
        }
        true
    }
}

/// With the tables in registers. What lies in none of them is zero.
///
/// # Safety
/// The CPU has the instructions, `out` is as long as `order`, and the image fits into `TABLES` tables.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn vbmi<const TABLES: usize>(order: &Order, image: &[u8], out: &mut [u8]) {
    let mut padded = [0; ROOM];
    padded[..image.len()].copy_from_slice(image);
    let tables: [[__m512i; 2]; TABLES] = std::array::from_fn(|table| {
        // SAFETY: there are no more than eight tables, which are the room.
        [0, 64].map(|half| unsafe {
            _mm512_loadu_si512(padded.as_ptr().add(table * TABLE + half).cast())
        })
    });
    for (first, out) in (0..).step_by(64).zip(out.chunks_mut(64)) {
        // SAFETY: there are places for the whole room, of which `first` is a part.
        let [table_of, within] = [&order.table, &order.within]
            .map(|bytes| unsafe { _mm512_loadu_si512(bytes.as_ptr().add(first).cast()) });
        let mut bytes = _mm512_setzero_si512();
        for (i, [low, high]) in tables.into_iter().enumerate() {
            let here = _mm512_cmpeq_epi8_mask(table_of, _mm512_set1_epi8(i as i8));
            let found = _mm512_maskz_permutex2var_epi8(here, low, within, high);
            bytes = _mm512_or_si512(bytes, found);
        }
        let mask = u64::MAX >> (64 - out.len());
        // SAFETY: lanes past the end are not written.
        unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().cast(), mask, bytes) };
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
                let Some(order) = Order::new(&map) else {
                    assert!(
                        select().isa() < Isa::Avx512 || !is_x86_feature_detected!("avx512vbmi")
                    );
                    return;
                };
                assert!(order.rearrange(&image, &mut out[..count]));
                assert_eq!(out[..count], want, "{len} bytes, {count} places");
                assert_eq!(out[count], 77);
            }
        }
    }

    #[test]
    fn large_images_are_left_to_others() {
        assert!(Order::new(&[0; ROOM + 1]).is_none());
        if let Some(order) = Order::new(&[0]) {
            assert!(!order.rearrange(&[1; ROOM], &mut [0]));
        }
    }
}
