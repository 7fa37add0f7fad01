//! Rows of mini-batches from stored bytes.

use super::{Case, Lab, Visitor};
use crate::backend::{Backend, Gemm, LookUp, Write};
use crate::pixels::{Cutout, PixelRow};
use std::sync::Arc;

pub(super) fn visit(visitor: &mut impl Visitor) {
    visit_products(visitor);
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

/// A layer on images that are bytes, forward and gradient of the weight; black ground, dense, too small.
fn visit_products(visitor: &mut impl Visitor) {
    for (rows, width, n) in [(1, 1, 1), (4, 128, 32), (5, 131, 33), (67, 193, 40)] {
        for others in [0.2, 0.9] {
            for write in [Write::Set, Write::Add] {
                visitor.visit(BytesProduct {
                    rows,
                    width,
                    n,
                    others,
                    write,
                });
            }
        }
    }
}

#[derive(Debug)]
struct BytesProduct {
    rows: usize,
    width: usize,
    n: usize,
    /// The share of bytes that are not black.
    others: f64,
    write: Write,
}

impl Case for BytesProduct {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let &BytesProduct { rows, width, n, .. } = self;
        let len = rows * width;
        let byte = |x: f64| match (x + 1.0) / 2.0 {
            share if share < self.others => (255.0 * share / self.others) as u8,
            _ => 0,
        };
        let pixels: Arc<[u8]> = lab.noise(len).into_iter().map(byte).collect();
        let tables: Arc<[[f32; 256]]> = [std::array::from_fn(|b| b as f32 / 128.0 - 0.5)].into();
        let row = |i: usize| PixelRow {
            pixels: pixels.clone(),
            first: i * width,
            map: None,
            tables: tables.clone(),
            cutout: Cutout::whole([1, width]),
        };
        let images: Vec<PixelRow> = (0..rows).map(row).collect();
        let (w, dy) = (lab.input(width * n), lab.input(rows * n));
        let mut x = lab.output(len, Write::Set);
        let (mut y, mut dw) = (
            lab.output(rows * n, self.write),
            lab.output(width * n, self.write),
        );
        let forward = Gemm {
            m: rows,
            n,
            k: width,
            a_transposed: false,
            b_transposed: false,
        };
        let backward = Gemm {
            m: width,
            k: rows,
            a_transposed: true,
            ..forward
        };
        let mut bytes = B::bytes_len(len).map(|len| lab.output(len, Write::Set));
        match &mut bytes {
            Some(bytes) => {
                lab.backend.gather_bytes(bytes.dst(), &images, width);
                let bytes = LookUp {
                    bytes: bytes.src(),
                    table: &tables[0],
                };
                lab.backend.look_up(x.dst(), bytes);
            }
            None => lab.backend.gather_pixels(x.dst(), &images),
        }
        for (c, b, dims) in [(&mut y, &w, forward), (&mut dw, &dy, backward)] {
            let done = bytes.as_ref().is_some_and(|bytes| {
                let bytes = LookUp {
                    bytes: bytes.src(),
                    table: &tables[0],
                };
                (lab.backend).gemm_bytes(c.dst(), bytes, b.src(), dims, self.write)
            });
            if !done {
                lab.backend
                    .gemm(c.dst(), x.src(), b.src(), dims, self.write);
            }
        }
        lab.record_scaled("x", &x, 1, 0.0);
        lab.record_product("y", &y, width);
        lab.record_product("dw", &dw, rows);
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
