//! Primitives that look through windows: pooling and convolution.

use super::{BATCHES, Case, LARGE_IMAGES, Lab, Visitor, WRITES};
use crate::backend::{Backend, ConvBackward, WeightGradient, Write};
use crate::shape::{Conv, Images, Pool, Window};

pub(super) fn visit(visitor: &mut impl Visitor) {
    for input in BATCHES.map(|n| Images {
        n,
        c: 5,
        h: 9,
        w: 8,
    }) {
        for (rows, cols) in pool_windows() {
            for write in WRITES {
                visitor.visit(PoolCase {
                    pool: Pool { input, rows, cols },
                    write,
                });
            }
        }
    }
    let (rows, cols) = (fixed(3, 2, 1), fixed(2, 2, 0));
    let pool = Pool {
        input: LARGE_IMAGES,
        rows,
        cols,
    };
    visitor.visit(PoolCase {
        pool,
        write: Write::Set,
    });

    visitor.visit(MaxPoolOfNan);
    visit_convs(visitor);
}

/// Convolutions.
pub(super) fn visit_convs(visitor: &mut impl Visitor) {
    for n in BATCHES {
        for conv in convs(n) {
            for write in WRITES {
                visitor.visit(ConvCase { conv, write });
            }
        }
    }
    // Strips of tiles for some threads, each a part of the sum of a weight's gradient: fewer than there are parts, more, and
    // such as are added up tile by tile.
    for (n, [h, w], c, out_c) in [
        (40, [12, 12], 16, 32),
        (40, [20, 12], 16, 32),
        (32, [8, 8], 64, 64),
    ] {
        let input = Images { n, c, h, w };
        let conv = Conv {
            input,
            out_c,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
        };
        visitor.visit(ConvCase {
            conv,
            write: Write::Set,
        });
    }
}

pub(super) fn fixed(kernel: usize, stride: usize, padding: usize) -> Window {
    Window::Fixed {
        kernel,
        stride,
        padding,
    }
}

/// Windows along the rows and along the columns: overlapping, with gaps, padded, uneven.
fn pool_windows() -> [(Window, Window); 6] {
    [
        (fixed(2, 2, 0), fixed(2, 2, 0)),
        (fixed(3, 2, 1), fixed(3, 1, 1)),
        (fixed(2, 3, 0), fixed(1, 1, 0)),
        (fixed(9, 1, 0), fixed(8, 8, 0)),
        (Window::Adaptive { out: 1 }, Window::Adaptive { out: 1 }),
        (Window::Adaptive { out: 4 }, Window::Adaptive { out: 11 }),
    ]
}

/// All four pooling primitives on one geometry.
#[derive(Debug)]
pub(super) struct PoolCase {
    pub(super) pool: Pool,
    pub(super) write: Write,
}

impl Case for PoolCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let PoolCase { pool, write } = *self;
        let (input, output) = (pool.input, pool.output());
        let backend = lab.backend;
        // Few different values, so that many windows have several largest ones.
        let x: Vec<f64> = lab
            .noise(input.len())
            .iter()
            .map(|x| (x * 4.0).round())
            .collect();
        let x = lab.given_images(&x, input);
        let dy = lab.input_images(output);

        let mut y = lab.output_images(output, Write::Set);
        backend.max_pool(y.dst(), x.src(), pool);
        lab.record("max", &y, 1);
        let mut dx = lab.output_images(input, write);
        backend.max_pool_backward(dx.dst(), x.src(), y.src(), dy.src(), pool, write);
        lab.record("dx of max", &dx, 9);

        let mut y = lab.output_images(output, Write::Set);
        backend.avg_pool(y.dst(), x.src(), pool);
        lab.record_scaled("avg", &y, 9, 4.0);
        let mut dx = lab.output_images(input, write);
        backend.avg_pool_backward(dx.dst(), dy.src(), pool, write);
        lab.record("dx of avg", &dx, 9);
    }
}

/// A NaN in a window is its largest value, and so is the first of several.
#[derive(Debug)]
struct MaxPoolOfNan;

