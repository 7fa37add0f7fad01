//! Primitives on images that do not look at neighbours: conversions, copies, dropout.

use super::{BATCHES, Case, LARGE_IMAGES, Lab, Visitor, WRITES};
use crate::backend::{Backend, DropoutMask, Write};
use crate::shape::Images;

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
    let large = LARGE_IMAGES;
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
