//! Convolution with factors rounded to bfloat16.
//!
//! The same sums over places as in f32, over words of two terms (see [`bf16`](crate::backend::cpu::bf16)):
//! forward a word is two input channels, for the gradient of the input two output channels, for that of
//! the weight two samples of a pixel. So [`Pass`] and [`Sum`] run over an image and a weight with half as
//! many channels, or over half as many samples.

use super::panels::Panels;
use super::weight::{Sum, add_up};
use super::{Pass, axis, check, flops, winograd};
use crate::backend::cpu::bf16::{self, Factors};
use crate::backend::cpu::gemm::PARALLEL_FLOPS;
use crate::backend::cpu::parallel::pays;
use crate::backend::cpu::tiles::for_each_piece;
use crate::backend::cpu::{BATCH_BLOCK, scratch};
use crate::backend::{SpatialLayout, Write};
use crate::shape::{Conv, Images};

/// Rows of channels that one thread converts at a time.
const ROWS: usize = 512;

/// Samples of a pixel, in numbers, that one thread converts at a time.
const PIXELS: usize = 1 << 15;

/// `y = x * w`, in f32 where that is faster.
#[track_caller]
pub(super) fn forward(factors: Factors, y: &mut [f32], x: &[f32], w: &[f32], conv: Conv) {
    if !chosen(factors, conv, bf16::Pass::Forward) {
        return super::conv2d(None, y, x, w, conv);
    }
    check(x, w, y, conv);
    let row = factors.planes() * factors.depth(conv.input.c);
    channel_words(factors, x, conv.input, |x| {
        weight_words(factors, w, conv, false, |panels, w| {
            let pass = Pass {
                table: factors.kernels().table(),
                src: x,
                w,
                panels,
                rows: axis(conv, 0, false),
                cols: axis(conv, 1, false),
                from: Images {
                    c: row,
                    ..conv.input
                },
                to: conv.output(),
                planes: factors.planes(),
                write: Write::Set,
            };
            pass.run(y);
        });
    });
}

/// `dx = ` (or `+=`) the gradient of the input, in f32 where that is faster.
#[track_caller]
pub(super) fn backward_data(
    factors: Factors,
    dx: &mut [f32],
    dy: &[f32],
    w: &[f32],
    conv: Conv,
    write: Write,
) {
    if !chosen(factors, conv, bf16::Pass::Data) {
        return super::conv2d_backward_data(None, dx, dy, w, conv, write);
    }
    check(dx, w, dy, conv);
    let row = factors.planes() * factors.depth(conv.out_c);
    channel_words(factors, dy, conv.output(), |dy| {
        weight_words(factors, w, conv, true, |panels, w| {
            let pass = Pass {
                table: factors.kernels().table(),
                src: dy,
                w,
                panels,
                rows: axis(conv, 0, true),
                cols: axis(conv, 1, true),
                from: Images {
                    c: row,
                    ..conv.output()
                },
                to: conv.input,
                planes: factors.planes(),
                write,
            };
            pass.run(dx);
        });
    });
}

/// `dw = ` (or `+=`) the gradient of the weight, in f32 where that is faster.
#[track_caller]
pub(super) fn backward_weight(
    factors: Factors,
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    if !chosen(factors, conv, bf16::Pass::Weight) {
        return super::conv2d_backward_weight(None, dw, x, dy, conv, write);
    }
    check(x, dw, dy, conv);
    let layout = SpatialLayout::new(conv.input, BATCH_BLOCK);
    let words = |(_, samples): (usize, usize)| factors.depth(samples);
    let halved = Conv {
        input: Images {
            n: layout.blocks().map(words).sum(),
            ..conv.input
        },
        ..conv
    };
    let upright = factors.kernels().upright();
    sample_words(factors, x, conv.input, upright, |x| {
        sample_words(factors, dy, conv.output(), false, |dy| {
            let sum = Sum {
                table: factors.kernels().table(),
                x,
                dy,
                conv: halved,
                output: halved.output(),
                block: factors.depth(layout.block),
                planes: factors.planes(),
                upright,
                parallel: pays(flops(conv), PARALLEL_FLOPS),
            };
            add_up(&sum, dw, write);
        });
    });
}

