//! Convolution as a product over the places of its kernel that meet the image.
//!
//! In the layout `[block][h][w][sample][c]` the samples of a block at one pixel are rows of a matrix
//! with `c` columns, and a weight at one place of the kernel is a matrix `in x out`. An output pixel
//! is the sum of one product for each place inside the image:
//!
//! ```text
//! y[pixel] = Σ_place x[pixel·stride + place - padding] · w[place]        (samples x in) · (in x out)
//! ```
//!
//! so nothing is copied apart (no im2col) and padding costs nothing. The gradient of the input is the
//! same sum with input and output swapped and each `w[place]` transposed. The gradient of the weight,
//! `dw[place] = Σ_pixel x[..]ᵀ·dy[pixel]`, is in [`weight`].
//!
//! Neighbouring pixels with the same places are rows of one larger matrix where they lie evenly; that
//! is what feeds the register tiles when a block holds few samples.

mod axis;
mod bf16;
mod panels;
mod weight;
mod winograd;

use super::BATCH_BLOCK;
use super::after::After;
use super::bf16::{Factors, push};
use super::dispatch::select;
use super::isa::Tap;
use super::scratch;
use super::table::Table;
use super::terms::Terms;
use super::tiles::TileMut;
use crate::backend::{SpatialLayout, Write};
use crate::shape::{Conv, Images};
use axis::{Axis, Span};
use panels::Panels;
pub(crate) use winograd::WeightGradient;

/// Numbers of the image being read that one cell of work goes through at most: half a megabyte.
const CELL_SRC: usize = 1 << 17;

/// Operations of a cell that has the whole weight: some 20 microseconds.
const CELL_FLOPS: usize = 1 << 22;

/// Cells that keep the threads busy.
const ENOUGH_CELLS: usize = 8;

/// Operations of a convolution that are worth several threads: some 20 microseconds. Convolutions follow
/// one another, so the threads are awake.
const PARALLEL_FLOPS: usize = 1 << 22;

/// `y = x * w`
///
/// # Panics
/// If a slice is not as long as `conv` says.
#[track_caller]
pub(crate) fn conv2d(factors: Option<Factors>, y: &mut [f32], x: &[f32], w: &[f32], conv: Conv) {
    match factors {
        Some(factors) => bf16::forward(factors, y, x, w, conv),
        None => forward(select(), y, x, w, conv),
    }
}

/// `dx = ` (or `+=`) the gradient of the input.
///
/// # Panics
/// If a slice is not as long as `conv` says.
#[track_caller]
pub(crate) fn conv2d_backward_data(
    factors: Option<Factors>,
    dx: &mut [f32],
    dy: &[f32],
    w: &[f32],
    conv: Conv,
    write: Write,
) {
    match factors {
        Some(factors) => bf16::backward_data(factors, dx, dy, w, conv, write),
        None => backward_data(select(), dx, dy, w, conv, write),
    }
}

/// Whether `to`, the output of a convolution or the gradient of its input, is computed rows of pixels at a time:
/// [`conv2d_then`] or [`conv2d_backward`] can be had.
pub(crate) fn by_rows(factors: Option<Factors>, conv: Conv, to: Images) -> bool {
    factors.is_none() && winograd::pays(conv) && !winograd::large::suits(conv, to)
}

/// [`conv2d`], rows of pixels at a time, where that is how it [goes](by_rows).
///
/// # Panics
/// If a slice is not as long as `conv` says.
#[track_caller]
pub(crate) fn conv2d_then(y: &mut [f32], x: &[f32], w: &[f32], conv: Conv, after: After<'_>) {
    check(x, w, y, conv);
    winograd::convolve(
        select(),
        y,
        x,
        w,
        conv,
        false,
        Write::Set,
        Some(after),
        None,
    );
}

/// Whether the gradient of the weight goes along with that of the input: [`conv2d_backward`] can be had with both.
pub(crate) fn weight_goes_along(factors: Option<Factors>, conv: Conv) -> bool {
    factors.is_none() && winograd::weight_goes_along(conv)
}

