//! The tiles of a batch of images, and their transforms.

use super::{PLACES, REACH, TILE, square};
use crate::backend::SpatialLayout;
use crate::backend::Write;
use crate::backend::cpu::BATCH_BLOCK;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::table::Table;
use crate::shape::Images;
use rayon::prelude::*;

/// The tiles of all blocks of a batch: those of a block follow one another.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub layout: SpatialLayout,
    across: usize,
    /// Tiles of a block.
    pub each: usize,
}

impl Tiles {
    /// The tiles that `images`, the batch computed, is cut into.
    pub fn new(images: Images) -> Self {
        let across = images.w.div_ceil(TILE);
        Tiles {
            layout: SpatialLayout::new(images, BATCH_BLOCK),
            across,
            each: images.h.div_ceil(TILE) * across,
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.layout.images.n.div_ceil(self.layout.block) * self.each
    }

    /// The first sample of the block of tile `i`, and the samples in it.
    pub fn block(self, i: usize) -> (usize, usize) {
        let start = i / self.each * self.layout.block;
        (start, self.layout.block.min(self.layout.images.n - start))
    }

    /// The first row and column of pixels of tile `i`.
    pub fn at(self, i: usize) -> [usize; 2] {
        let i = i % self.each;
        [i / self.across * TILE, i % self.across * TILE]
    }
}

/// The squares of `reach` pixels of some images that belong to tiles.
pub(super) struct Squares<'a> {
    pub table: &'a Table,
    pub tiles: Tiles,
    pub src: &'a [f32],
    pub images: Images,
    pub padding: [usize; 2],
    pub reach: usize,
}

impl Squares<'_> {
    /// Transforms as many tiles as `out` has room for, from tile `first` on: of each its 36 places one
    /// after the other, `step` numbers apart.
    pub fn transform(
        &self,
        transform: Transform,
        (out, step): (&mut [f32], usize),
        first: usize,
        parallel: bool,
    ) {
        let tiles = out.par_chunks_mut(PLACES * step).enumerate();
        let tiles = tiles.with_min_len(if parallel { 1 } else { usize::MAX });
        tiles.for_each(|(i, out)| {
            let (start, samples) = self.tiles.block(first + i);
            let sample = self.images.sample();
            let src = &self.src[start * sample..][..samples * sample];
            let at = self.tiles.at(first + i);
            let from = square(at, self.padding, self.reach, self.images, samples);
            let to = Places::all(REACH, 0, REACH * step, step);
            let len = samples * self.images.c;
            (self.table).winograd(transform, (out, &to), (src, &from), len, Write::Set);
        });
    }
}
