//! Primitives on images: conversions, copies, dropout, pooling, convolution.

use super::{Case, Lab, Visitor, WRITES};
use crate::backend::{Backend, DropoutMask, Write};
use crate::shape::{Conv, Images, Pool, Window};

/// Batches of one block, of several, with even and with uneven blocks.
const BATCHES: [usize; 6] = [0, 1, 5, 20, 33, 70];

pub(super) fn visit(visitor: &mut impl Visitor) {
    for n in BATCHES {
        for (c, h, w) in [(1, 1, 1), (10, 1, 1), (3, 5, 4), (17, 3, 2), (1, 7, 7)] {
            let images = Images { n, c, h, w };
            for write in WRITES {
                visitor.visit(Convert {
                    images,
                    write,
                    to_rows: false,
                });
                visitor.visit(Convert {
                    images,
                    write,
                    to_rows: true,
                });
                for p in [0.0, 0.1, 0.5] {
                    visitor.visit(Dropout { images, p, write });
                }
            }
        }
    }
    let large = Images {
        n: 70,
        c: 33,
        h: 16,
        w: 17,
    };
    visitor.visit(Convert {
        images: large,
        write: Write::Set,
        to_rows: true,
    });
    visitor.visit(Convert {
        images: large,
        write: Write::Add,
        to_rows: false,
    });
    visitor.visit(Dropout {
        images: large,
        p: 0.3,
        write: Write::Set,
    });

    let image = Images {
        n: 1,
        c: 3,
        h: 2,
        w: 3,
    };
    for (to, to_start, from, from_start, count) in [
        (1, 0, 1, 0, 1),
        (20, 10, 10, 0, 10),
        (10, 0, 30, 20, 10),
        (70, 5, 66, 3, 60),
        (96, 32, 64, 32, 32),
        (33, 17, 40, 39, 1),
        (33, 0, 33, 0, 0),
    ] {
        for write in WRITES {
            let copy = CopySamples {
                image,
                to,
                to_start,
                from,
                from_start,
                count,
                write,
            };
            visitor.visit(copy);
        }
    }
    let image = Images { n: 1, ..large };
    let (to, to_start, from, from_start, count) = (100, 20, 90, 10, 75);
    let write = Write::Add;
    visitor.visit(CopySamples {
        image,
        to,
        to_start,
        from,
        from_start,
        count,
        write,
    });

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
        input: large,
        rows,
        cols,
    };
    visitor.visit(PoolCase {
        pool,
        write: Write::Set,
    });

    for n in BATCHES {
        for conv in convs(n) {
            for write in WRITES {
                visitor.visit(ConvCase { conv, write });
            }
        }
    }
    let input = Images {
        n: 40,
        c: 16,
        h: 12,
        w: 12,
    };
    let conv = Conv {
        input,
        out_c: 32,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
    };
    visitor.visit(ConvCase {
        conv,
        write: Write::Set,
    });
}

#[derive(Debug)]
pub(super) struct Convert {
    pub(super) images: Images,
    pub(super) write: Write,
    pub(super) to_rows: bool,
}

impl Case for Convert {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let Convert { images, write, .. } = *self;
        let y = if self.to_rows {
            let (x, mut y) = (lab.input_images(images), lab.output(images.len(), write));
            lab.backend.to_rows(y.dst(), x.src(), images, write);
            y
        } else {
            let (x, mut y) = (lab.input(images.len()), lab.output_images(images, write));
            lab.backend.to_spatial(y.dst(), x.src(), images, write);
            y
        };
        lab.record("y", &y, 1);
    }
}

#[derive(Debug)]
pub(super) struct CopySamples {
    pub(super) image: Images,
    pub(super) to: usize,
    pub(super) to_start: usize,
    pub(super) from: usize,
    pub(super) from_start: usize,
    pub(super) count: usize,
    pub(super) write: Write,
}

impl Case for CopySamples {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let (to_start, count, write) = (self.to_start, self.count, self.write);
        let to = Images {
            n: self.to,
            ..self.image
        };
        let from = Images {
            n: self.from,
            ..self.image
        };
        let src = lab.input_images(from);
        // The samples that are not written keep their value.
        let mut before = lab.noise(to.len());
        if write == Write::Set {
            before[to_start * to.sample()..][..count * to.sample()].fill(f64::NAN);
        }
        let mut dst = lab.given_images(&before, to);
        let start = self.from_start;
        lab.backend.copy_samples(
            dst.dst(),
            to,
            to_start,
            src.src(),
            from,
            start,
            count,
            write,
        );
        lab.record("dst", &dst, 1);
    }
}

#[derive(Debug)]
pub(super) struct Dropout {
    pub(super) images: Images,
    pub(super) p: f32,
    pub(super) write: Write,
}

impl Case for Dropout {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let Dropout { images, p, write } = *self;
        let mask = DropoutMask {
            p,
            seed: 0x0123_4567_89AB_CDEF,
            step: 40,
            layer: 2,
        };
        let (x, mut y) = (lab.input_images(images), lab.output_images(images, write));
        lab.backend.dropout(y.dst(), x.src(), images, mask, write);
        lab.record("y", &y, 1);
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

        let mut y = lab.output_images(output, Write::Set);
        backend.conv2d(y.dst(), x.src(), w.src(), conv);
        lab.record_product("y", &y, taps * input.c);

        let mut dx = lab.output_images(input, write);
        backend.conv2d_backward_data(dx.dst(), dy.src(), w.src(), conv, write);
        lab.record_product("dx", &dx, taps * conv.out_c);

        let mut dw = lab.output(conv.weight_len(), write);
        backend.conv2d_backward_weight(dw.dst(), x.src(), dy.src(), conv, write);
        lab.record_product("dw", &dw, output.n * output.pixels());
    }
}
