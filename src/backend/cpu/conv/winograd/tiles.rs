//! The tiles of a batch of images, and their transforms.

use super::{PLACES, REACH, TILE, square};
use crate::backend::SpatialLayout;
use crate::backend::Write;
use crate::backend::cpu::BATCH_BLOCK;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::table::Table;
use crate::backend::cpu::tiles::TileMut;
use crate::shape::Images;

/// Tiles that keep the threads busy; the numbers of fewer are shared in pieces.
const ENOUGH_TILES: usize = 8;

/// About so many numbers of each place are transformed by one thread at a time.
const PIECE: usize = 1024;

/// The length of all but the last of nearly equal pieces of `len` numbers, in whole cache lines.
pub(super) fn piece(len: usize) -> usize {
    len.div_ceil(len.div_ceil(PIECE).max(1))
        .next_multiple_of(16)
}

/// The tiles of all blocks of a batch: those of a block follow one another.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub layout: SpatialLayout,
    /// Tiles beside one another: a strip of them.
    pub across: usize,
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

    /// How many strips there are: tiles beside one another, `TILE` rows of pixels.
    pub fn strips(self) -> usize {
        self.count() / self.across
    }

    /// The samples of pixels that come before strip `i` in memory, which may be one past the last.
    pub fn start(self, i: usize) -> usize {
        let (images, tile) = (self.layout.images, i * self.across);
        if tile >= self.count() {
            return images.n * images.pixels();
        }
        let (start, samples) = self.block(tile);
        start * images.pixels() + self.at(tile)[0] * images.w * samples
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
        let tiles = out.len() / (PLACES * step).max(1);
        let width = if tiles < ENOUGH_TILES {
            piece(step)
        } else {
            step
        };
        let to = Places::all(REACH, 0, REACH, 1);
        let out = TileMut::new(out, tiles * PLACES, step, step);
        out.for_each_cell(PLACES, width, parallel, &|row, at, out| {
            let tile = first + row / PLACES;
            let (start, samples) = self.tiles.block(tile);
            let sample = self.images.sample();
            let src = &self.src[start * sample..][..samples * sample];
            let mut from = square(
                self.tiles.at(tile),
                self.padding,
                self.reach,
                self.images,
                samples,
            );
            from.first += at;
            // Places are a little apart, and the last block may have fewer samples.
            let len = (samples * self.images.c).saturating_sub(at);
            let cols = out.cols().min(len);
            let (out, _) = out.split_cols(cols);
            let (out, src) = ((out, &to), (src, &from));
            (self.table).winograd_rows(transform, out, src, (1, 0), Write::Set);
        });
    }
}
