//! Sums over rows, the same for any number of threads.
//!
//! Rows are added up in f32 within a leaf of about [`LEAF_ROWS`] rows, leaves in f64 in a binary
//! tree whose shape follows from the geometry alone. Threads only decide who computes which branch.

use super::dispatch::each_isa;
use super::elementwise::put;
use super::parallel::{NORM_MIN, shared_from};
use super::tiles::for_each_piece;
use crate::backend::{SpatialLayout, Write};
use std::ops::Range;

/// Columns summed at a time: few enough for the sums to stay in registers or the nearest cache.
pub(super) const PANEL: usize = 32;

/// Rows that are added up in f32 before the sum goes on in f64: rounding stays near one part in a
/// million, and a panel of a leaf (16 KiB) stays in the nearest cache for a second pass.
const LEAF_ROWS: usize = 128;

/// Numbers in a leaf of a sum over whole rows: 128 KiB, so that what is kept of each
/// is little beside it.
const LEAF: usize = 1 << 15;

/// Rows of a tensor as runs of consecutive rows, in rising order. The samples of a group are one run
/// in each pixel of each block that they reach into.
pub(super) struct Runs {
    layout: SpatialLayout,
    samples: Range<usize>,
}

impl Runs {
    /// The rows that belong to some samples of a spatial tensor.
    pub(super) fn of_samples(layout: SpatialLayout, samples: Range<usize>) -> Self {
        Runs { layout, samples }
    }

    /// The rows `0..rows`, one leaf a run.
    pub(super) fn contiguous(rows: usize) -> Self {
        let images = crate::shape::Images {
            n: rows,
            c: 1,
            h: 1,
            w: 1,
        };
        let layout = SpatialLayout {
            images,
            block: LEAF_ROWS,
        };
        Runs {
            layout,
            samples: 0..rows,
        }
    }

    /// How many rows there are in all.
    pub(super) fn rows(&self) -> usize {
        self.samples.len() * self.layout.images.pixels()
    }

    /// How many runs there are.
    fn count(&self) -> usize {
        if self.samples.is_empty() {
            return 0;
        }
        let (first, end) = (self.samples.start, self.samples.end);
        (end.div_ceil(self.layout.block) - first / self.layout.block) * self.layout.images.pixels()
    }

    /// How many blocks the rows reach into.
    pub(super) fn blocks(&self) -> usize {
        self.count() / self.layout.images.pixels().max(1)
    }

    /// Run `i`.
    #[inline]
    pub(super) fn get(&self, i: usize) -> Range<usize> {
        let (block, pixels) = (self.layout.block, self.layout.images.pixels());
        let first = (self.samples.start / block + i / pixels) * block;
        let size = block.min(self.layout.images.n - first);
        let pixel = first * pixels + i % pixels * size;
        let start = self.samples.start.max(first) - first;
        let end = self.samples.end.min(first + size) - first;
        pixel + start..pixel + end
    }

    /// Combines `leaf(runs)` of all leaves. A row has `width` numbers that count as work.
    pub(super) fn reduce<T: Send>(
        &self,
        width: usize,
        leaf: &(impl Fn(Range<usize>) -> T + Sync),
        merge: &(impl Fn(T, T) -> T + Sync),
    ) -> T {
        let leaf_runs = (LEAF_ROWS / self.layout.block).max(1);
        let parallel_runs = shared_from() / (self.layout.block * width).max(1);
        tree(0..self.count(), leaf_runs, parallel_runs, leaf, merge)
    }

    /// Some of the runs, those that follow on one another taken together.
    fn stretches(&self, runs: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        // Where all samples are meant, that is all of them.
        let all = self.samples == (0..self.layout.images.n) && !runs.is_empty();
        let whole = all.then(|| self.get(runs.start).start..self.get(runs.end - 1).end);
        let mut rest = (if all { 0..0 } else { runs })
            .map(|i| self.get(i))
            .peekable();
        let rest = std::iter::from_fn(move || {
            let mut rows = rest.next()?;
            while let Some(next) = rest.next_if(|next| next.start == rows.end) {
                rows.end = next.end;
            }
            Some(rows)
        });
        whole.into_iter().chain(rest)
    }

