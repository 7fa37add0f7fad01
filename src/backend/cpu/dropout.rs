//! Dropout by a mask that is computed where it is used.

use super::BATCH_BLOCK;
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
    let scale = 1.0 / (1.0 - mask.p);
    let mut at = 0;
    while at < y.len() {
        // A block of the generator may begin before the row, and end after it.
        let (block, skip) = ((first + at) / DROPOUT_BLOCK, (first + at) % DROPOUT_BLOCK);
        let keeps = dropout_block(mask, sample, block as u32);
        let end = y.len().min(at + DROPOUT_BLOCK - skip);
        let places = y[at..end].iter_mut().zip(&x[at..end]).zip(&keeps[skip..]);
        for ((y, x), &keep) in places {
            let value = x * if keep { scale } else { 0.0 };
            match write {
                Write::Set => *y = value,
                Write::Add => *y += value,
            }
        }
        at = end;
    }
}
