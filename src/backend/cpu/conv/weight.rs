//! The gradient of a convolution's weight: `dw[place] = Σ_pixel x[pixel·stride + place - padding]ᵀ·
//! dy[pixel]`, a product whose terms are the samples of all pixels.

use super::{axis, parallel};
use crate::backend::cpu::BATCH_BLOCK;
use crate::backend::cpu::bf16::push;
use crate::backend::cpu::isa::Tap;
use crate::backend::cpu::scratch;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::tiles::TileMut;
use crate::backend::{SpatialLayout, Write};
use crate::shape::{Conv, Images};
use std::ops::Range;

/// Terms that a register tile adds before it goes back to memory. The more, the less traffic of the
/// weight; the fewer, the more of the terms stay in the first-level cache.
const TERMS: std::ops::RangeInclusive<usize> = 128..=512;

/// Vectors of CPUs whose first-level cache, of 32 kilobytes, holds no more than the least terms: those without AVX-512.
const SMALL_LANES: usize = 8;

/// Numbers of both images in a group of terms, if it may be so short: 32 kilobytes, which stay in a first-level cache
/// while the places of the kernel go through them one after another.
const GROUP: usize = 1 << 13;

/// Numbers of a weight that stay in cache: half a megabyte. A larger one takes the longest groups.
const CACHED: usize = 1 << 17;

/// Terms in a part of the sum that is computed on its own, for most weights and for small ones.
const PART_TERMS: usize = 1 << 12;
const PART_TERMS_SMALL: usize = 1 << 10;

/// Numbers of a weight whose parts are soon added.
const SMALL: usize = 1 << 13;

/// Most parts, and most numbers in all of them.
const PARTS: usize = 16;
const PART_NUMBERS: usize = 1 << 21;

/// Parts that keep all threads busy, so that none needs to be cut.
const ENOUGH_PARTS: usize = 8;

/// Rows of the weight that one thread computes, if there are not enough parts.
const CELL_ROWS: usize = 56;

/// Numbers of a weight that a thread by itself computes all rows of, group by group: those that a second-level cache of
/// two megabytes holds.
const ALONE: usize = 1 << 19;

/// Numbers that one thread adds up from all parts.
const CELL_SUM: usize = 1 << 14;

/// Computes the gradient of the weight.
pub(super) fn gradient(
    table: &Table,
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    let sum = Sum {
        table,
        x,
        dy,
        conv,
        output: conv.output(),
        block: SpatialLayout::new(conv.input, BATCH_BLOCK).block,
        planes: 1,
        upright: false,
        parallel: parallel(conv),
    };
    add_up(&sum, dw, write);
}

/// Writes a sum. A long one for a small weight is cut into parts, which are added in order at the end; how
/// many depends on the sizes alone.
pub(super) fn add_up(sum: &Sum<'_>, dw: &mut [f32], write: Write) {
    if dw.is_empty() {
        return;
    }
    let (conv, output) = (sum.conv, sum.output);
    let len = dw.len();
    let lines = output.n.div_ceil(sum.block) * output.h;
    let part_terms = if len <= SMALL {
        PART_TERMS_SMALL
    } else {
        PART_TERMS
    };
    let parts = (output.n * output.pixels() / part_terms)
        .min(PARTS)
        .min(PART_NUMBERS / len)
        .min(lines)
        .max(1);
    // Two threads have as much to do.
    let parts = if parts > 1 { parts / 2 * 2 } else { 1 };
    let rows = len / conv.out_c;
    let mut cell_rows = rows;
    let alone = rayon::current_num_threads() == 1 && len <= ALONE;
    if sum.parallel && parts < ENOUGH_PARTS && !alone {
        cell_rows = rows.div_ceil(rows.div_ceil(CELL_ROWS));
        if conv.input.c < CELL_ROWS {
            // Whole places: their rows are what register tiles are cut from.
            cell_rows = CELL_ROWS / conv.input.c * conv.input.c;
        }
    }
    let part = |part: usize, dw: TileMut<'_>, write: Write| {
        let range = lines * part / parts..lines * (part + 1) / parts;
        dw.for_each_cell(cell_rows, conv.out_c, sum.parallel, &|first, _, dw| {
            sum.lines(dw, first, range.clone(), write);
        });
    };
    if parts == 1 {
        return part(0, TileMut::new(dw, rows, conv.out_c, conv.out_c), write);
    }
    scratch::numbers(parts * len, |partial| {
        let all = TileMut::new(partial, parts * rows, conv.out_c, conv.out_c);
        all.for_each_cell(rows, conv.out_c, sum.parallel, &|first, _, dw| {
            part(first / rows, dw, Write::Set);
        });
        let partial = &*partial;
        let dw = TileMut::new(dw, 1, len, len);
        dw.for_each_cell(1, CELL_SUM, sum.parallel, &|_, at, mut dw| {
            let dw = dw.row(0);
            for part in 0..parts {
                let part_of = &partial[part * len + at..][..dw.len()];
                if part == 0 && write == Write::Set {
                    dw.copy_from_slice(part_of);
                } else {
                    for (sum, x) in dw.iter_mut().zip(part_of) {
                        *sum += x;
                    }
                }
            }
        });
    });
}

