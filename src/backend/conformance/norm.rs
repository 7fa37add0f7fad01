//! Batch normalisation.

use super::{Case, LARGE_IMAGES, Lab, Visitor, WRITES};
use crate::backend::{Backend, BatchNorm, BatchNormBackward, Upstream, Write};
use crate::shape::Images;

pub(super) fn visit(visitor: &mut impl Visitor) {
    for (c, h, w) in [
        (1, 1, 1),
        (10, 1, 1),
        (33, 1, 1),
        (7, 2, 3),
        (64, 3, 3),
        (12, 2, 2),
        (515, 1, 2),
    ] {
        for groups in [
            &[0][..],
            &[1],
            &[2],
            &[20],
            &[33],
            &[10, 10],
            &[1, 19],
            &[32, 32, 6],
            // Blocks of 24, 23 and 23 samples: none of these borders is a border of a block.
            &[5, 30, 35],
            &[0, 4, 0, 3],
            &[],
        ] {
            let images = Images {
                n: groups.iter().sum(),
                c,
                h,
                w,
            };
            for write in WRITES {
                for wants_dx in [Some(Write::Set), Some(Write::Add), None] {
                    let groups = groups.to_vec();
                    visitor.visit(BatchNormCase {
                        images,
                        groups,
                        write,
                        wants_dx,
                        mean: 0.0,
                    });
                }
            }
        }
    }
    let images = LARGE_IMAGES;
    let (write, wants_dx) = (Write::Add, Some(Write::Set));
    for groups in [vec![70], vec![32, 38], vec![3, 67]] {
        visitor.visit(BatchNormCase {
            images,
            groups,
            write,
            wants_dx,
            mean: 0.0,
        });
    }
    // A mean a thousand times the deviation: squares summed without a shift would lose every digit.
    let images = Images {
        n: 40,
        c: 5,
        h: 6,
        w: 6,
    };
    let groups = vec![15, 25];
    visitor.visit(BatchNormCase {
        images,
        groups,
        write,
        wants_dx,
        mean: 1000.0,
    });
}

/// Batch normalisation and its backward pass, in training mode by group and in evaluation mode.
#[derive(Debug)]
pub(super) struct BatchNormCase {
    pub(super) images: Images,
    pub(super) groups: Vec<usize>,
    /// How the gradients of scale and shift are written.
    pub(super) write: Write,
    /// How the gradient of the input is written, if at all.
    pub(super) wants_dx: Option<Write>,
    /// What is added to every input.
    pub(super) mean: f64,
}

const EPS: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

impl Case for BatchNormCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let (images, c) = (self.images, self.images.c);
        let statistics = self.groups.len() * c;
        let x = lab.noise(images.len());
        let x: Vec<f64> = x
            .iter()
            .map(|x| f64::from((x + self.mean) as f32))
            .collect();
        let x = lab.given_images(&x, images);
        let (gamma, beta) = (lab.input(c), lab.input(c));
        // Means and then variances, which are positive.
        let running: Vec<f64> = lab.noise(2 * c).iter().map(|x| x + 1.5).collect();
        let mut running = lab.given(&running);

        let residual = lab.input_images(images);

        for (train, relu) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut y = lab.output_images(images, Write::Set);
            let saved = if train { statistics } else { c };
            let (mut mean, mut inv_std) =
                (lab.output(saved, Write::Set), lab.output(saved, Write::Set));
            let args = BatchNorm {
                y: y.dst(),
                mean: mean.dst(),
                inv_std: inv_std.dst(),
                running: running.dst(),
                x: x.src(),
                gamma: gamma.src(),
                beta: beta.src(),
                residual: relu.then(|| residual.src()),
                relu,
            };
            match train {
                true => lab
                    .backend
                    .batch_norm(args, images, &self.groups, EPS, MOMENTUM),
                false => lab.backend.batch_norm_eval(args, c, EPS),
            }
            // Rounding of the mean is stretched by 1 / deviation.
            let stretch = lab.read(&inv_std).into_iter().fold(1.0, f64::max);
            lab.record_scaled("y", &y, 1, stretch * (1.0 + self.mean));
            lab.record_scaled("mean", &mean, 1, 1.0 + self.mean);
            lab.record_scaled("inv_std", &inv_std, 1, stretch);
            lab.record_scaled("running", &running, 1, 1.0 + self.mean);
        }
        for relu in [Relu::None, Relu::OfSum, Relu::Plain] {
            for train in [true, false] {
                for place in [Place::Apart, Place::Input, Place::Residual] {
                    self.backward(lab, train, relu, place);
                }
            }
        }
    }
}