    /// The leaves of a sum over rows of `cols` numbers: each about [`LEAF`] numbers, one, two or four rows of pixels
    /// of a block, so that what computes four at a time computes whole leaves; or, where images are single pixels,
    /// some blocks.
    pub(super) fn leaves(&self, cols: usize) -> usize {
        let each = self.leaf_runs(cols);
        match self.layout.images.pixels() {
            0 | 1 => self.count().div_ceil(each),
            pixels => self.count() / pixels * pixels.div_ceil(each),
        }
    }

    fn leaf_runs(&self, cols: usize) -> usize {
        let (images, run) = (self.layout.images, (self.layout.block * cols).max(1));
        if images.pixels() < 2 {
            return (LEAF / run).max(1);
        }
        images.w
            * match LEAF / (images.w * run) {
                0 | 1 => 1,
                2 | 3 => 2,
                _ => 4,
            }
    }

    /// The rows of leaf `i`.
    pub(super) fn leaf(&self, i: usize, cols: usize) -> impl Iterator<Item = Range<usize>> {
        let each = self.leaf_runs(cols);
        let (first, end) = match self.layout.images.pixels() {
            0 | 1 => (i * each, self.count()),
            pixels => {
                let of_block = pixels.div_ceil(each);
                let block = i / of_block * pixels;
                (block + i % of_block * each, block + pixels)
            }
        };
        self.stretches(first..(first + each).min(end))
    }

    /// The leaves of some rows of pixels of the `block`th block: from a multiple of four on, to another or to the
    /// last.
    pub(super) fn leaves_of(&self, block: usize, rows: Range<usize>, cols: usize) -> Range<usize> {
        let (images, each) = (self.layout.images, self.leaf_runs(cols));
        let before = block * images.pixels().div_ceil(each);
        let at = |row: usize| before + (row * images.w).div_ceil(each);
        at(rows.start)..at(rows.end)
    }

    /// Calls `f(first row, the numbers of each tensor from there on)` for stretches of rows. Each of
    /// `dst` is a whole tensor of `cols` columns, or empty.
    pub(super) fn for_each_mut<const N: usize>(
        &self,
        dst: [&mut [f32]; N],
        cols: usize,
        f: &(impl Fn(usize, usize, [&mut [f32]; N]) + Sync),
    ) {
        self.split(0..self.count(), dst, 0, cols, f);
    }

    /// As [`for_each_mut`](Self::for_each_mut) for some of the runs; `dst` begins at row `first`.
    fn split<const N: usize>(
        &self,
        runs: Range<usize>,
        mut dst: [&mut [f32]; N],
        first: usize,
        cols: usize,
        f: &(impl Fn(usize, usize, [&mut [f32]; N]) + Sync),
    ) {
        if runs.len() > 1 && runs.len() * self.layout.block * cols >= 2 * NORM_MIN {
            let mid = runs.start + runs.len() / 2;
            let row = self.get(mid).start;
            let mut right: [&mut [f32]; N] = std::array::from_fn(|_| &mut [] as &mut [f32]);
            for (left, right) in dst.iter_mut().zip(&mut right) {
                let whole = std::mem::take(left);
                let cut = ((row - first) * cols).min(whole.len());
                (*left, *right) = whole.split_at_mut(cut);
            }
            // A thread by itself goes from the last rows to the first: the sums that came before have
            // left the last in its cache, and what reads the result begins with the first.
            rayon::join(
                || self.split(mid..runs.end, right, row, cols, f),
                || self.split(runs.start..mid, dst, first, cols, f),
            );
        } else {
            for rows in self.stretches(runs) {
                let (start, len) = ((rows.start - first) * cols, rows.len() * cols);
                let parts = dst.each_mut().map(|dst| match dst.is_empty() {
                    true => &mut [],
                    false => &mut dst[start..][..len],
                });
                f(rows.start, rows.len(), parts);
            }
        }
    }
}

