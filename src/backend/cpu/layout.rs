//! Between row order and the blocks of a spatial tensor, and from one spatial tensor to another.

use super::BATCH_BLOCK;
use super::elementwise::put;
use super::tiles::for_each_piece;
use crate::backend::{SpatialLayout, Write};
use crate::shape::Images;

/// Row order to spatial order.
pub(super) fn to_spatial(y: &mut [f32], x: &[f32], images: Images, write: Write) {
    for_each_block(y, images, |first, y| {
        let rows = y.len() / images.pixels();
        transpose_body(y, &x[first..][..y.len()], rows, images.pixels(), write);
    });
}

/// Spatial order to row order.
pub(super) fn to_rows(y: &mut [f32], x: &[f32], images: Images, write: Write) {
    for_each_block(y, images, |first, y| {
        let cols = y.len() / images.pixels();
        transpose_body(y, &x[first..][..y.len()], images.pixels(), cols, write);
    });
}

/// Calls `f(first number, block)` for every block of `y`. A block holds the same samples, and lies at
/// the same place, in both orders: in row order it is a matrix of `samples·channels x pixels`, in
/// spatial order the transpose of that.
fn for_each_block(y: &mut [f32], images: Images, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let (work, block) = (y.len(), SpatialLayout::new(images, BATCH_BLOCK).block);
    for_each_piece(y, block * images.sample(), work, f);
}

/// The transpose of `src`, a matrix of `rows x cols`, in tiles of whole cache lines. A tile goes
/// through a buffer: columns of images are often a multiple of 4 KiB apart, so that no two of them
/// stay in the nearest cache while they are filled number by number.
#[inline(always)]
fn transpose_body(dst: &mut [f32], src: &[f32], rows: usize, cols: usize, write: Write) {
    const TILE: usize = 16;
    if rows == 1 || cols == 1 {
        dst.iter_mut().zip(src).for_each(|(d, &s)| put(d, s, write));
        return;
    }
    let mut tile = [[0.0; TILE]; TILE];
    for top in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - top);
        for left in (0..cols).step_by(TILE) {
            let width = TILE.min(cols - left);
            for (i, line) in tile.iter_mut().take(height).enumerate() {
                line[..width].copy_from_slice(&src[(top + i) * cols + left..][..width]);
            }
            for j in 0..width {
                let dst = &mut dst[(left + j) * rows + top..][..height];
                dst.iter_mut()
                    .zip(&tile)
                    .for_each(|(d, line)| put(d, line[j], write));
            }
        }
    }
}

/// Samples of one spatial tensor to be copied into another.
pub(super) struct SampleCopy {
    /// The tensor written.
    pub(super) dst: Images,
    /// The first sample written.
    pub(super) dst_start: usize,
    /// The tensor read.
    pub(super) src: Images,
    /// The first sample read.
    pub(super) src_start: usize,
    /// How many samples.
    pub(super) count: usize,
}

/// Copies samples, or adds them, see [`Backend::copy_samples`](crate::backend::Backend::copy_samples).
pub(super) fn copy_samples(dst: &mut [f32], src: &[f32], copy: &SampleCopy, write: Write) {
    let (c, pixels, sample) = (copy.dst.c, copy.dst.pixels(), copy.dst.sample());
    let dst_block = SpatialLayout::new(copy.dst, BATCH_BLOCK).block;
    let src_layout = SpatialLayout::new(copy.src, BATCH_BLOCK);
    for_each_piece(
        dst,
        dst_block * sample,
        copy.count * sample,
        |first, dst| {
            // The samples of this block of the destination, of which those in `at..end` are written.
            let (first, size) = (first / sample, dst.len() / sample);
            let mut at = copy.dst_start.max(first);
            let end = (copy.dst_start + copy.count).min(first + size);
            while at < end {
                // As many as also share a block of the source: in every pixel they are one run.
                let from = copy.src_start + (at - copy.dst_start);
                let src_first = from / src_layout.block * src_layout.block;
                let src_size = src_layout.block.min(copy.src.n - src_first);
                let run = (end - at).min(src_first + src_size - from);
                for p in 0..pixels {
                    let dst = &mut dst[(p * size + at - first) * c..][..run * c];
                    let src = &src[(src_first * pixels + p * src_size + from - src_first) * c..];
                    match write {
                        Write::Set => dst.copy_from_slice(&src[..run * c]),
                        Write::Add => dst.iter_mut().zip(src).for_each(|(d, &s)| put(d, s, write)),
                    }
                }
                at += run;
            }
        },
    );
}