/// [`conv2d_backward_data`], rows of pixels at a time, where that is how it [goes](by_rows), and the gradient of the weight.
///
/// # Panics
/// If a slice is not as long as `conv` says.
#[track_caller]
pub(crate) fn conv2d_backward(
    (dx, write): (&mut [f32], Write),
    weight: Option<WeightGradient<'_>>,
    dy: &[f32],
    w: &[f32],
    conv: Conv,
    after: Option<After<'_>>,
) {
    backward(select(), (dx, write), weight, dy, w, conv, after);
}

/// `dw = ` (or `+=`) the gradient of the weight.
///
/// # Panics
/// If a slice is not as long as `conv` says.
#[track_caller]
pub(crate) fn conv2d_backward_weight(
    factors: Option<Factors>,
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    match factors {
        Some(factors) => bf16::backward_weight(factors, dw, x, dy, conv, write),
        None => backward_weight(select(), dw, x, dy, conv, write),
    }
}

/// [`conv2d`] on a given table.
#[track_caller]
pub(super) fn forward(table: &Table, y: &mut [f32], x: &[f32], w: &[f32], conv: Conv) {
    check(x, w, y, conv);
    if y.is_empty() {
        return;
    }
    if winograd::pays(conv) {
        return winograd::convolve(table, y, x, w, conv, false, Write::Set, None, None);
    }
    let panels = Panels::new(table, conv, false);
    let mut run = |w: &[f32]| {
        let pass = Pass {
            table,
            src: x,
            w,
            panels,
            rows: axis(conv, 0, false),
            cols: axis(conv, 1, false),
            from: conv.input,
            to: conv.output(),
            planes: 1,
            write: Write::Set,
        };
        pass.run(y);
    };
    if panels.as_stored() {
        run(w);
    } else {
        scratch::numbers(panels.len(), |packed| {
            panels.pack(table, packed, w, conv);
            run(packed);
        });
    }
}

/// [`conv2d_backward_data`] on a given table.
#[track_caller]
pub(super) fn backward_data(
    table: &Table,
    dx: &mut [f32],
    dy: &[f32],
    w: &[f32],
    conv: Conv,
    write: Write,
) {
    check(dx, w, dy, conv);
    if dy.is_empty() {
        // No window fits: there is not a single term.
        if write == Write::Set {
            dx.fill(0.0);
        }
        return;
    }
    if winograd::pays(conv) {
        return winograd::convolve(table, dx, dy, w, conv, true, write, None, None);
    }
    let panels = Panels::new(table, conv, true);
    scratch::numbers(panels.len(), |packed| {
        panels.pack(table, packed, w, conv);
        let pass = Pass {
            table,
            src: dy,
            w: packed,
            panels,
            rows: axis(conv, 0, true),
            cols: axis(conv, 1, true),
            from: conv.output(),
            to: conv.input,
            planes: 1,
            write,
        };
        pass.run(dx);
    });
}

/// [`conv2d_backward_weight`] on a given table.
#[track_caller]
pub(super) fn backward_weight(
    table: &Table,
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    check(x, dw, dy, conv);
    if dy.is_empty() {
        // No window fits: there is not a single term.
        if write == Write::Set {
            dw.fill(0.0);
        }
        return;
    }
    if winograd::pays(conv) {
        return winograd::weight_gradient(table, dw, x, dy, conv, write);
    }
    weight::gradient(table, dw, x, dy, conv, write);
}

/// [`conv2d_backward`] on a given table.
#[track_caller]
pub(super) fn backward(
    table: &Table,
    (dx, write): (&mut [f32], Write),
    weight: Option<WeightGradient<'_>>,
    dy: &[f32],
    w: &[f32],
    conv: Conv,
    after: Option<After<'_>>,
) {
    check(dx, w, dy, conv);
    if let Some(weight) = &weight {
        check(weight.x, weight.dw, dy, conv);
    }
    winograd::convolve(table, dx, dy, w, conv, true, write, after, weight);
}

#[track_caller]
fn check(x: &[f32], w: &[f32], y: &[f32], conv: Conv) {
    assert!(
        x.len() == conv.input.len()
            && w.len() == conv.weight_len()
            && y.len() == conv.output().len(),
        "{conv:?} on an input of {}, a weight of {} and an output of {} numbers",
        x.len(),
        w.len(),
        y.len()
    );
    assert!(conv.stride[0] > 0 && conv.stride[1] > 0, "{conv:?}");
}

