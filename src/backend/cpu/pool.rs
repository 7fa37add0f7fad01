//! Pooling: in a block, every window of a pixel is the same window for all samples and channels, so
//! each tap is one run of `samples x channels` numbers.

use super::BATCH_BLOCK;
use super::dispatch::each_isa;
use super::parallel::min_tasks;
use super::tiles::for_each_piece;
use crate::backend::{SpatialLayout, Write};
use crate::shape::{Images, Pool, Window};
use rayon::prelude::*;
use std::ops::Range;

/// Samples in each block but the last.
fn block_of(images: Images) -> usize {
    SpatialLayout::new(images, BATCH_BLOCK).block
}

/// The pixel `(y, x)` of a block of images.
fn pixel(block: &[f32], images: Images, lanes: usize, y: usize, x: usize) -> &[f32] {
    &block[(y * images.w + x) * lanes..][..lanes]
}

/// Calls `f(pixel of y, block of x, [its row, its column])` for every pixel of every block of `y`, in
/// parallel when it is worth it.
fn for_each_output(
    y: &mut [f32],
    x: &[f32],
    pool: Pool,
    f: impl Fn(&mut [f32], &[f32], [usize; 2]) + Sync + Send,
) {
    let (input, output) = (pool.input, pool.output());
    let work = y.len() + x.len();
    for_each_piece(y, block_of(output) * output.sample(), work, |first, y| {
        let (sample, samples) = (first / output.sample(), y.len() / output.sample());
        let x = &x[sample * input.sample()..][..samples * input.sample()];
        let pixels = y
            .par_chunks_mut(samples * output.c)
            .with_min_len(min_tasks(work));
        pixels
            .enumerate()
            .for_each(|(i, y)| f(y, x, [i / output.w, i % output.w]));
    });
}

/// `y = max over the window`
pub(super) fn max(y: &mut [f32], x: &[f32], pool: Pool) {
    let input = pool.input;
    for_each_output(y, x, pool, |y, x, [oy, ox]| {
        y.fill(f32::NEG_INFINITY);
        for iy in pool.rows.range(oy, input.h) {
            for ix in pool.cols.range(ox, input.w) {
                max_body(y, pixel(x, input, y.len(), iy, ix));
            }
        }
    });
}

each_isa! {
/// `y = max(y, x)`; a NaN wins and stays.
fn max_body(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = if x > *y || x.is_nan() { x } else { *y };
    }
}
}

/// `y = Σ over the window / divisor`
pub(super) fn avg(y: &mut [f32], x: &[f32], pool: Pool) {
    let input = pool.input;
    for_each_output(y, x, pool, |y, x, [oy, ox]| {
        y.fill(0.0);
        for iy in pool.rows.range(oy, input.h) {
            for ix in pool.cols.range(ox, input.w) {
                let x = pixel(x, input, y.len(), iy, ix);
                y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
            }
        }
        let divisor = pool.rows.divisor(oy, input.h) * pool.cols.divisor(ox, input.w);
        y.iter_mut().for_each(|y| *y /= divisor as f32);
    });
}

/// Each `dy` goes to the first largest input of its window. Windows may overlap, so a block of
/// images is one task.
pub(super) fn max_backward(
    dx: &mut [f32],
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    pool: Pool,
    write: Write,
) {
    let (input, output) = (pool.input, pool.output());
    let work = dx.len() + x.len();
    for_each_piece(dx, block_of(input) * input.sample(), work, |first, dx| {
        let (sample, samples) = (first / input.sample(), dx.len() / input.sample());
        let lanes = samples * input.c;
        let x = &x[first..][..dx.len()];
        let outputs = sample * output.sample()..(sample + samples) * output.sample();
        let (y, dy) = (&y[outputs.clone()], &dy[outputs]);
        if write == Write::Set {
            dx.fill(0.0);
        }
        for oy in 0..output.h {
            for ox in 0..output.w {
                let windows = [pool.rows.range(oy, input.h), pool.cols.range(ox, input.w)];
                let (y, dy) = (
                    pixel(y, output, lanes, oy, ox),
                    pixel(dy, output, lanes, oy, ox),
                );
                max_backward_window(dx, x, [y, dy], input.w, windows);
            }
        }
    });
}

