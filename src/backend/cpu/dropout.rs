//! Dropout by a mask that is computed where it is used.

use super::BATCH_BLOCK;
use super::dispatch::each_isa;
use super::elementwise::put;
use super::parallel::min_tasks;
use super::tiles::for_each_piece;
use crate::backend::dropout::{DROPOUT_BLOCK, dropout_blocks};
use crate::backend::{DropoutMask, SpatialLayout, Write};
use crate::shape::Images;
use rayon::prelude::*;

/// `y = x·mask / (1 - p)`
pub(super) fn dropout(y: &mut [f32], x: &[f32], images: Images, mask: DropoutMask, write: Write) {
    let (work, c, sample) = (y.len(), images.c, images.sample());
    let block = SpatialLayout::new(images, BATCH_BLOCK).block;
    for_each_piece(y, block * sample, work, |first, y| {
        let x = &x[first..][..y.len()];
        let (first_sample, samples) = (first / sample, y.len() / sample);
        let pixels = y.par_chunks_mut(samples * c).zip(x.par_chunks(samples * c));
        pixels
            .with_min_len(min_tasks(work))
            .enumerate()
            .for_each(|(p, (y, x))| {
                let first = [first_sample, p * c];
                pixel(y, x, c, &mask, first, write);
            });
    });
}

each_isa! {
/// One pixel of some samples of `c` channels; `first` are the first of these samples and, within each,
/// the number of the first channel's element.
fn pixel(
    y: &mut [f32],
    x: &[f32],
    c: usize,
    mask: &DropoutMask,
    first: [usize; 2],
    write: Write,
) {
    for (s, (y, x)) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).enumerate() {
        row(y, x, mask, (first[0] + s) as u32, first[1], write);
    }
}
}

/// Blocks of the generator that are computed together.
const TOGETHER: usize = 8;

/// One pixel of one sample, whose first channel is element `first`.
#[inline(always)]
fn row(y: &mut [f32], x: &[f32], mask: &DropoutMask, sample: u32, first: usize, write: Write) {
    // A block may begin before the row, and end after it.
    let head = y.len().min(first.next_multiple_of(DROPOUT_BLOCK) - first);
    let ((y_head, y), (x_head, x)) = (y.split_at_mut(head), x.split_at(head));
    if head > 0 {
        let factors = factors(mask, sample, first / DROPOUT_BLOCK);
        apply(y_head, x_head, &factors[first % DROPOUT_BLOCK..], write);
    }
    const ELEMENTS: usize = TOGETHER * DROPOUT_BLOCK;
    let blocks = (first.div_ceil(DROPOUT_BLOCK)..).step_by(TOGETHER);
    for (block, (y, x)) in blocks.zip(y.chunks_mut(ELEMENTS).zip(x.chunks(ELEMENTS))) {
        apply(y, x, &factors(mask, sample, block), write);
    }
}

/// What the elements from block `block` on are multiplied by.
#[inline(always)]
fn factors(mask: &DropoutMask, sample: u32, block: usize) -> [f32; TOGETHER * DROPOUT_BLOCK] {
    let scale = 1.0 / (1.0 - mask.p);
    let keeps = dropout_blocks::<TOGETHER>(mask, sample, block as u32);
    let mut factors = [0.0; TOGETHER * DROPOUT_BLOCK];
    for (i, block) in factors.chunks_exact_mut(DROPOUT_BLOCK).enumerate() {
        for (factor, keeps) in block.iter_mut().zip(&keeps) {
            *factor = if keeps[i] { scale } else { 0.0 };
        }
    }
    factors
}

#[inline(always)]
fn apply(y: &mut [f32], x: &[f32], factors: &[f32], write: Write) {
    for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
        put(y, x * factor, write);
    }
}
