//! Between row order and the blocks of a spatial tensor, and from one spatial tensor to another.

use super::BATCH_BLOCK;
use super::parallel::for_each_piece;
use crate::backend::{SpatialLayout, Write};
use crate::shape::Images;

/// Row order to spatial order.
pub(super) fn to_spatial(y: &mut [f32], x: &[f32], images: Images, write: Write) {
    convert(y, x, images, write, |y, x, samples, set| {
        let (c, pixels) = (images.c, images.pixels());
        for p in 0..pixels {
            for s in 0..samples {
                for (j, y) in y[(p * samples + s) * c..][..c].iter_mut().enumerate() {
                    set(y, x[(s * c + j) * pixels + p]);
                }
            }
        }
    });
}

/// Spatial order to row order.
pub(super) fn to_rows(y: &mut [f32], x: &[f32], images: Images, write: Write) {
    convert(y, x, images, write, |y, x, samples, set| {
        let (c, pixels) = (images.c, images.pixels());
        for s in 0..samples {
            for j in 0..c {
                for (p, y) in y[(s * c + j) * pixels..][..pixels].iter_mut().enumerate() {
                    set(y, x[(p * samples + s) * c + j]);
                }
            }
        }
    });
}

/// How one number is written.
type Put = fn(&mut f32, f32);

fn set(at: &mut f32, value: f32) {
    *at = value;
}

fn add(at: &mut f32, value: f32) {
    *at += value;
}

/// Calls `body(y, x, samples in the block, put)` block by block: a block holds the same samples,
/// and lies at the same place, in both orders.
fn convert(
    y: &mut [f32],
    x: &[f32],
    images: Images,
    write: Write,
    body: impl Fn(&mut [f32], &[f32], usize, Put) + Sync + Send,
) {
    let (work, sample) = (y.len(), images.sample());
    let block = SpatialLayout::new(images, BATCH_BLOCK).block;
    for_each_piece(y, block * sample, work, |first, y| {
        let (x, samples) = (&x[first..][..y.len()], y.len() / sample);
        match write {
            Write::Set => body(y, x, samples, set),
            Write::Add => body(y, x, samples, add),
        }
    });
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
                        Write::Add => dst.iter_mut().zip(src).for_each(|(d, s)| *d += s),
                    }
                }
                at += run;
            }
        },
    );
}