/// Whether a pass is done here. Winograd's transforms can save more than vectors of words, but never more than
/// tile registers.
fn chosen(factors: Factors, conv: Conv, pass: bf16::Pass) -> bool {
    let transformed = winograd::saves_three_fifths(conv) && !factors.kernels().upright();
    !conv.output().is_empty() && factors.convolve(conv, pass, transformed)
}

/// Calls `f` with the words of neighbouring channels of `images`, in the order of the images.
fn channel_words(factors: Factors, numbers: &[f32], images: Images, f: impl FnOnce(&[f32])) {
    let (c, depth) = (images.c, factors.depth(images.c));
    let row = factors.planes() * depth;
    scratch::numbers(images.n * images.pixels() * row, |words| {
        for_each_piece(words, ROWS * row, numbers.len(), |at, words| {
            let (first, rows) = (at / row, words.len() / row);
            let (from, low) = (&numbers[first * c..], factors.low(depth));
            (factors.kernels()).along((words, row), (from, c), (rows, c), (depth, low));
        });
        f(words);
    });
}

/// Calls `f` with the weight as words in panels. For the gradient of the input it is turned over.
fn weight_words(
    factors: Factors,
    w: &[f32],
    conv: Conv,
    transposed: bool,
    f: impl FnOnce(Panels, &[f32]),
) {
    let kernels = factors.kernels();
    let (inputs, outputs) = (conv.input.c, conv.out_c);
    let terms = if transposed { outputs } else { inputs };
    let depth = factors.depth(terms);
    let panels = Panels::of_words(kernels.table(), conv, transposed, factors.planes() * depth);
    let (rows, cols) = (panels.depth, panels.cols);
    scratch::numbers(panels.len(), |words| {
        for_each_piece(words, rows * cols, w.len(), |at, words| {
            let (panel, place) = panels.find(at);
            let start = panel * cols;
            let cols_here = cols.min(panels.width - start);
            let w = &w[place * inputs * outputs..][..inputs * outputs];
            if transposed {
                scratch::numbers(cols * rows, |turned| {
                    let from = (&w[start * outputs..], outputs);
                    let size = (depth, factors.low(depth));
                    kernels.along((turned, rows), from, (cols_here, outputs), size);
                    let table = kernels.table();
                    table.transpose((words, cols), (turned, rows), (cols_here, rows));
                });
            } else {
                let from = (&w[start.min(w.len())..], outputs);
                let size = (depth, factors.low(depth * cols));
                kernels.across((words, cols), from, (inputs, cols_here), size);
            }
        });
        f(panels, words);
    });
}

/// Calls `f` with the words of neighbouring samples of each pixel. `upright` turns each pixel over: the
/// words of a channel lie side by side.
fn sample_words(
    factors: Factors,
    numbers: &[f32],
    images: Images,
    upright: bool,
    f: impl FnOnce(&[f32]),
) {
    let kernels = factors.kernels();
    let (c, pixels) = (images.c, images.pixels());
    let row = factors.planes() * c;
    let layout = SpatialLayout::new(images, BATCH_BLOCK);
    let samples: usize = layout.blocks().map(|(_, n)| factors.depth(n)).sum();
    scratch::numbers(samples * pixels * row, |words| {
        let mut rest = &mut *words;
        for (first, samples) in layout.blocks() {
            let depth = factors.depth(samples);
            let pixel = depth * row;
            let (block, after) = rest.split_at_mut(pixel * pixels);
            rest = after;
            let numbers = &numbers[first * images.sample()..][..samples * images.sample()];
            let together = (PIXELS / pixel.max(1)).max(1);
            for_each_piece(block, together * pixel, numbers.len(), |at, words| {
                for (i, words) in words.chunks_exact_mut(pixel).enumerate() {
                    let from = &numbers[(at / pixel + i) * samples * c..];
                    let size = (depth, factors.low(c));
                    if !upright {
                        kernels.across((words, row), (from, c), (samples, c), size);
                        continue;
                    }
                    scratch::numbers(pixel, |straight| {
                        kernels.across((straight, row), (from, c), (samples, c), size);
                        let table = kernels.table();
                        table.transpose((words, depth), (straight, row), (depth, row));
                    });
                }
            });
        }
        f(words);
    });
}

#[cfg(test)]
mod tests;