/// The terms of the gradient. Of numbers there is one for each sample of a pixel; of words (see
/// [`super::bf16`]) half as many, and everything here counts words as samples.
pub(super) struct Sum<'a> {
    pub table: &'a Table,
    pub x: &'a [f32],
    pub dy: &'a [f32],
    /// The geometry, with the samples that `x` and `dy` have.
    pub conv: Conv,
    /// Its output.
    pub output: Images,
    /// Samples in each block but the last.
    pub block: usize,
    /// Planes of the channels of both images: two if their numbers are split.
    pub planes: usize,
    /// In a pixel of `x` the samples of a channel lie side by side, not the channels of a sample.
    pub upright: bool,
    pub parallel: bool,
}

/// Output pixels of one block whose terms are added in one go.
struct Group {
    /// The first sample of the block and the samples in it.
    block: (usize, usize),
    rows: Range<usize>,
    cols: Range<usize>,
}

/// What a group reads: some pixels of the gradient of the output, and those of the input for each row of the kernel.
struct Next<'a> {
    dy: &'a [f32],
    /// From the first of them for the first row of the kernel on.
    x: &'a [f32],
    /// Numbers of a row of pixels of the input, and those of them that are read.
    row: usize,
    len: usize,
}

impl<'a> Next<'a> {
    /// What the products for some of `all` rows of the weight ask for. Where these are whole places, all in a row of the
    /// kernel but the last ask for the pixels of the input that this row of the kernel meets, the last for its part of the
    /// gradient of the output.
    fn share(
        &self,
        place: usize,
        [down, across]: [usize; 2],
        rows: Range<usize>,
        all: usize,
    ) -> &'a [f32] {
        let (y, x) = (place / across, place % across);
        let whole = rows.len() * down * across == all;
        let (numbers, part, parts) = if !whole || across == 1 {
            let share = |row| self.dy.len() * row / all;
            return &self.dy[share(rows.start)..share(rows.end)];
        } else if x + 1 < across {
            let start = (y * self.row).min(self.x.len());
            let end = (start + self.len).min(self.x.len());
            (&self.x[start..end], x, across - 1)
        } else {
            (self.dy, y, down)
        };
        let share = |part| numbers.len() * part / parts;
        &numbers[share(part)..share(part + 1)]
    }
}

