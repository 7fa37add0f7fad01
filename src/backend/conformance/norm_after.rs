//! A convolution and the batch normalisation of its output; the data gradient of a convolution, and the backward pass of
//! the batch normalisation before it.

use super::{Case, Lab, Visitor, WRITES};
use crate::backend::{
    Backend, BatchNorm, BatchNormBackward, ConvBackward, Convolved, Upstream, WeightGradient, Write,
};
use crate::shape::{Conv, Images};

pub(super) fn visit(visitor: &mut impl Visitor) {
    for (input, out_c, kernel, stride) in [
        // Sides of whole fours, of less and of more; few channels, many, and so many that the weight goes in pieces.
        ([20, 8, 8], 20, 3, 1),
        ([17, 6, 9], 33, 3, 1),
        ([64, 5, 4], 16, 3, 1),
        ([96, 4, 4], 96, 3, 1),
        // Computed otherwise.
        ([6, 5, 7], 10, 3, 2),
        ([5, 4, 4], 7, 1, 1),
    ] {
        for groups in [&[20][..], &[32, 32, 32], &[33], &[10, 10], &[37, 3]] {
            let [c, h, w] = input;
            let conv = Conv {
                input: Images {
                    n: groups.iter().sum(),
                    c,
                    h,
                    w,
                },
                out_c,
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [kernel / 2; 2],
            };
            for (has_residual, relu) in [(false, false), (false, true), (true, true), (true, false)]
            {
                visitor.visit(ForwardCase {
                    conv,
                    groups: groups.to_vec(),
                    has_residual,
                    relu,
                });
            }
            for (first, becomes_residual, along) in [
                (Write::Set, false, true),
                (Write::Add, true, false),
                (Write::Add, true, true),
                (Write::Add, false, false),
            ] {
                visitor.visit(AfterCase {
                    conv,
                    groups: groups.to_vec(),
                    first,
                    becomes_residual,
                    along,
                });
            }
        }
    }
}

/// How much larger than the terms of a sum is what Winograd's transforms add up.
const WINOGRAD: f64 = 16.0;

const EPS: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

#[derive(Debug)]
struct ForwardCase {
    conv: Conv,
    groups: Vec<usize>,
    has_residual: bool,
    relu: bool,
}

impl Case for ForwardCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let (conv, images) = (self.conv, self.conv.output());
        let (c, saved) = (images.c, self.groups.len() * images.c);
        let x = lab.input_images(conv.input);
        let w = lab.input(conv.weight_len());
        let (gamma, beta, residual) = (lab.input(c), lab.input(c), lab.input_images(images));
        // Means and then variances, which are positive.
        let running: Vec<f64> = lab.noise(2 * c).iter().map(|x| x + 1.5).collect();
        let mut running = lab.given(&running);
        let mut convolved = lab.output_images(images, Write::Set);
        let mut y = lab.output_images(images, Write::Set);
        let [mut mean, mut inv_std] = [saved; 2].map(|len| lab.output(len, Write::Set));
        let args = BatchNorm {
            y: y.dst(),
            mean: mean.dst(),
            inv_std: inv_std.dst(),
            running: running.dst(),
            x: Convolved {
                y: convolved.dst(),
                x: x.src(),
                w: w.src(),
                conv,
            },
            gamma: gamma.src(),
            beta: beta.src(),
            residual: self.has_residual.then(|| residual.src()),
            relu: self.relu,
        };
        lab.backend
            .batch_norm_after(args, images, &self.groups, EPS, MOMENTUM);
        let terms = conv.kernel[0] * conv.kernel[1] * conv.input.c;
        lab.record_scaled("convolution", &convolved, terms, WINOGRAD);
        lab.record_scaled("mean", &mean, terms, WINOGRAD);
        // What is off is stretched by 1 / deviation.
        let stretch = lab.read(&inv_std).into_iter().fold(0.0, f64::max);
        lab.record_scaled("inv_std", &inv_std, terms, WINOGRAD * stretch * stretch);
        lab.record_scaled("y", &y, terms, 2.0 * WINOGRAD * stretch);
        // A variance is about as large as there are terms.
        let part = f64::from(MOMENTUM) * WINOGRAD;
        lab.record_scaled("running", &running, terms * terms, part);
    }
}

#[derive(Debug)]
struct AfterCase {
    conv: Conv,
    groups: Vec<usize>,
    /// How the data gradient is written.
    first: Write,
    /// Whether there was a residual, whose gradient takes its place.
    becomes_residual: bool,
    /// Whether the gradient of the weight is wanted as well.
    along: bool,
}

impl Case for AfterCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let (conv, images) = (self.conv, self.conv.input);
        let (c, saved) = (images.c, self.groups.len() * images.c);
        for write in WRITES {
            let upstream = lab.input_images(conv.output());
            let w = lab.input(conv.weight_len());
            let x = lab.input_images(images);
            let mut dy = lab.output_images(images, self.first);
            let [gamma, beta, mean] = [c, c, saved].map(|len| lab.input(len));
            let inv_std: Vec<f64> = lab.noise(saved).iter().map(|x| x + 1.5).collect();
            let inv_std = lab.given(&inv_std);
            let y = lab.input_images(images);
            let mut dx = lab.output_images(images, Write::Set);
            let mut dgamma_dbeta = lab.output(2 * c, write);
            let mut dw = lab.output(conv.weight_len(), Write::Set);
            let becomes = match self.becomes_residual {
                true => Upstream::BecomesResidual(dy.dst()),
                false => Upstream::BecomesInput(dy.dst()),
            };
            let args = BatchNormBackward {
                dx: self.becomes_residual.then(|| (dx.dst(), Write::Set)),
                dgamma_dbeta: dgamma_dbeta.dst(),
                x: x.src(),
                dy: becomes,
                gamma: gamma.src(),
                beta: beta.src(),
                mean: mean.src(),
                inv_std: inv_std.src(),
                y: self.becomes_residual.then(|| y.src()),
                residual: self.becomes_residual,
                dresidual: None,
            };
            let first = ConvBackward {
                dy: upstream.src(),
                w: w.src(),
                conv,
                write: self.first,
                weight: self.along.then(|| WeightGradient {
                    x: y.src(),
                    dw: dw.dst(),
                }),
            };
            lab.backend
                .batch_norm_backward_after(first, args, images, &self.groups, write);
            if self.along {
                let output = conv.output();
                let terms = output.n * output.pixels();
                lab.record_scaled("dw", &dw, terms, 2.0 * WINOGRAD);
            }
            let terms = 9 * conv.out_c;
            if self.becomes_residual {
                lab.record_scaled("dx", &dx, terms, 5.0 * WINOGRAD);
                lab.record_scaled("dresidual", &dy, terms, WINOGRAD);
            } else {
                lab.record_scaled("dx", &dy, terms, 5.0 * WINOGRAD);
            }
            let rows = images.n * images.pixels();
            lab.record_scaled("dgamma, dbeta", &dgamma_dbeta, rows * terms, 2.0 * WINOGRAD);
        }
    }
}
