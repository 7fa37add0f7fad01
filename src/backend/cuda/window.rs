//! Geometry of convolution and pooling as the kernels have it.

use super::int;
use crate::shape::{Conv, Pool, Window};

/// `Shape` of `kernels/conv.cu`.
pub(super) fn conv_geometry(conv: Conv) -> [i32; 13] {
    let (input, output) = (conv.input, conv.output());
    let numbers = [
        input.n,
        input.c,
        input.h,
        input.w,
        conv.out_c,
        output.h,
        output.w,
        conv.kernel[0],
        conv.kernel[1],
        conv.stride[0],
        conv.stride[1],
        conv.padding[0],
        conv.padding[1],
    ];
    numbers.map(int)
}

/// `Pool` of `kernels/pool.cu`.
pub(super) fn pool_geometry(pool: Pool) -> [i32; 12] {
    let input = pool.input;
    let axis = |window: Window, length: usize| {
        let (kernel, stride, padding) = match window {
            Window::Fixed {
                kernel,
                stride,
                padding,
            } => (kernel, stride, padding),
            Window::Adaptive { .. } => (0, 0, 0),
        };
        [length, window.count(length), kernel, stride, padding].map(int)
    };
    let mut numbers = [0; 12];
    numbers[0] = int(input.n);
    numbers[1] = int(input.c);
    numbers[2..7].copy_from_slice(&axis(pool.rows, input.h));
    numbers[7..].copy_from_slice(&axis(pool.cols, input.w));
    numbers
}
