//! Rows of a mini-batch from stored bytes, which lie anywhere in memory.

use super::dispatch::prefetch;
use super::parallel::min_tasks;
use crate::pixels::PixelRow;
use rayon::prelude::*;

/// Rows from the one in hand to that whose bytes are asked for.
const AHEAD: usize = 2;

/// Calls `write(row, its part of y)` for each row; the rows divide `y`.
pub(super) fn each_row<T>(y: &mut [T], rows: &[PixelRow], write: impl Fn(&PixelRow, &mut [T])) {
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
    (y[..len].par_chunks_mut((TOGETHER * size).max(1)))
        .with_min_len(min_tasks(len / 4))
        .zip(rows.par_chunks(TOGETHER))
        .for_each(|(y, rows)| each_row(y, rows, |row, out| row.write_bytes(out, rearrange)));
}

/// Brings an image into another order.
fn rearrange(image: &[u8], map: &[u32], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if super::isa::rearrange::rearrange(image, map, out) {
        return;
    }
    crate::pixels::rearrange(image, map, out);
}
