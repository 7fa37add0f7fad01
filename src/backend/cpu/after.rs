//! Who looks at what a convolution computes as soon as it is there, and still in the cache.

use std::ops::Range;

/// Told of some rows of pixels of a block that are done: the block, which of its rows, and their numbers. They begin
/// at a multiple of four and end at another or at the last. The numbers may be changed.
pub(super) type RowsDone<'a> = dyn Fn(usize, Range<usize>, &mut [f32]) + Sync + 'a;

/// A [`RowsDone`] and what it looks at beside the rows, at the same places: it may be asked for meanwhile. Empty ones mean
/// nothing.
#[derive(Clone, Copy)]
pub(crate) struct After<'a> {
    pub rows_done: &'a RowsDone<'a>,
    pub beside: [&'a [f32]; 2],
}
