//! Batch normalisation, channel by channel.

use super::{
    BatchNorm, BatchNormBackward, Elem, Upstream, View, ViewMut, Write, put, slice, slice_mut,
};
use crate::shape::Images;
use std::ops::Range;

/// The rows of each group: with blocks of one sample they are contiguous.
fn group_rows(images: Images, groups: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let bounds = groups.iter().map(|samples| {
        let start = end;
        end += samples * images.pixels();
        start..end
    });
    bounds.collect()
}

/// What is done with each output: the residual is added, and a ReLU applied.
fn finish<'a, E: Elem>(residual: Option<&'a [E]>, relu: bool) -> impl Fn(usize, f64) -> f64 + 'a {
    move |at, y| {
        let y = y + residual.map_or(0.0, |residual| residual[at].to_f64());
        if relu && y < 0.0 { 0.0 } else { y }
    }
}

/// `dy` where the output `y` of the ReLU, if there was one, is above 0.
fn before_relu<E: Elem>(dy: &[E], y: Option<&[E]>) -> Vec<E> {
    let passes = |at: usize| y.is_none_or(|y| y[at].to_f64() > 0.0);
    let gradient = |(at, &dy): (usize, &E)| if passes(at) { dy } else { E::default() };
    dy.iter().enumerate().map(gradient).collect()
}

/// A gradient to write, and how.
type Gradient<'a, E> = Option<(ViewMut<'a, Vec<E>>, Write)>;

/// What the ReLU lets through, and where the gradients of input and residual go.
fn upstream<'a, E: Elem>(
    dy: Upstream<View<'_, Vec<E>>, ViewMut<'a, Vec<E>>>,
    y: Option<&[E]>,
    dx: Gradient<'a, E>,
    dresidual: Gradient<'a, E>,
) -> (Vec<E>, Gradient<'a, E>, Gradient<'a, E>) {
    match dy {
        Upstream::Kept(dy) => (before_relu(slice(dy), y), dx, dresidual),
        Upstream::BecomesInput(mut dy) => {
            let passed = before_relu(slice_mut(dy.reborrow()), y);
            (passed, Some((dy, Write::Set)), dresidual)
        }
        Upstream::BecomesResidual(mut dy) => {
            let passed = before_relu(slice_mut(dy.reborrow()), y);
            (passed, dx, Some((dy, Write::Set)))
        }
    }
}

/// `y = (x - mean)·inv_std·gamma + beta` with the statistics of each group.
pub(super) fn forward<E: Elem>(
    args: BatchNorm<'_, Vec<E>>,
    images: Images,
    groups: &[usize],
    eps: f32,
    momentum: f32,
) {
    let c = images.c;
    let (x, gamma, beta) = (slice(args.x), slice(args.gamma), slice(args.beta));
    let (y, running) = (slice_mut(args.y), slice_mut(args.running));
    let finish = finish(args.residual.map(slice), args.relu);
    let (means, inv_stds) = (slice_mut(args.mean), slice_mut(args.inv_std));
    let (eps, momentum) = (f64::from(eps), f64::from(momentum));
    for (g, rows) in group_rows(images, groups).into_iter().enumerate() {
        let count = rows.len() as f64;
        for j in 0..c {
            let value = |row: usize| x[row * c + j].to_f64();
            let mean = rows.clone().map(value).sum::<f64>() / count.max(1.0);
            let squares: f64 = rows.clone().map(|row| (value(row) - mean).powi(2)).sum();
            let inv_std = 1.0 / (squares / count.max(1.0) + eps).sqrt();
            means[g * c + j] = E::from_f64(mean);
            inv_stds[g * c + j] = E::from_f64(inv_std);
            for row in rows.clone() {
                let normal = (value(row) - mean) * inv_std;
                let out = normal * gamma[j].to_f64() + beta[j].to_f64();
                y[row * c + j] = E::from_f64(finish(row * c + j, out));
            }
            if rows.len() > 1 {
                for (at, batch) in [(j, mean), (c + j, squares / (count - 1.0))] {
                    let old = running[at].to_f64();
                    running[at] = E::from_f64((1.0 - momentum) * old + momentum * batch);
                }
            }
        }
    }
}

