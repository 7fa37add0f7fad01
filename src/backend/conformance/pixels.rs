//! Rows of mini-batches from stored bytes.

use super::{Case, Lab, Visitor};
use crate::backend::{Backend, Write};
use crate::pixels::{Cutout, PixelRow};
use std::sync::Arc;

pub(super) fn visit(visitor: &mut impl Visitor) {
    for (channels, input, size) in [
        (1, [1, 1], [1, 1]),
        (1, [5, 4], [5, 4]),
        (3, [6, 5], [6, 5]),
        (3, [4, 7], [9, 3]),
        (2, [20, 33], [19, 30]),
    ] {
        for samples in [1, 2, 33] {
            for (mapped, of_channel) in [(false, false), (true, false), (false, true), (true, true)]
            {
                visitor.visit(GatherPixels {
                    samples,
                    channels,
                    input,
                    size,
                    mapped,
                    of_channel,
                });
            }
        }
    }
}

/// Cutouts at all sorts of places, mirrored or not, from a common store and from samples of their own.
#[derive(Debug)]
struct GatherPixels {
    samples: usize,
    channels: usize,
    input: [usize; 2],
    size: [usize; 2],
    mapped: bool,
    /// A table for each channel.
    of_channel: bool,
}

impl Case for GatherPixels {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let plane = self.input[0] * self.input[1];
        let image = self.channels * plane;
        let mut below = |n: usize| ((lab.number() + 1.0) / 2.0 * n as f64) as usize;
        let common: Arc<[u8]> = (0..3 * image).map(|_| below(256) as u8).collect();
        let map: Arc<[u32]> = (0..plane)
            .map(|_| below(plane + 2))
            .map(|p| if p > plane { u32::MAX } else { p as u32 })
            .collect();
        let tables = if self.of_channel { self.channels } else { 1 };
        let tables: Arc<[[f32; 256]]> = (0..tables)
            .map(|_| std::array::from_fn(|_| below(1 << 20) as f32))
            .collect();
        let rows: Vec<PixelRow> = (0..self.samples)
            .map(|i| {
                let mut cutout = Cutout::whole(self.input);
                if below(2) == 1 {
                    cutout.mirror();
                }
                let offset =
                    [0, 1].map(|d| below(2 * self.input[d]) as isize - self.input[d] as isize / 2);
                cutout.crop(offset, self.size);
                if below(2) == 1 {
                    cutout.mirror();
                }
                let pixels = match i % 2 {
                    0 => common.clone(),
                    _ => (0..image).map(|_| below(256) as u8).collect(),
                };
                PixelRow {
                    first: below(pixels.len() / image) * image,
                    pixels,
                    map: (self.mapped && i % 3 > 0).then(|| map.clone()),
                    tables: tables.clone(),
                    cutout,
                }
            })
            .collect();
        let len = self.samples * self.channels * self.size[0] * self.size[1];
        let mut y = lab.output(len, Write::Set);
        lab.backend.gather_pixels(y.dst(), &rows);
        // Numbers are looked up, not computed.
        lab.record_scaled("y", &y, 1, 0.0);
    }
}