impl Case for MaxPoolOfNan {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let input = Images {
            n: 5,
            c: 3,
            h: 6,
            w: 6,
        };
        let pool = Pool {
            input,
            rows: fixed(3, 2, 1),
            cols: fixed(2, 2, 0),
        };
        let mut x = lab.noise(input.len());
        x.iter_mut().step_by(4).for_each(|x| *x = f64::NAN);
        x.iter_mut()
            .skip(1)
            .step_by(3)
            .for_each(|x| *x = f64::NEG_INFINITY);
        let (x, dy) = (lab.given_images(&x, input), lab.input_images(pool.output()));
        let mut y = lab.output_images(pool.output(), Write::Set);
        lab.backend.max_pool(y.dst(), x.src(), pool);
        lab.record_nans("y", &y);
        let mut dx = lab.output_images(input, Write::Set);
        lab.backend
            .max_pool_backward(dx.dst(), x.src(), y.src(), dy.src(), pool, Write::Set);
        lab.record("dx", &dx, 9);
    }
}

/// Convolutions of few numbers but every kind of geometry.
fn convs(n: usize) -> impl Iterator<Item = Conv> {
    let input = Images {
        n,
        c: 3,
        h: 6,
        w: 7,
    };
    let base = Conv {
        input,
        out_c: 5,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
    };
    let wide = Conv {
        input: Images {
            c: 17,
            h: 4,
            w: 4,
            ..input
        },
        out_c: 33,
        ..base
    };
    let cases = [
        base,
        wide,
        Conv {
            stride: [2, 2],
            ..wide
        },
        Conv {
            kernel: [1, 1],
            padding: [0, 0],
            ..wide
        },
        Conv {
            kernel: [1, 1],
            stride: [2, 2],
            padding: [0, 0],
            ..wide
        },
        Conv {
            kernel: [2, 3],
            stride: [2, 1],
            padding: [1, 0],
            ..base
        },
        Conv {
            kernel: [1, 5],
            stride: [1, 2],
            padding: [0, 2],
            ..base
        },
        Conv {
            kernel: [2, 2],
            stride: [3, 4],
            padding: [0, 0],
            ..base
        },
        Conv {
            kernel: [3, 3],
            padding: [4, 3],
            ..base
        },
        Conv {
            kernel: [6, 7],
            padding: [0, 0],
            ..base
        },
        Conv {
            kernel: [7, 7],
            padding: [0, 0],
            ..base
        },
        Conv {
            input: Images {
                c: 1,
                h: 1,
                w: 1,
                ..input
            },
            out_c: 1,
            ..base
        },
    ];
    cases.into_iter()
}

/// All three convolution primitives on one geometry.
#[derive(Debug)]
pub(super) struct ConvCase {
    pub(super) conv: Conv,
    pub(super) write: Write,
}

impl Case for ConvCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let ConvCase { conv, write } = *self;
        let (input, output, backend) = (conv.input, conv.output(), lab.backend);
        let taps = conv.kernel[0] * conv.kernel[1];
        let (x, w) = (lab.input_images(input), lab.input(conv.weight_len()));
        let dy = lab.input_images(output);
        // A backend may take Winograd's way, where single numbers are off by more: eight times the
        // room of a product. Its error in the mean is judged where it is written.
        let scale = if conv.kernel == [3, 3] && conv.stride == [1, 1] {
            32.0
        } else {
            4.0
        };

        let mut y = lab.output_images(output, Write::Set);
        backend.conv2d(y.dst(), x.src(), w.src(), conv);
        lab.record_scaled("y", &y, taps * input.c, scale);

        let mut dx = lab.output_images(input, write);
        backend.conv2d_backward_data(dx.dst(), dy.src(), w.src(), conv, write);
        lab.record_scaled("dx", &dx, taps * conv.out_c, scale);

        let mut dw = lab.output(conv.weight_len(), write);
        backend.conv2d_backward_weight(dw.dst(), x.src(), dy.src(), conv, write);
        lab.record_scaled("dw", &dw, output.n * output.pixels(), scale);

        let mut dx = lab.output_images(input, write);
        let mut dw = lab.output(conv.weight_len(), Write::Set);
        let weight = WeightGradient {
            x: x.src(),
            dw: dw.dst(),
        };
        let args = ConvBackward {
            dy: dy.src(),
            w: w.src(),
            conv,
            write,
            weight: Some(weight),
        };
        backend.conv2d_backward(dx.dst(), args);
        lab.record_scaled("dx of both", &dx, taps * conv.out_c, scale);
        lab.record_scaled("dw of both", &dw, output.n * output.pixels(), scale);
    }
}