impl Sum<'_> {
    /// Sums over `lines`, rows of output pixels counted through all blocks, into the rows of the
    /// weight from `first` on.
    fn lines(&self, mut dw: TileMut<'_>, first: usize, lines: Range<usize>, write: Write) {
        let (h, w) = (self.output.h, self.output.w);
        let terms = if self.table.lanes() <= SMALL_LANES {
            *TERMS.start()
        } else if self.conv.weight_len() > CACHED {
            *TERMS.end()
        } else {
            let numbers = self.conv.input.c + self.output.c;
            (GROUP / numbers).clamp(*TERMS.start(), *TERMS.end())
        };
        let mut write = write;
        let mut line = lines.start;
        scratch::taps(|taps| {
            while line < lines.end {
                let start = line / h * self.block;
                let samples = self.block.min(self.output.n - start);
                // As many rows as have `terms` terms, or as many columns of one row.
                let row = line % h;
                let rows = (terms / (w * samples).max(1)).clamp(1, (h - row).min(lines.end - line));
                let cols = if rows > 1 {
                    w.max(1)
                } else {
                    (terms / samples).clamp(1, w.max(1))
                };
                for col in (0..w).step_by(cols) {
                    let group = Group {
                        block: (start, samples),
                        rows: row..row + rows,
                        cols: col..(col + cols).min(w),
                    };
                    self.group(dw.reborrow(), first, &group, taps, write);
                    write = Write::Add;
                }
                line += rows;
            }
            if write == Write::Set {
                // There was not a single term.
                for i in 0..dw.rows() {
                    dw.row(i).fill(0.0);
                }
            }
        });
    }

    /// Adds one group to the rows of the weight from `first` on, place by place.
    fn group(
        &self,
        mut dw: TileMut<'_>,
        first: usize,
        group: &Group,
        taps: &mut Vec<Tap>,
        write: Write,
    ) {
        let (input, output) = (self.conv.input, self.output);
        let (start, samples) = group.block;
        let x_sample = self.planes * input.sample();
        let dy_sample = self.planes * output.sample();
        let x = &self.x[start * x_sample..][..samples * x_sample];
        let dy = &self.dy[start * dy_sample..][..samples * dy_sample];
        let a_row = if self.upright { samples } else { 1 };
        let next = self.next(group, x, dy);
        let all = dw.rows();
        let mut row = 0;
        while row < dw.rows() {
            let (place, channel) = ((first + row) / input.c, (first + row) % input.c);
            let rows = (input.c - channel).min(dw.rows() - row);
            let (k, a_step) = self.taps(taps, place, group);
            if !taps.is_empty() || write == Write::Set {
                let terms = Terms {
                    a: &x[(channel * a_row).min(x.len())..],
                    b: dy,
                    taps,
                    k,
                    a_row,
                    a_step,
                    b_row: self.planes * output.c,
                };
                let dw = dw.rows_every(row, rows, 1);
                let widths = self.table.widths(dw.rows(), dw.cols());
                let ahead = next.share(place, self.conv.kernel, row..row + rows, all);
                (self.table).product_cut(dw, &terms, write, &widths, ahead);
            }
            row += rows;
        }
    }

    /// What the group after this one reads, if it is one like this.
    fn next<'a>(&self, group: &Group, x: &'a [f32], dy: &'a [f32]) -> Next<'a> {
        let (input, output) = (self.conv.input, self.output);
        let samples = group.block.1;
        let pixel = samples * self.planes * output.c;
        let end = (group.rows.end - 1) * output.w + group.cols.end;
        let count = group.rows.len() * group.cols.len();
        let [start, end] = [end, end + count].map(|pixels| (pixels * pixel).min(dy.len()));
        // Of the input the same pixels of each row that a row of the kernel meets.
        let pixel = samples * self.planes * input.c;
        let (row, col) = if group.cols.end < output.w {
            (group.rows.start, group.cols.end)
        } else {
            (group.rows.end, 0)
        };
        let [stride, across] = self.conv.stride;
        let first = (row * stride * input.w + col * across) * pixel;
        let row = input.w * pixel;
        let x = x
            .get(first.saturating_sub(self.conv.padding[0] * row)..)
            .unwrap_or_default();
        Next {
            dy: &dy[start..end],
            x,
            row,
            len: (group.cols.len() * across).min(input.w) * pixel,
        }
    }

    /// Lists the terms of one place: runs of pixels, or of samples, that lie evenly on both sides.
    /// Returns the terms in a run and the distance between them in `x`.
    fn taps(&self, taps: &mut Vec<Tap>, place: usize, group: &Group) -> (usize, usize) {
        taps.clear();
        let samples = group.block.1;
        let (input, output) = (self.conv.input, self.output);
        let stride = self.conv.stride[1];
        let (x_row, dy_row) = (self.planes * input.c, self.planes * output.c);
        let low = if self.upright {
            samples * input.c
        } else {
            input.c
        };
        let low = (self.planes > 1).then_some((low, output.c));
        let ys = self.meeting(0, place / self.conv.kernel[1], &group.rows);
        let xs = self.meeting(1, place % self.conv.kernel[1], &group.cols);
        let (run, k, a_step) = if self.upright {
            (1, samples, 1)
        } else if stride == 1 {
            (xs.len(), xs.len() * samples, x_row)
        } else if samples == 1 {
            (xs.len(), xs.len(), stride * x_row)
        } else {
            (1, samples, x_row)
        };
        for oy in ys {
            let y = oy * self.conv.stride[0] + place / self.conv.kernel[1] - self.conv.padding[0];
            for ox in xs.clone().step_by(run.max(1)) {
                let x = ox * stride + place % self.conv.kernel[1] - self.conv.padding[1];
                let tap = Tap {
                    a: (y * input.w + x) * samples * x_row,
                    b: (oy * output.w + ox) * samples * dy_row,
                };
                push(taps, tap, low);
            }
        }
        (k, a_step)
    }

    /// The output coordinates among `range` whose window has its place `place` inside the image.
    fn meeting(&self, which: usize, place: usize, range: &Range<usize>) -> Range<usize> {
        let axis = axis(self.conv, which, false);
        // start: dst·stride + place >= padding; end: dst·stride + place < src + padding.
        let first = axis.padding.saturating_sub(place).div_ceil(axis.stride);
        let end = (axis.src + axis.padding)
            .saturating_sub(place)
            .div_ceil(axis.stride);
        let (first, end) = (first.max(range.start), end.min(range.end));
        first..end.max(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_ask_for_all_that_comes_next_once() {
        let numbers: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let next = Next {
            dy: &numbers[90..],
            x: &numbers[..80],
            row: 30,
            len: 15,
        };
        let asked = |kernel: [usize; 2], rows: usize, cell: usize| -> Vec<f32> {
            let shares = (0..cell / rows).flat_map(|place| {
                let rows = place * rows..(place + 1) * rows;
                next.share(place, kernel, rows, cell)
            });
            let mut shares: Vec<f32> = shares.copied().collect();
            shares.sort_by(f32::total_cmp);
            shares
        };
        let x = numbers[..15]
            .iter()
            .chain(&numbers[30..45])
            .chain(&numbers[60..75]);
        let all: Vec<f32> = x.chain(&numbers[90..]).copied().collect();
        assert_eq!(asked([3, 3], 4, 36), all);
        assert_eq!(asked([3, 2], 4, 24), all);
        // A kernel of one column, and some of the places.
        assert_eq!(asked([1, 1], 4, 4), numbers[90..]);
        assert_eq!(asked([3, 3], 4, 16), numbers[90..]);
    }
}
