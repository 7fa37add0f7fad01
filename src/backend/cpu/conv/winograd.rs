//! 3x3 convolutions of stride 1 by Winograd's `F(4x4, 3x3)`: a quarter of the multiplications.
//!
//! The image computed is cut into tiles of 4x4 pixels, each of which needs a tile of 6x6 of the
//! image that is read. Transforms take tiles and weights to 36 places; at each place the convolution
//! is one matrix product over channels, with the samples of some tiles as rows:
//!
//! ```text
//! v[place] = Input(tile of x)         rows x in
//! u[place] = Weight(w)                in x out
//! m[place] = v[place]·u[place]        rows x out        tile of y = Output(m)
//! ```
//!
//! The gradient of the input is the same with the weight turned over; that of the weight is
//! `Σ v[place]ᵀ·OutputGradient(tile of dy)`, transformed back once at the end.
//!
//! Everything is f32. Sums of transformed numbers cancel, so the error grows to a few millionths of
//! the result (relative, root of mean square), where a direct sum has some ten-millionths.

use crate::backend::cpu::BATCH_BLOCK;
use crate::backend::cpu::after::After;
use crate::backend::cpu::isa::Tap;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::scratch;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::tiles::TileMut;
use crate::backend::cpu::widths::Widths;
use crate::backend::{SpatialLayout, Write};
use crate::shape::{Conv, Images};
use rayon::prelude::*;
use std::ops::Range;

mod gradient;
pub(super) mod large;
mod tiles;

pub(super) use gradient::weight_gradient;

/// Pixels along the side of a tile of the image that is computed.
const TILE: usize = 4;

/// Pixels along the side of a tile of the image that is read.
const REACH: usize = 6;

/// Places at which products are taken.
const PLACES: usize = REACH * REACH;

/// Numbers in a line of the caches.
const LINE: usize = 16;

/// Channels that are read from which the products take so long that it does not matter what the sums wait for when
/// they are written.
const MANY_CHANNELS: usize = 64;

/// Rows of the products that are worth having in one go.
const ROWS: usize = 48;

/// Vectors in a row of a panel of the transformed weight.
const PANEL_VECTORS: usize = 2;

/// Strips of a block that keep the threads busy.
const ENOUGH_STRIPS: usize = 4;

/// Places that one thread multiplies at least, where threads share them: as many groups as rows of pixels in a tile.
const PLACES_TOGETHER: usize = PLACES / TILE;

/// Vectors of a panel of which several places are multiplied in one go.
const NARROW: usize = 3;

/// Fewest channels on either side for which the transforms pay.
const CHANNELS: usize = 16;

/// Numbers of each place of the weight that one thread transforms, where threads share them.
const WEIGHT_PIECE: usize = 2048;

/// Rows whose products take as long as the transform of the weight that they are multiplied with.
const WEIGHT_ROWS: usize = 12;

/// The distance between two places of `numbers` numbers: an odd number of lines, so that places fall on all parts of
/// the caches in turn.
fn apart(numbers: usize) -> usize {
    (numbers.div_ceil(LINE) | 1) * LINE
}

/// Whether this convolution is faster this way: the multiplications that are saved must be worth
/// the transforms.
pub(super) fn pays(conv: Conv) -> bool {
    work(conv).is_some_and(|(direct, transformed)| 2 * direct > 3 * transformed)
}

/// Whether it saves more than multiplications at twice the speed would, rounded factors: not for small
/// images, whose places outside cost nothing there, and small batches.
pub(super) fn saves_three_fifths(conv: Conv) -> bool {
    work(conv).is_some_and(|(direct, transformed)| 2 * direct > 5 * transformed)
}

/// The products of numbers for each pair of channels, directly and this way (with what the transform of
/// the weight takes), where this way is possible.
fn work(conv: Conv) -> Option<(usize, usize)> {
    let output = conv.output();
    let fits =
        conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.padding.iter().all(|&p| p < 3);
    if !fits || output.is_empty() || conv.input.c.min(conv.out_c) < CHANNELS {
        return None;
    }
    let meeting = |from: usize, to: usize, padding: usize| -> usize {
        let outputs = |t: usize| {
            let end = to.min((from + padding).saturating_sub(t));
            end.saturating_sub(padding.saturating_sub(t))
        };
        (0..3).map(outputs).sum()
    };
    let direct = meeting(conv.input.h, output.h, conv.padding[0])
        * meeting(conv.input.w, output.w, conv.padding[1])
        * output.n;
    let tiles = output.h.div_ceil(TILE) * output.w.div_ceil(TILE) * output.n;
    Some((direct, PLACES * (tiles + WEIGHT_ROWS)))
}

