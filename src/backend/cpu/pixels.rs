//! Rows of a mini-batch from stored bytes, which lie anywhere in memory.

use super::dispatch::prefetch;
#[cfg(target_arch = "x86_64")]
use super::isa::rearrange::Order;
use super::parallel::min_tasks;
use crate::pixels::{PixelRow, rearrange};
use rayon::prelude::*;

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
    (y[..len].par_chunks_mut((TOGETHER * size).max(1)))
        .with_min_len(min_tasks(len / 4))
        .zip(rows.par_chunks(TOGETHER))
        .for_each(|(y, rows)| {
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
            let (_, order) = match self.last.take() {
                Some(last) if std::ptr::eq(last.0, map) => self.last.insert(last),
                _ => self.last.insert((map, Order::new(map))),
            };
            if (order.as_ref()).is_some_and(|order| order.rearrange(image, out)) {
                return;
            }
        }
        rearrange(image, map, out);
    }
}
