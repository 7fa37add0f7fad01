//! Convolution as a sum over the taps that fall inside the image.

use super::{Elem, SpatialLayout, Write, put_all};
use crate::shape::Conv;

/// Calls `f(output pixel, input pixel, tap)` for every tap of every window that lies inside the
/// image; each argument is the index of the first number of its pixel or tap.
fn for_each_tap(conv: Conv, mut f: impl FnMut(usize, usize, usize)) {
    let (input, output) = (conv.input, conv.output());
    let (x_layout, y_layout) = (SpatialLayout::new(input, 1), SpatialLayout::new(output, 1));
    for sample in 0..input.n {
        for oy in 0..output.h {
            for ox in 0..output.w {
                for ky in 0..conv.kernel[0] {
                    for kx in 0..conv.kernel[1] {
                        let iy = (oy * conv.stride[0] + ky).checked_sub(conv.padding[0]);
                        let ix = (ox * conv.stride[1] + kx).checked_sub(conv.padding[1]);
                        let (Some(iy), Some(ix)) = (iy, ix) else {
                            continue;
                        };
                        if iy < input.h && ix < input.w {
                            f(
                                y_layout.index(sample, oy, ox),
                                x_layout.index(sample, iy, ix),
                                (ky * conv.kernel[1] + kx) * input.c * conv.out_c,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// `y[o] = Σ x[o·stride + t - padding] · w[t]`
pub(super) fn forward<E: Elem>(y: &mut [E], x: &[E], w: &[E], conv: Conv) {
    let mut sums = vec![0.0; y.len()];
    for_each_tap(conv, |y_at, x_at, w_at| {
        for i in 0..conv.input.c {
            for o in 0..conv.out_c {
                sums[y_at + o] += x[x_at + i].to_f64() * w[w_at + i * conv.out_c + o].to_f64();
            }
        }
    });
    put_all(y, sums, Write::Set);
}

/// `dx[i] = Σ dy[o] · w[t]` over the windows and taps that read `i`
pub(super) fn backward_data<E: Elem>(dx: &mut [E], dy: &[E], w: &[E], conv: Conv, write: Write) {
    let mut sums = vec![0.0; dx.len()];
    for_each_tap(conv, |y_at, x_at, w_at| {
        for i in 0..conv.input.c {
            for o in 0..conv.out_c {
                sums[x_at + i] += dy[y_at + o].to_f64() * w[w_at + i * conv.out_c + o].to_f64();
            }
        }
    });
    put_all(dx, sums, write);
}

/// `dw[t] = Σ x[o·stride + t - padding] · dy[o]` over the windows
pub(super) fn backward_weight<E: Elem>(dw: &mut [E], x: &[E], dy: &[E], conv: Conv, write: Write) {
    let mut sums = vec![0.0; dw.len()];
    for_each_tap(conv, |y_at, x_at, w_at| {
        for i in 0..conv.input.c {
            for o in 0..conv.out_c {
                sums[w_at + i * conv.out_c + o] += x[x_at + i].to_f64() * dy[y_at + o].to_f64();
            }
        }
    });
    put_all(dw, sums, write);
}