/// The part of a side of `len` pixels that `reach` pixels from `start` (which may be a little before
/// its beginning, `start - padding`) lie in: which of the pixels exist, and where the first of them is.
fn inside(start: usize, padding: usize, reach: usize, len: usize) -> (Range<usize>, usize) {
    let first = padding.saturating_sub(start).min(reach);
    let end = (len + padding).saturating_sub(start).min(reach).max(first);
    (first..end, (start + first).saturating_sub(padding))
}

/// The pixels of a block of images that a square reaches, as places that hold all samples and
/// channels of a pixel.
fn square(
    [y, x]: [usize; 2],
    padding: [usize; 2],
    reach: usize,
    images: Images,
    samples: usize,
) -> Places {
    let pixel = samples * images.c;
    let (rows, top) = inside(y, padding[0], reach, images.h);
    let (cols, left) = inside(x, padding[1], reach, images.w);
    Places {
        first: (top * images.w + left) * pixel,
        row: images.w * pixel,
        col: pixel,
        rows,
        cols,
    }
}

/// `y = x * w`, or the gradient of the input from `dy` and `w` if `transposed`. `after` is told of rows of pixels
/// where they are computed by themselves, which is wherever the weight does not go [piece by piece](large).
#[track_caller]
#[expect(
    clippy::too_many_arguments,
    reason = "a convolution, and who looks at it"
)]
pub(super) fn convolve(
    table: &Table,
    dst: &mut [f32],
    src: &[f32],
    w: &[f32],
    conv: Conv,
    transposed: bool,
    write: Write,
    after: Option<After<'_>>,
) {
    let (x, y, parallel) = (conv.input, conv.output(), super::parallel(conv));
    let (from, to) = if transposed { (y, x) } else { (x, y) };
    if large::suits(conv, to) {
        assert!(after.is_none(), "{conv:?} is not computed row by row");
        return large::convolve(table, dst, src, w, conv, transposed, write);
    }
    let padding = conv.padding.map(|p| if transposed { 2 - p } else { p });
    let lanes = PANEL_VECTORS * table.lanes();
    let cols = if to.c.is_multiple_of(lanes) || to.c > 8 * lanes {
        lanes
    } else {
        to.c
    };
    let panel = PLACES * apart(from.c * cols);
    scratch::numbers(to.c.div_ceil(cols) * panel, |u| {
        let rows = from
            .c
            .div_ceil((from.c * cols).div_ceil(WEIGHT_PIECE).max(1));
        let panels = u.len() / panel;
        let step = apart(from.c * cols);
        let all = TileMut::new(u, panels * PLACES, from.c * cols, step);
        all.for_each_cell(PLACES, rows * cols, parallel, &|place, at, u| {
            let (panel, first) = (place / PLACES * cols, at / cols);
            let depth = first..first + u.cols() / cols;
            weight(table, u, w, conv, transposed, (panel, cols), depth);
        });
        let pass = Pass {
            table,
            src,
            u,
            cols,
            from,
            to,
            padding,
            write,
            parallel,
            after,
        };
        let block = SpatialLayout::new(to, BATCH_BLOCK).block;
        pass.blocks(dst, block, 0..to.n.div_ceil(block));
    });
}

