//! Stochastic gradient descent in one pass over the flat parameters.

use super::dispatch::each_isa;
use super::parallel::{CHUNK, PARALLEL_MIN, pays};
use super::tiles::for_each_pieces;
use crate::backend::SgdStep;

/// One step, see [`Backend::sgd`](crate::backend::Backend::sgd).
pub(super) fn sgd(values: &mut [f32], grads: &[f32], momentum: &mut [f32], step: SgdStep) {
    let shared = pays(values.len(), PARALLEL_MIN);
    let momentum = match step.momentum == 0.0 {
        true => &mut [],
        false => momentum,
    };
    for_each_pieces(
        [values, momentum],
        CHUNK,
        shared,
        |first, [values, momentum]| {
            let grads = &grads[first..][..values.len()];
            if step.momentum == 0.0 {
                plain(values, grads, step);
            } else {
                with_momentum(values, grads, momentum, step);
            }
        },
    );
}

each_isa! {
/// `p -= lr·(g + weight_decay·p)`
fn plain(values: &mut [f32], grads: &[f32], step: SgdStep) {
    for (p, &g) in values.iter_mut().zip(grads) {
        *p -= step.lr * decayed(g, *p, step);
    }
}
}

each_isa! {
fn with_momentum(values: &mut [f32], grads: &[f32], momentum: &mut [f32], step: SgdStep) {
    let averaged = 1.0 - step.dampening;
    for ((p, &g), v) in values.iter_mut().zip(grads).zip(momentum) {
        let d = decayed(g, *p, step);
        *v = if step.first {
            d
        } else {
            step.momentum * *v + averaged * d
        };
        *p -= step.lr
            * if step.nesterov {
                d + step.momentum * *v
            } else {
                *v
            };
    }
}
}

/// The gradient with its L2 penalty. Without one the weight is not looked at, as in PyTorch.
#[inline(always)]
fn decayed(g: f32, p: f32, step: SgdStep) -> f32 {
    if step.weight_decay == 0.0 {
        g
    } else {
        g + step.weight_decay * p
    }
}