/// How the forward pass ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relu {
    None,
    /// In the ReLU of a sum with a residual: any output is possible.
    OfSum,
    /// In a ReLU alone: the output follows from the input.
    Plain,
}

/// What takes the place of the gradient of the output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Apart,
    Input,
    Residual,
}

impl BatchNormCase {
    /// The backward pass for given statistics, so that it is judged by itself.
    fn backward<B: Backend>(&self, lab: &mut Lab<'_, B>, train: bool, relu: Relu, place: Place) {
        let (images, c) = (self.images, self.images.c);
        let has_residual = relu == Relu::OfSum && self.write == Write::Add;
        let possible = match place {
            Place::Apart => true,
            Place::Input => self.wants_dx == Some(Write::Set),
            Place::Residual => has_residual,
        };
        if !possible {
            return;
        }
        let saved = if train { self.groups.len() * c } else { c };
        let numbers = lab.noise(images.len());
        let x = lab.given_images(&numbers, images);
        let mut dy = lab.input_images(images);
        let [gammas, betas, means] = [c, c, saved].map(|len| lab.noise(len));
        let (gamma, beta, mean) = (lab.given(&gammas), lab.given(&betas), lab.given(&means));
        let inv_stds = lab.noise(saved).into_iter();
        let inv_stds: Vec<f64> = inv_stds.map(|x| f64::from((x + 1.5) as f32)).collect();
        let inv_std = lab.given(&inv_stds);
        let mut dx = lab.output_images(images, self.wants_dx.unwrap_or(Write::Add));
        let y = if relu == Relu::Plain {
            // In f32, as a backend computes it that does not read `y`.
            let ends: Vec<usize> = (self.groups.iter())
                .scan(0, |end, size| {
                    *end += size;
                    Some(*end)
                })
                .collect();
            let output = |(at, &x): (usize, &f64)| {
                let (sample, j) = (at / images.sample(), at / images.pixels() % c);
                let group = if train {
                    ends.partition_point(|&end| end <= sample)
                } else {
                    0
                };
                let of = |of: &[f64], at: usize| of[at] as f32;
                let (mean, inv_std) = (of(&means, group * c + j), of(&inv_stds, group * c + j));
                f64::from((x as f32 - mean) * (inv_std * of(&gammas, j)) + of(&betas, j))
            };
            let outputs: Vec<f64> = numbers.iter().enumerate().map(output).collect();
            lab.given_images(&outputs, images)
        } else {
            lab.input_images(images)
        };
        let also = match self.wants_dx {
            Some(Write::Add) => Write::Set,
            _ => Write::Add,
        };
        let mut dresidual = lab.output_images(images, also);
        let mut dgamma_dbeta = lab.output(2 * c, self.write);
        let dx_apart = place != Place::Input;
        let dresidual_apart = has_residual && place != Place::Residual;
        let args = BatchNormBackward {
            dx: (self.wants_dx)
                .filter(|_| dx_apart)
                .map(|write| (dx.dst(), write)),
            dgamma_dbeta: dgamma_dbeta.dst(),
            x: x.src(),
            dy: match place {
                Place::Apart => Upstream::Kept(dy.src()),
                Place::Input => Upstream::BecomesInput(dy.dst()),
                Place::Residual => Upstream::BecomesResidual(dy.dst()),
            },
            gamma: gamma.src(),
            beta: beta.src(),
            mean: mean.src(),
            inv_std: inv_std.src(),
            y: (relu != Relu::None).then(|| y.src()),
            residual: relu == Relu::OfSum,
            dresidual: dresidual_apart.then(|| (dresidual.dst(), also)),
        };
        match train {
            true => lab
                .backend
                .batch_norm_backward(args, images, &self.groups, self.write),
            false => lab.backend.batch_norm_eval_backward(args, c, self.write),
        }
        let (dx, dresidual) = match place {
            Place::Apart => (dx, dresidual),
            Place::Input => (dy, dresidual),
            Place::Residual => (dx, dy),
        };
        lab.record_scaled("dx", &dx, 1, 10.0);
        if has_residual {
            lab.record("dresidual", &dresidual, 1);
        }
        lab.record_scaled(
            "dgamma, dbeta",
            &dgamma_dbeta,
            images.n * images.pixels(),
            4.0,
        );
    }
}