fn axis(conv: Conv, which: usize, swapped: bool) -> Axis {
    let side = |images: Images| [images.h, images.w][which];
    let (input, output) = (side(conv.input), side(conv.output()));
    Axis {
        dst: if swapped { input } else { output },
        src: if swapped { output } else { input },
        kernel: conv.kernel[which],
        stride: conv.stride[which],
        padding: conv.padding[which],
        swapped,
    }
}

/// Multiplications and additions of a convolution, padding counted.
fn flops(conv: Conv) -> usize {
    let output = conv.output();
    2usize
        .saturating_mul(output.n * output.h * output.w)
        .saturating_mul(conv.weight_len())
}

/// Whether a convolution is worth several threads.
fn parallel(conv: Conv) -> bool {
    flops(conv) >= PARALLEL_FLOPS
}

/// One sum over places for every pixel of an image.
struct Pass<'a> {
    table: &'a Table,
    src: &'a [f32],
    w: &'a [f32],
    panels: Panels,
    rows: Axis,
    cols: Axis,
    /// The image that is read.
    from: Images,
    /// The image that is computed.
    to: Images,
    /// Planes of the channels of the image that is read, and of each matrix of the weight: two if their
    /// numbers are split.
    planes: usize,
    write: Write,
}

impl Pass<'_> {
    fn run(&self, dst: &mut [f32]) {
        let to = self.to;
        let parallel = 2 * self.work() * to.n * to.pixels() >= PARALLEL_FLOPS;
        let dst = TileMut::new(dst, to.n * to.pixels(), to.c, to.c);
        let layout = SpatialLayout::new(to, BATCH_BLOCK);
        let blocks = to.n.div_ceil(layout.block);
        self.blocks(dst, layout.block, 0..blocks, parallel);
    }

    /// Multiplications for one pixel, padding counted.
    fn work(&self) -> usize {
        self.panels.places * self.panels.depth * self.panels.width
    }

    fn blocks(
        &self,
        dst: TileMut<'_>,
        block: usize,
        range: std::ops::Range<usize>,
        parallel: bool,
    ) {
        let start = |b: usize| (b * block).min(self.to.n);
        if range.len() > 1 {
            let mid = range.start + range.len() / 2;
            let cut = (start(mid) - start(range.start)) * self.to.pixels();
            let (first, second) = dst.split_rows(cut);
            let first = || self.blocks(first, block, range.start..mid, parallel);
            let second = || self.blocks(second, block, mid..range.end, parallel);
            if parallel {
                rayon::join(first, second);
            } else {
                first();
                second();
            }
        } else if range.len() == 1 {
            let samples = start(range.end) - start(range.start);
            let base = start(range.start) * self.from.sample();
            let src = &self.src[base..][..samples * self.from.sample()];
            let src_row = (self.from.w * samples * self.from.c).max(1);
            let dst_row = (self.to.w * samples).max(1);
            // As many rows as read so much.
            let mut rows = CELL_SRC * self.rows.period() / (src_row * self.rows.advance());
            if self.panels.cols == self.panels.width {
                rows = rows.min(CELL_FLOPS / (2 * self.work() * dst_row).max(1));
            }
            if self.to.n.div_ceil(block) * self.panels.count() < ENOUGH_CELLS {
                rows = rows.min(self.to.h.div_ceil(2));
            }
            let rows = rows.clamp(1, self.to.h.max(1));
            dst.for_each_cell(
                rows * dst_row,
                self.panels.cols,
                parallel,
                &|row, col, cell| {
                    self.cell(cell, src, samples, row / dst_row, col / self.panels.cols);
                },
            );
        }
    }

    /// Computes whole rows of pixels, from `row` on, and the columns of one panel.
    fn cell(&self, mut dst: TileMut<'_>, src: &[f32], samples: usize, row: usize, panel: usize) {
        let dst_row = self.to.w * samples;
        let rows = dst.rows() / dst_row;
        let next = self.next(src, samples, row..row + rows);
        // Each row of pixels asks for its share of them.
        let share = next.len().div_ceil(self.panels.count() * rows).max(1);
        let mut shares = next.chunks(share).skip(panel * rows);
        scratch::taps(|taps| {
            let mut rest = dst.reborrow();
            for i in 0..rows {
                let (mut dst, after) = rest.split_rows(dst_row);
                // A span that does not ask for what is read asks for where the next row of pixels goes.
                let coming = after.rows().min(dst_row) * after.cols();
                let coming = after.numbers().map(|rows| &rows[..coming]);
                let mut asked = [shares.next(), coming].into_iter().flatten();
                for span in self.cols.spans() {
                    self.taps(taps, samples, row + i, span, panel);
                    let ahead = match 2 * span.count > self.to.w / self.cols.period() {
                        true => asked.next().unwrap_or_default(),
                        false => &[],
                    };
                    self.span(&mut dst, src, samples, span, taps, ahead);
                }
                drop(asked);
                rest = after;
            }
        });
    }

    /// The rows of the image being read that come up after those for `rows`, with as many more, where a core does not
    /// find them in its own cache.
    fn next<'a>(&self, src: &'a [f32], samples: usize, rows: std::ops::Range<usize>) -> &'a [f32] {
        let passes_over =
            self.rows.kernel < self.rows.stride || self.cols.kernel < self.cols.stride;
        let last = (rows.end + rows.len()).min(self.to.h);
        if passes_over || src.len() < CELL_SRC || last == rows.end {
            return &[];
        }
        let row = self.from.w * samples * self.from.c;
        let end = |after: usize| self.rows.places(after - 1).end() * row;
        src.get(end(rows.end)..end(last)).unwrap_or_default()
    }

    /// Lists the places at row `row` and the first column of `span`.
    fn taps(&self, taps: &mut Vec<Tap>, samples: usize, row: usize, span: Span, panel: usize) {
        taps.clear();
        let depth = self.from.c / self.planes;
        let low = (self.planes > 1).then_some((depth, depth * self.panels.cols));
        for (r, y) in self.rows.places(row).iter() {
            for (q, x) in span.places.iter() {
                let tap = Tap {
                    a: (y * self.from.w + x) * samples * self.from.c,
                    b: self.panels.at(panel, r * self.cols.kernel + q),
                };
                push(taps, tap, low);
            }
        }
    }

    /// Computes the pixels of a span of a row of pixels, `dst`, and asks for the memory of `ahead`.
    fn span(
        &self,
        dst: &mut TileMut<'_>,
        src: &[f32],
        samples: usize,
        span: Span,
        taps: &[Tap],
        ahead: &[f32],
    ) {
        if taps.is_empty() && self.write == Write::Add {
            return;
        }
        let (period, advance) = (self.cols.period(), self.cols.advance());
        let channels = self.from.c;
        let start = span.first * samples;
        let terms = |src, a_row| Terms {
            a: src,
            b: self.w,
            taps,
            k: channels / self.planes,
            a_row,
            a_step: 1,
            b_row: self.panels.cols,
        };
        let table = self.table;
        if span.count == 1 || (period == 1 && advance == 1) {
            // The samples of neighbouring pixels follow one another on both sides.
            let dst = dst.rows_every(start, span.count * samples, 1);
            let widths = table.widths(dst.rows(), dst.cols());
            table.product_cut(dst, &terms(src, channels), self.write, &widths, ahead);
        } else if samples >= span.count.min(MANY_ROWS) {
            let every = period * samples;
            let dst = dst.rows_every(start, (span.count - 1) * every + samples, 1);
            let each = [span.count, samples, every];
            let next = [advance * samples * channels, 0];
            table.products_every(dst, each, &terms(src, channels), next, self.write, ahead);
        } else {
            // One sample at a time: its pixels lie evenly.
            for i in 0..samples {
                let dst = dst.rows_every(start + i, span.count, period * samples);
                let terms = terms(&src[i * channels..], advance * samples * channels);
                table.product(dst, &terms, self.write);
            }
        }
    }
}

/// Rows that keep a register tile busy.
const MANY_ROWS: usize = 8;

#[cfg(test)]
mod tests;