/// Combines `leaf(part)` of parts of `leaf_runs` runs, pair by pair.
fn tree<T: Send>(
    runs: Range<usize>,
    leaf_runs: usize,
    parallel_runs: usize,
    leaf: &(impl Fn(Range<usize>) -> T + Sync),
    merge: &(impl Fn(T, T) -> T + Sync),
) -> T {
    if runs.len() <= leaf_runs {
        return leaf(runs);
    }
    let mid = runs.start + runs.len().div_ceil(leaf_runs) / 2 * leaf_runs;
    let branch = |runs| tree(runs, leaf_runs, parallel_runs, leaf, merge);
    let (left, right) = if runs.len() < parallel_runs {
        (branch(runs.start..mid), branch(mid..runs.end))
    } else {
        rayon::join(|| branch(runs.start..mid), || branch(mid..runs.end))
    };
    merge(left, right)
}

/// `dst = Σ rows of src` or `dst += Σ rows of src`
pub(super) fn sum_rows(dst: &mut [f32], src: &[f32], cols: usize, write: Write) {
    if cols == 0 {
        return;
    }
    let rows = Runs::contiguous(src.len() / cols);
    for_each_piece(dst, PANEL, src.len(), |first, dst| {
        let columns = first..first + dst.len();
        let leaf = |runs: Range<usize>| {
            let mut sums = [0.0; PANEL];
            for rows in runs.map(|i| rows.get(i)) {
                let src = &src[rows.start * cols..rows.end * cols];
                add_rows(&mut sums[..dst.len()], src, cols, columns.clone());
            }
            sums.map(f64::from)
        };
        let sums = rows.reduce(PANEL, &leaf, &add_panels);
        for (dst, sum) in dst.iter_mut().zip(sums) {
            put(dst, sum as f32, write);
        }
    });
}

each_isa! {
/// Adds some columns of every row of `src` to `sums`.
pub(super) fn add_rows(sums: &mut [f32], src: &[f32], cols: usize, columns: Range<usize>) {
    let mut at = 0;
    while at < sums.len() {
        let src = src.get(columns.start + at..).unwrap_or_default();
        let sums = &mut sums[at..];
        // As many as the compiler keeps in registers, however many that are left.
        at += match sums.len() {
            PANEL.. => add_columns::<PANEL>(sums, src, cols),
            16.. => add_columns::<16>(sums, src, cols),
            8.. => add_columns::<8>(sums, src, cols),
            4.. => add_columns::<4>(sums, src, cols),
            _ => add_columns::<1>(sums, src, cols),
        };
    }
}
}

/// Adds the first `N` columns of rows that are `cols` numbers apart, and returns `N`. The last row may be cut
/// behind these columns.
#[inline(always)]
fn add_columns<const N: usize>(sums: &mut [f32], src: &[f32], cols: usize) -> usize {
    if let Some(sums) = sums.first_chunk_mut::<N>() {
        let mut kept = *sums;
        for row in src.chunks(cols) {
            if let Some(row) = row.first_chunk::<N>() {
                for (sum, x) in kept.iter_mut().zip(row) {
                    *sum += x;
                }
            }
        }
        *sums = kept;
    }
    N
}

/// The sums of two branches.
pub(super) fn add_panels(mut a: [f64; PANEL], b: [f64; PANEL]) -> [f64; PANEL] {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Images;

    #[test]
    fn runs_are_the_rows_of_their_samples_in_order() {
        let images = Images {
            n: 70,
            c: 2,
            h: 2,
            w: 3,
        };
        let layout = SpatialLayout::new(images, 32);
        for samples in [0..0, 0..70, 0..24, 23..25, 10..60, 69..70] {
            let runs = Runs::of_samples(layout, samples.clone());
            let rows: Vec<usize> = (0..runs.count()).flat_map(|i| runs.get(i)).collect();
            assert!(rows.is_sorted(), "{samples:?}");
            let mut expected: Vec<usize> = samples
                .flat_map(|s| (0..6).map(move |p| layout.index(s, p / 3, p % 3) / 2))
                .collect();
            expected.sort_unstable();
            assert_eq!(rows, expected);
            assert_eq!(rows.len(), runs.rows());
        }
    }
}