/// One window of [`max_backward`] for all samples and channels of a block.
fn max_backward_window(
    dx: &mut [f32],
    x: &[f32],
    [y, dy]: [&[f32]; 2],
    width: usize,
    [rows, cols]: [Range<usize>; 2],
) {
    const STEP: usize = 64;
    let lanes = y.len();
    for (start, (y, dy)) in (0..).step_by(STEP).zip(y.chunks(STEP).zip(dy.chunks(STEP))) {
        // What no tap has taken yet.
        let mut left = [0.0; STEP];
        left[..dy.len()].copy_from_slice(dy);
        for iy in rows.clone() {
            for ix in cols.clone() {
                let at = (iy * width + ix) * lanes + start;
                deliver_body(&mut dx[at..][..y.len()], &mut left, &x[at..][..y.len()], y);
            }
        }
    }
}

each_isa! {
/// Where `x` is the largest value `y` of its window, `dx` takes what is left of the gradient.
fn deliver_body(dx: &mut [f32], left: &mut [f32], x: &[f32], y: &[f32]) {
    for (((dx, left), &x), &y) in dx.iter_mut().zip(left).zip(x).zip(y) {
        let takes = x == y || x.is_nan();
        *dx += if takes { *left } else { 0.0 };
        *left = if takes { 0.0 } else { *left };
    }
}
}

/// Each `dy / divisor` goes to every input of its window.
pub(super) fn avg_backward(dx: &mut [f32], dy: &[f32], pool: Pool, write: Write) {
    let (input, output) = (pool.input, pool.output());
    let work = dx.len() + dy.len();
    for_each_piece(dx, block_of(input) * input.sample(), work, |first, dx| {
        let (sample, samples) = (first / input.sample(), dx.len() / input.sample());
        let lanes = samples * input.c;
        let dy = &dy[sample * output.sample()..][..samples * output.sample()];
        let pixels = dx.par_chunks_mut(lanes).with_min_len(min_tasks(work));
        pixels.enumerate().for_each(|(i, dx)| {
            let (iy, ix) = (i / input.w, i % input.w);
            if write == Write::Set {
                dx.fill(0.0);
            }
            for oy in windows_over(pool.rows, iy, input.h) {
                for ox in windows_over(pool.cols, ix, input.w) {
                    let divisor = pool.rows.divisor(oy, input.h) * pool.cols.divisor(ox, input.w);
                    let dy = pixel(dy, output, lanes, oy, ox);
                    share_body(dx, dy, divisor as f32);
                }
            }
        });
    });
}

each_isa! {
/// `dx += dy / divisor`
fn share_body(dx: &mut [f32], dy: &[f32], divisor: f32) {
    for (dx, dy) in dx.iter_mut().zip(dy) {
        *dx += dy / divisor;
    }
}
}

/// The windows that cover position `at` of an axis of `len` positions.
fn windows_over(window: Window, at: usize, len: usize) -> Range<usize> {
    match window {
        Window::Fixed {
            kernel,
            stride,
            padding,
        } => {
            let start = (at + padding + 1).saturating_sub(kernel).div_ceil(stride);
            start..((at + padding) / stride + 1).min(window.count(len))
        }
        Window::Adaptive { out } => at * out / len..((at + 1) * out).div_ceil(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_over_a_position_are_those_whose_range_holds_it() {
        let mut windows: Vec<Window> = (1..8).map(|out| Window::Adaptive { out }).collect();
        for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (2, 3, 0), (3, 1, 1), (5, 2, 2)] {
            windows.push(Window::Fixed {
                kernel,
                stride,
                padding,
            });
        }
        for window in windows {
            for len in 1..9 {
                for at in 0..len {
                    let count = window.count(len);
                    let holds = |&i: &usize| window.range(i, len).contains(&at);
                    let expected: Vec<usize> = (0..count).filter(holds).collect();
                    let got: Vec<usize> = windows_over(window, at, len).collect();
                    assert_eq!(got, expected, "{window:?}, position {at} of {len}");
                }
            }
        }
    }
}