/// The transformed weight from the channels `depth` that are read to the `cols` from `start` on that
/// are computed: `u[place][depth][cols]`, a row for each place.
fn weight(
    table: &Table,
    u: TileMut<'_>,
    w: &[f32],
    conv: Conv,
    transposed: bool,
    (start, cols): (usize, usize),
    depth: Range<usize>,
) {
    let (inputs, outputs) = (conv.input.c, conv.out_c);
    let (rows, matrix) = (depth.len(), inputs * outputs);
    let width = cols.min(if transposed { inputs } else { outputs } - start);
    let to = Places::all(REACH, 0, REACH, 1);
    if !transposed && width == cols {
        let first = depth.start * outputs + start;
        let w = (w, &Places::all(3, first, 3 * matrix, matrix));
        // Whole rows of the weight follow on one another.
        let lines = if cols == outputs {
            (1, 0)
        } else {
            (rows, outputs)
        };
        return table.winograd_rows(Transform::Weight, (u, &to), w, lines, Write::Set);
    }
    let len = rows * cols;
    scratch::numbers(9 * len, |piece| {
        for (place, out) in piece.chunks_exact_mut(len).enumerate() {
            if transposed {
                let w = &w[(8 - place) * matrix + start * outputs + depth.start..];
                table.transpose((out, cols), (w, outputs), (width, rows));
            } else {
                let w = &w[place * matrix + depth.start * outputs + start..];
                table.copy((out, cols), (w, outputs), (rows, width));
            }
        }
        let from = Places::all(3, 0, 3 * len, len);
        let (u, _) = u.split_cols(len - (cols - width));
        let (u, piece) = ((u, &to), (&*piece, &from));
        table.winograd_rows(Transform::Weight, u, piece, (1, 0), Write::Set);
    });
}

/// A convolution under way, forward or backward.
struct Pass<'a> {
    table: &'a Table,
    src: &'a [f32],
    u: &'a [f32],
    /// Columns in a panel of `u`.
    cols: usize,
    /// The image that is read.
    from: Images,
    /// The image that is computed.
    to: Images,
    padding: [usize; 2],
    write: Write,
    parallel: bool,
    after: Option<After<'a>>,
}

