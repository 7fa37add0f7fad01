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
//! With the two images in each other's place it comes out turned over: `Σ OutputGradient(tile of x)ᵀ·v[place]`, where `v` is
//! what the gradient of the input has made of dy. Where the sums take little memory the two [go together](weight_goes_along).
//!
//! Everything is f32. Sums of transformed numbers cancel, so the error grows to a few millionths of
//! the result (relative, root of mean square), where a direct sum has some ten-millionths.

use crate::backend::Write;
use crate::backend::cpu::BATCH_BLOCK;
use crate::backend::cpu::after::After;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::scratch;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::tiles::TileMut;
use crate::shape::{Conv, Images};
use std::ops::Range;

mod gradient;
pub(super) mod large;
mod pass;
mod tiles;

pub(crate) use gradient::WeightGradient;
pub(super) use gradient::weight_gradient;
use pass::Pass;
use tiles::Tiles;

/// Pixels along the side of a tile of the image that is computed.
const TILE: usize = 4;

/// Pixels along the side of a tile of the image that is read.
const REACH: usize = 6;

/// Places at which products are taken.
const PLACES: usize = REACH * REACH;

/// Numbers in a line of the caches.
const LINE: usize = 16;

/// Vectors in a row of a panel of the transformed weight.
const PANEL_VECTORS: usize = 2;

/// Places that one thread multiplies at least, where threads share them: as many groups as rows of pixels in a tile.
const PLACES_TOGETHER: usize = PLACES / TILE;

/// Vectors of a panel of which several places are multiplied in one go.
const NARROW: usize = 3;

/// Fewest channels on either side for which the transforms pay.
const CHANNELS: usize = 16;

/// Numbers of each place of the weight that one thread transforms, where threads share them.
const WEIGHT_PIECE: usize = 2048;

/// Most numbers of a weight at one place whose gradient goes along with the data gradient, and most for each row of the
/// products of a strip.
const ALONG: usize = 1 << 12;
const ALONG_A_ROW: usize = 1 << 6;

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

/// Whether the gradient of the weight is added up while that of the input is computed, if both are wanted: where the
/// latter is computed this way, and the transform that is saved takes longer than to go through the sums for each strip.
pub(super) fn weight_goes_along(conv: Conv) -> bool {
    let (images, matrix) = (conv.input, conv.input.c * conv.out_c);
    let rows = images.w.div_ceil(TILE) * images.n.min(BATCH_BLOCK);
    pays(conv) && !large::suits(conv, images) && matrix <= ALONG.min(ALONG_A_ROW * rows)
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
    gradient: Option<WeightGradient<'_>>,
) {
    let (x, y, parallel) = (conv.input, conv.output(), super::parallel(conv));
    let (from, to) = if transposed { (y, x) } else { (x, y) };
    if large::suits(conv, to) {
        assert!(
            after.is_none() && gradient.is_none(),
            "{conv:?} is not computed row by row"
        );
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
            tiles: Tiles::new(to),
            padding,
            write,
            parallel,
            after,
            input: gradient.as_ref().map(|gradient| gradient.x),
        };
        let strips = pass.tiles.strips();
        let Some(gradient) = gradient else {
            return pass.parts(dst, &mut [], 0..strips, strips);
        };
        let at_once = pass.together(pass.tiles.layout.block) == pass.tiles.across;
        gradient::in_parts(table, gradient, conv, (strips, at_once), |du, parts| {
            pass.parts(dst, du, 0..parts, parts);
        });
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
