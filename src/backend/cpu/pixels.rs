//! Rows of a mini-batch from stored bytes, which lie anywhere in memory.

use super::dispatch::prefetch;
#[cfg(target_arch = "x86_64")]
use super::isa::rearrange::rearrange;
use super::parallel::{PARALLEL_MIN, pays};
use super::tiles::for_each_pieces;
use crate::pixels::PixelRow;

/// Rows from the one in hand to that whose bytes are asked for.
const AHEAD: usize = 2;

/// Calls `write(row, its part of y)` for each row; the rows divide `y`.
pub(super) fn each_row<'a, T>(
    y: &mut [T],
    rows: &'a [PixelRow],
    mut write: impl FnMut(&'a PixelRow, &mut [T]),
) {
    let size = y.len() / rows.len().max(1);
    for (i, (y, row)) in y.chunks_exact_mut(size.max(1)).zip(rows).enumerate() {
        if let Some(next) = rows.get(i + AHEAD) {
            let bytes = &next.pixels[next.first..];
            prefetch(&bytes[..size.min(bytes.len())]);
        }
        write(row, y);
    }
}

/// Rows that one thread copies at a time.
const TOGETHER: usize = 32;

/// Writes the bytes of the rows, `size` each, one after the other. There may be room for more.
pub(super) fn gather_bytes(y: &mut [u8], rows: &[PixelRow], size: usize) {
    let len = rows.len() * size;
    let (size, shared) = (size.max(1), pays(len / 4, PARALLEL_MIN));
    for_each_pieces([&mut y[..len]], TOGETHER * size, shared, |first, [y]| {
        let rows = &rows[first / size..][..y.len() / size];
        let mut left = y;
        for alike in rows.chunk_by(PixelRow::is_ordered_as) {
            let (y, rest) = left.split_at_mut(alike.len() * size);
            left = rest;
            #[cfg(target_arch = "x86_64")]
            if gather_together(y, alike, size) {
                continue;
            }
            each_row(y, alike, PixelRow::write_bytes);
        }
    });
}

/// [`gather_bytes`] of few rows in one order; false, and nothing done, if there is none or it does not pay.
#[cfg(target_arch = "x86_64")]
fn gather_together(y: &mut [u8], rows: &[PixelRow], size: usize) -> bool {
    let (Some(map), plane) = (&rows[0].map, rows[0].plane()) else {
        return false;
    };
    let mut images: [&[u8]; TOGETHER] = [&[]; TOGETHER];
    (0..size).step_by(plane).all(|channel| {
        for (image, row) in images.iter_mut().zip(rows) {
            *image = &row.pixels[row.first + channel..][..plane];
        }
        rearrange(&images[..rows.len()], map, &mut y[channel..], size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Cutout;
    use std::sync::Arc;

    /// Neighbours may have one map, maps of their own, or none; few of one map are written by themselves, many
    /// together.
    #[test]
    fn each_row_has_the_order_of_its_own_map() {
        const PLANE: usize = 50;
        for (channels, alike) in [(1, 2), (3, 2), (1, 15), (3, 15)] {
            let size = channels * PLANE;
            let pixels: Arc<[u8]> = (0..40 * size).map(|i| (i * 37 % 251) as u8).collect();
            let map = |step: usize| {
                (0..PLANE)
                    .map(|p| (p * step % (PLANE + 9)) as u32)
                    .collect()
            };
            let maps: [Option<Arc<[u32]>>; 3] = [Some(map(7)), None, Some(map(11))];
            let row = |i: usize| PixelRow {
                pixels: pixels.clone(),
                first: i * size,
                map: maps[i / alike % 3].clone(),
                tables: [std::array::from_fn(|byte| byte as f32)].into(),
                cutout: Cutout::whole([1, PLANE]),
            };
            let rows: Vec<_> = (0..40).map(row).collect();
            let mut found = vec![0; 40 * size];
            gather_bytes(&mut found, &rows, size);
            let found: Vec<_> = found.into_iter().map(f32::from).collect();
            assert_eq!(
                found,
                PixelRow::write_all(&rows, 40 * size),
                "{channels} channels, {alike} alike"
            );
        }
    }
}