impl Pass<'_> {
    fn blocks(&self, dst: &mut [f32], block: usize, range: Range<usize>) {
        let start = |b: usize| (b * block).min(self.to.n);
        if range.len() > 1 {
            let mid = range.start + range.len() / 2;
            let cut = (start(mid) - start(range.start)) * self.to.sample();
            let (first, second) = dst.split_at_mut(cut);
            let mut first = || self.blocks(first, block, range.start..mid);
            let mut second = || self.blocks(second, block, mid..range.end);
            if self.parallel {
                rayon::join(first, second);
            } else {
                first();
                second();
            }
            return;
        }
        let samples = start(range.end) - start(range.start);
        let src = &self.src[start(range.start) * self.from.sample()..];
        let src = &src[..samples * self.from.sample()];
        let strip = TILE * self.to.w * samples * self.to.c;
        let strips = dst.par_chunks_mut(strip).enumerate();
        let strips = strips.with_min_len(if self.parallel { 1 } else { usize::MAX });
        let first = start(range.start) * self.to.sample();
        strips.for_each(|(i, dst)| {
            let beside = self.after.map_or([&[][..]; 2], |after| after.beside);
            let beside = beside.map(|all| match all {
                [] => all,
                _ => &all[first + i * strip..][..dst.len()],
            });
            self.strip(dst, src, samples, i * TILE, beside);
            if let Some(after) = self.after {
                let rows = i * TILE..((i + 1) * TILE).min(self.to.h);
                (after.rows_done)(range.start, rows, dst);
            }
        });
    }

    /// The rows of pixels from `y` on, `TILE` of them if there are so many.
    fn strip(&self, dst: &mut [f32], src: &[f32], samples: usize, y: usize, beside: [&[f32]; 2]) {
        let (read, written) = (samples * self.from.c, samples * self.to.c);
        let across = self.to.w.div_ceil(TILE);
        let most = ROWS.div_ceil(samples);
        let together = across.div_ceil(across.div_ceil(most));
        let (v_step, m_step) = (apart(together * read), apart(together * written));
        // Where there are hardly any strips for the threads, places are.
        let few = self.parallel && self.to.h.div_ceil(TILE) < ENOUGH_STRIPS;
        let min_groups = if few { 1 } else { usize::MAX };
        let strip = Images {
            h: dst.len() / (self.to.w * written),
            ..self.to
        };
        scratch::numbers(PLACES * (v_step + m_step), |memory| {
            let (v, m) = memory.split_at_mut(PLACES * v_step);
            for first in (0..across).step_by(together) {
                let tiles = first..(first + together).min(across);
                for (i, tile) in tiles.clone().enumerate() {
                    let at = [y, tile * TILE];
                    let from = square(at, self.padding, REACH, self.from, samples);
                    let to = Places::all(REACH, i * read, REACH * v_step, v_step);
                    let (v, src) = ((&mut *v, &to), (src, &from));
                    (self.table).winograd(Transform::Input, v, src, read, Write::Set);
                }
                let rows = tiles.len() * samples;
                let widths = self.table.widths(rows, self.cols);
                let (v, out) = (&*v, &*dst);
                let groups = m.par_chunks_mut(PLACES_TOGETHER * m_step).enumerate();
                groups.with_min_len(min_groups).for_each(|(row, m)| {
                    let ahead = self.ahead(row, [out, beside[0], beside[1]], &tiles, samples);
                    let first = row * PLACES_TOGETHER;
                    let v = (&v[first * v_step..], v_step);
                    self.products((m, m_step), rows, v, first, &widths, ahead);
                });
                for (i, tile) in tiles.enumerate() {
                    let from = Places::all(REACH, i * written, REACH * m_step, m_step);
                    let to = square([0, tile * TILE], [0; 2], TILE, strip, samples);
                    let (dst, m) = ((&mut *dst, &to), (&*m, &from));
                    (self.table).winograd(Transform::Output, dst, m, written, self.write);
                }
            }
        });
    }

    /// What the parts of the `row`th group of products ask for, those that ask for nothing last: that row of pixels of
    /// where the sums of `tiles` go, in the first of the strips, and of what is looked at beside them.
    fn ahead<'a>(
        &self,
        row: usize,
        strips: [&'a [f32]; 3],
        tiles: &Range<usize>,
        samples: usize,
    ) -> [&'a [f32]; 3] {
        let pixel = samples * self.to.c;
        let width = self.to.w * pixel;
        strips.map(|strip| {
            if self.from.c >= MANY_CHANNELS || (row + 1) * width > strip.len() {
                return &[][..];
            }
            let row = &strip[row * width..(row + 1) * width];
            &row[tiles.start * TILE * pixel..(tiles.end * TILE * pixel).min(width)]
        })
    }

    /// `m = v·u` of so many rows at some places from `first` on. Where there is one narrow panel, all places go together,
    /// or as many parts of them as there is to ask for. Otherwise each goes by itself, so that its rows of `v` stay in the
    /// nearest cache from panel to panel.
    fn products(
        &self,
        (m, m_step): (&mut [f32], usize),
        rows: usize,
        (v, v_step): (&[f32], usize),
        first: usize,
        widths: &Widths,
        ahead: [&[f32]; 3],
    ) {
        let (depth, outputs, places) = (self.from.c, self.to.c, m.len() / m_step);
        let u_step = apart(depth * self.cols);
        let terms = |panel: usize, place: usize| Terms {
            a: &v[place * v_step..],
            b: &self.u[(panel * PLACES + first + place) * u_step..],
            taps: &[Tap { a: 0, b: 0 }],
            k: depth,
            a_row: depth,
            a_step: 1,
            b_row: self.cols,
        };
        if self.cols == outputs && outputs <= NARROW * self.table.lanes() {
            let parts = ahead.iter().filter(|ahead| !ahead.is_empty()).count();
            let part = places.div_ceil(parts.max(1));
            for (i, (m, ahead)) in m.chunks_mut(part * m_step).zip(ahead).enumerate() {
                let (terms, next) = (terms(0, i * part), [v_step, u_step]);
                let count = m.len() / m_step;
                let m = TileMut::new(m, count, rows * outputs, m_step);
                self.table
                    .products(m, outputs, &terms, next, Write::Set, widths, ahead);
            }
            return;
        }
        for (place, m) in m.chunks_exact_mut(m_step).enumerate() {
            for (panel, column) in (0..outputs).step_by(self.cols).enumerate() {
                let width = self.cols.min(outputs - column);
                // Made from `m` itself: to split it off from a tile that has only just been written to memory takes
                // longer.
                let m = TileMut::new(&mut m[column..], rows, width, outputs);
                let terms = terms(panel, place);
                self.table.product_cut(m, &terms, Write::Set, widths, &[]);
            }
        }
    }
}
