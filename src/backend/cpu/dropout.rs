//! Dropout by a mask that is computed where it is used.

use super::BATCH_BLOCK;
use super::elementwise::put;
use super::parallel::{for_each_piece, min_tasks};
use crate::backend::dropout::{DROPOUT_BLOCK, dropout_block};
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
                for (s, (y, x)) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).enumerate() {
                    row_body(y, x, &mask, (first_sample + s) as u32, p * c, write);
                }
            });
    });
}

/// One pixel of one sample, whose first channel is element `first`.
#[inline(always)]
fn row_body(y: &mut [f32], x: &[f32], mask: &DropoutMask, sample: u32, first: usize, write: Write) {
    // A block of the generator may begin before the row, and end after it.
    let head = y.len().min(first.next_multiple_of(DROPOUT_BLOCK) - first);
    let ((y_head, y), (x_head, x)) = (y.split_at_mut(head), x.split_at(head));
    let (y_blocks, y_tail) = y.as_chunks_mut::<DROPOUT_BLOCK>();
    let (x_blocks, x_tail) = x.as_chunks::<DROPOUT_BLOCK>();

    let mut block = (first / DROPOUT_BLOCK) as u32;
    if head > 0 {
        let factors = factors(mask, sample, block);
        apply(y_head, x_head, &factors[first % DROPOUT_BLOCK..], write);
        block += 1;
    }
    for (y, x) in y_blocks.iter_mut().zip(x_blocks) {
        apply(y, x, &factors(mask, sample, block), write);
        block += 1;
    }
    if !y_tail.is_empty() {
        apply(y_tail, x_tail, &factors(mask, sample, block), write);
    }
}

/// What a block of elements is multiplied by.
#[inline(always)]
fn factors(mask: &DropoutMask, sample: u32, block: u32) -> [f32; DROPOUT_BLOCK] {
    let scale = 1.0 / (1.0 - mask.p);
    dropout_block(mask, sample, block).map(|keep| if keep { scale } else { 0.0 })
}

#[inline(always)]
fn apply(y: &mut [f32], x: &[f32], factors: &[f32], write: Write) {
    for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
        put(y, x * factor, write);
    }
}
