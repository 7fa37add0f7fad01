//! Rows of a mini-batch from stored bytes, which lie anywhere in memory.

use super::dispatch::prefetch;
#[cfg(target_arch = "x86_64")]
use super::isa::rearrange::Order;
use super::parallel::{PARALLEL_MIN, pays};
use super::tiles::for_each_pieces;
use crate::pixels::{PixelRow, rearrange};

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
        let mut orders = Orders::default();
        each_row(y, rows, |row, out| {
            row.write_bytes(out, |image, map, out| orders.rearrange(image, map, out));
        });
    });
}

/// Brings images into another order. Most have the order of the image before, which is prepared once.
#[derive(Default)]
struct Orders<'a> {
    #[cfg(target_arch = "x86_64")]
    last: Option<(&'a [u32], Option<Order>)>,
    #[cfg(not(target_arch = "x86_64"))]
    last: std::marker::PhantomData<&'a ()>,
}

impl<'a> Orders<'a> {
    fn rearrange(&mut self, image: &[u8], map: &'a [u32], out: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        {
            if !matches!(&self.last, Some((last, _)) if std::ptr::eq(*last, map)) {
                self.last = Some((map, Order::new(map)));
            }
            if let Some((_, Some(order))) = &self.last
                && order.rearrange(image, out)
            {
                return;
            }
        }
        rearrange(image, map, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Cutout;
    use std::sync::Arc;

    /// Neighbours may have one map, maps of their own, or none.
    #[test]
    fn each_row_has_the_order_of_its_own_map() {
        const SIZE: usize = 150;
        let pixels: Arc<[u8]> = (0..40 * SIZE).map(|i| (i * 37 % 251) as u8).collect();
        let map = |step: usize| (0..SIZE).map(|p| (p * step % (SIZE + 9)) as u32).collect();
        let maps: [Option<Arc<[u32]>>; 3] = [None, Some(map(7)), Some(map(11))];
        let row = |i: usize| PixelRow {
            pixels: pixels.clone(),
            first: i * SIZE,
            map: maps[i / 2 % 3].clone(),
            tables: [std::array::from_fn(|byte| byte as f32)].into(),
            cutout: Cutout::whole([1, SIZE]),
        };
        let rows: Vec<_> = (0..40).map(row).collect();
        let mut found = vec![0; 40 * SIZE];
        gather_bytes(&mut found, &rows, SIZE);
        let want = PixelRow::write_all(&rows, 40 * SIZE);
        assert!(
            found
                .iter()
                .zip(want)
                .all(|(&byte, x)| f32::from(byte) == x)
        );
    }
}