/// With `n` rows in the group and `h = (x - mean)·inv_std`:
/// `dx = gamma·inv_std·(dy - Σdy/n - h·Σ(dy·h)/n)`, `dgamma = Σ dy·h`, `dbeta = Σ dy`.
pub(super) fn backward<E: Elem>(
    args: BatchNormBackward<'_, Vec<E>>,
    images: Images,
    groups: &[usize],
    write: Write,
) {
    let c = images.c;
    let (x, gamma) = (slice(args.x), slice(args.gamma));
    let (means, inv_stds) = (slice(args.mean), slice(args.inv_std));
    let y = args.y.map(slice);
    let (dy, dx, dresidual) = upstream(args.dy, y, args.dx, args.dresidual);
    if let Some((dresidual, write)) = dresidual {
        for (d, g) in slice_mut(dresidual).iter_mut().zip(&dy) {
            put(d, g.to_f64(), write);
        }
    }
    let mut dx = dx.map(|(dx, write)| (slice_mut(dx), write));
    let dparams = slice_mut(args.dgamma_dbeta);
    for j in 0..c {
        let (mut dgamma, mut dbeta) = (0.0, 0.0);
        for (g, rows) in group_rows(images, groups).into_iter().enumerate() {
            let (mean, inv_std) = (means[g * c + j].to_f64(), inv_stds[g * c + j].to_f64());
            let normal = |row: usize| (x[row * c + j].to_f64() - mean) * inv_std;
            let grad = |row: usize| dy[row * c + j].to_f64();
            let sum: f64 = rows.clone().map(grad).sum();
            let dot: f64 = rows.clone().map(|row| grad(row) * normal(row)).sum();
            dgamma += dot;
            dbeta += sum;
            let Some((dx, write)) = &mut dx else { continue };
            let n = rows.len() as f64;
            for row in rows {
                let d = grad(row) - sum / n - normal(row) * dot / n;
                put(
                    &mut dx[row * c + j],
                    gamma[j].to_f64() * inv_std * d,
                    *write,
                );
            }
        }
        put(&mut dparams[j], dgamma, write);
        put(&mut dparams[c + j], dbeta, write);
    }
}

/// `y = (x - mean)·inv_std·gamma + beta` with the running statistics.
pub(super) fn eval<E: Elem>(args: BatchNorm<'_, Vec<E>>, c: usize, eps: f32) {
    let (x, gamma, beta) = (slice(args.x), slice(args.gamma), slice(args.beta));
    let (y, running) = (slice_mut(args.y), slice_mut(args.running));
    let finish = finish(args.residual.map(slice), args.relu);
    let (means, inv_stds) = (slice_mut(args.mean), slice_mut(args.inv_std));
    for j in 0..c {
        let mean = running[j].to_f64();
        let inv_std = 1.0 / (running[c + j].to_f64() + f64::from(eps)).sqrt();
        means[j] = E::from_f64(mean);
        inv_stds[j] = E::from_f64(inv_std);
        for at in (j..x.len()).step_by(c) {
            let normal = (x[at].to_f64() - mean) * inv_std;
            let out = normal * gamma[j].to_f64() + beta[j].to_f64();
            y[at] = E::from_f64(finish(at, out));
        }
    }
}

/// `dx = gamma·inv_std·dy`, `dgamma = Σ dy·(x - mean)·inv_std`, `dbeta = Σ dy`.
pub(super) fn eval_backward<E: Elem>(args: BatchNormBackward<'_, Vec<E>>, c: usize, write: Write) {
    let (x, gamma) = (slice(args.x), slice(args.gamma));
    let (means, inv_stds) = (slice(args.mean), slice(args.inv_std));
    let y = args.y.map(slice);
    let (dy, dx, dresidual) = upstream(args.dy, y, args.dx, args.dresidual);
    if let Some((dresidual, write)) = dresidual {
        for (d, g) in slice_mut(dresidual).iter_mut().zip(&dy) {
            put(d, g.to_f64(), write);
        }
    }
    let mut dx = dx.map(|(dx, write)| (slice_mut(dx), write));
    let dparams = slice_mut(args.dgamma_dbeta);
    for j in 0..c {
        let (mean, inv_std) = (means[j].to_f64(), inv_stds[j].to_f64());
        let (mut dgamma, mut dbeta) = (0.0, 0.0);
        for at in (j..x.len()).step_by(c) {
            let grad = dy[at].to_f64();
            dgamma += grad * (x[at].to_f64() - mean) * inv_std;
            dbeta += grad;
            if let Some((dx, write)) = &mut dx {
                put(&mut dx[at], gamma[j].to_f64() * inv_std * grad, *write);
            }
        }
        put(&mut dparams[j], dgamma, write);
        put(&mut dparams[c + j], dbeta, write);
    }
}
