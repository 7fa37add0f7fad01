//! Convolutions.

use super::BATCH_BLOCK;
use crate::backend::{SpatialLayout, Write};
use crate::shape::Conv;

/// Calls `f(output pixel, input pixel, tap)` for every tap inside the image.
fn for_each_tap(conv: Conv, mut f: impl FnMut(usize, usize, usize)) {
    let (input, output) = (conv.input, conv.output());
    let x_layout = SpatialLayout::new(input, BATCH_BLOCK);
    let y_layout = SpatialLayout::new(output, BATCH_BLOCK);
    for (s, oy) in (0..input.n).flat_map(|s| (0..output.h).map(move |oy| (s, oy))) {
        for (ox, ky) in (0..output.w).flat_map(|ox| (0..conv.kernel[0]).map(move |ky| (ox, ky))) {
            for kx in 0..conv.kernel[1] {
                let iy = (oy * conv.stride[0] + ky).wrapping_sub(conv.padding[0]);
                let ix = (ox * conv.stride[1] + kx).wrapping_sub(conv.padding[1]);
                if iy < input.h && ix < input.w {
                    let tap = (ky * conv.kernel[1] + kx) * input.c * conv.out_c;
                    f(y_layout.index(s, oy, ox), x_layout.index(s, iy, ix), tap);
                }
            }
        }
    }
}

/// Convolution.
pub(crate) fn conv2d(y: &mut [f32], x: &[f32], w: &[f32], conv: Conv) {
    y.fill(0.0);
    for_each_tap(conv, |y_at, x_at, w_at| {
        for i in 0..conv.input.c {
            for o in 0..conv.out_c {
                y[y_at + o] += x[x_at + i] * w[w_at + i * conv.out_c + o];
            }
        }
    });
}

/// Gradient of the input.
pub(crate) fn conv2d_backward_data(
    dx: &mut [f32],
    dy: &[f32],
    w: &[f32],
    conv: Conv,
    write: Write,
) {
    if write == Write::Set {
        dx.fill(0.0);
    }
    for_each_tap(conv, |y_at, x_at, w_at| {
        for i in 0..conv.input.c {
            for o in 0..conv.out_c {
                dx[x_at + i] += dy[y_at + o] * w[w_at + i * conv.out_c + o];
            }
        }
    });
}

/// Gradient of the weight.
pub(crate) fn conv2d_backward_weight(
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    if write == Write::Set {
        dw.fill(0.0);
    }
    for_each_tap(conv, |y_at, x_at, w_at| {
        for i in 0..conv.input.c {
            for o in 0..conv.out_c {
                dw[w_at + i * conv.out_c + o] += x[x_at + i] * dy[y_at + o];
            }
        }
    });
}
