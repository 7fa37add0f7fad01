//! The backward pass of batch normalisation: one pass for two sums over each group, one that writes.
//! Where the forward pass ended in a ReLU, both look at its output to know what came through, or compute its sign
//! once more: what is read from memory is what takes the time.

use super::dispatch::each_isa;
use super::elementwise::{put, relu_backward};
use super::norm::{fold, group_runs, period, repeat};
use super::parallel::min_leaves;
use super::reduce::Runs;
use super::scratch;
use crate::backend::{Upstream, Write};
use crate::shape::Images;
use rayon::prelude::*;
use std::ops::Range;

/// [`BatchNormBackward`](crate::backend::BatchNormBackward) as slices.
pub(super) struct Backward<'a> {
    pub(super) dx: Option<(&'a mut [f32], Write)>,
    pub(super) dgamma_dbeta: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) dy: Upstream<&'a [f32], &'a mut [f32]>,
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) inv_std: &'a [f32],
    pub(super) relu: Relu<'a>,
    pub(super) dresidual: Option<(&'a mut [f32], Write)>,
}

/// The ReLU that the forward pass ended in.
#[derive(Clone, Copy)]
pub(super) enum Relu<'a> {
    /// There was none.
    None,
    /// Its output.
    Of(&'a [f32]),
    /// That of what was made of the input: nothing was added.
    OfInput,
}

/// What belongs to the channels, a period of each.
#[derive(Clone, Copy)]
struct Channels<'a> {
    mean: &'a [f32],
    /// What the differences from the mean were multiplied by.
    scale: &'a [f32],
    beta: &'a [f32],
}

/// With `n` rows in the group and `h = (x - mean)·inv_std`:
/// `dx = gamma·inv_std·(dy - Σdy/n - h·Σ(dy·h)/n)`, `dgamma = Σ dy·h`, `dbeta = Σ dy`.
pub(super) fn backward(args: Backward<'_>, images: Images, groups: &[usize], write: Write) {
    let runs = group_runs(images, groups);
    backward_groups(args, images.c, runs, write, |sum, n| sum / n);
}

/// `dx = gamma·inv_std·dy`, `dgamma = Σ dy·(x - mean)·inv_std`, `dbeta = Σ dy`: as [`backward`], but
/// the statistics do not move with `x`, so their two terms are 0.
pub(super) fn eval_backward(args: Backward<'_>, c: usize, write: Write) {
    let rows = args.x.len() / c.max(1);
    let runs = std::iter::once((0, Runs::contiguous(rows)));
    backward_groups(args, c, runs, write, |_, _| 0.0);
}

/// The backward pass over groups of rows; `share(sum, rows)` is what each row of a group takes of a
/// sum over the group.
fn backward_groups(
    mut args: Backward<'_>,
    c: usize,
    groups: impl Iterator<Item = (usize, Runs)>,
    mut write: Write,
    share: impl Fn(f64, f64) -> f64,
) {
    let period = period(c);
    for (g, runs) in groups.filter(|(_, runs)| runs.rows() > 0) {
        let group = g * c..(g + 1) * c;
        scratch::numbers(5 * period, |channels| {
            let (mean, rest) = channels.split_at_mut(period);
            let (beta, rest) = rest.split_at_mut(period);
            let (scale, factors) = rest.split_at_mut(period);
            repeat(mean, &args.mean[group.clone()]);
            repeat(beta, args.beta);
            repeat(scale, &args.inv_std[group.clone()]);
            for row in scale.chunks_exact_mut(c.max(1)) {
                row.iter_mut().zip(args.gamma).for_each(|(s, g)| *s *= g);
            }
            let channels = Channels { mean, scale, beta };
            let (dgamma, dbeta) = args.dgamma_dbeta.split_at_mut(c);
            let leaves = runs.leaves(c);
            scratch::numbers(leaves * 2 * c, |parts| {
                let (x, relu) = (args.x, args.relu);
                let dy = match &args.dy {
                    Upstream::Kept(dy) => *dy,
                    Upstream::BecomesInput(dy) | Upstream::BecomesResidual(dy) => &**dy,
                };
                let tasks = parts.par_chunks_mut((2 * c).max(1)).enumerate();
                tasks
                    .with_min_len(min_leaves(runs.rows() * c))
                    .for_each(|(i, part)| {
                        leaf_sums(part, runs.leaf(i, c), [x, dy], relu, channels, c)
                    });
                for j in 0..c {
                    let total = |from: usize| -> f64 {
                        let leaves = parts.chunks_exact(2 * c);
                        leaves.map(|part| f64::from(part[from + j])).sum()
                    };
                    let (n, inv_std) = (runs.rows() as f64, args.inv_std[group.start + j]);
                    let (sum, dot) = (total(0), total(c) * f64::from(inv_std));
                    put(&mut dgamma[j], dot as f32, write);
                    put(&mut dbeta[j], sum as f32, write);
                    factors[j] = share(sum, n) as f32;
                    factors[period + j] = (share(dot, n) * f64::from(inv_std)) as f32;
                }
            });
            write = Write::Add;
            for factor in factors.chunks_exact_mut(period) {
                let (channels, rest) = factor.split_at_mut(c);
                repeat(rest, channels);
            }
            apply(&mut args, &runs, c, channels, factors);
        });
    }
    if write == Write::Set {
        // There was not a single row.
        args.dgamma_dbeta.fill(0.0);
    }
}

impl Relu<'_> {
    /// For the rows of some places.
    fn at(self, places: Range<usize>) -> Self {
        match self {
            Relu::Of(y) => Relu::Of(&y[places]),
            other => other,
        }
    }
}

/// Puts what the ReLU lets through of `dy`, a period that begins at `start` of the rows in hand, into `passed`, and
/// returns it.
#[inline(always)]
fn before_relu<'a>(
    passed: &'a mut [f32],
    [x, dy]: [&[f32]; 2],
    start: usize,
    relu: Relu<'_>,
    channels: Channels<'_>,
) -> &'a [f32] {
    let passed = &mut passed[..dy.len()];
    match relu {
        Relu::None => passed.copy_from_slice(dy),
        Relu::Of(y) => {
            for ((passed, dy), y) in passed.iter_mut().zip(dy).zip(&y[start..]) {
                *passed = relu_backward(*y, *dy);
            }
        }
        Relu::OfInput => {
            let channels = channels.mean.iter().zip(channels.scale).zip(channels.beta);
            let sources = x.iter().zip(dy).zip(channels);
            for (passed, ((x, dy), ((mean, scale), beta))) in passed.iter_mut().zip(sources) {
                // The bits of the forward pass, before its ReLU.
                *passed = relu_backward((x - mean) * scale + beta, *dy);
            }
        }
    }
    passed
}

/// `[Σ dy, Σ dy·(x - mean)]` over a leaf.
fn leaf_sums(
    part: &mut [f32],
    rows: impl Iterator<Item = Range<usize>>,
    [x, dy]: [&[f32]; 2],
    relu: Relu<'_>,
    channels: Channels<'_>,
    c: usize,
) {
    let period = channels.mean.len();
    scratch::numbers(2 * period, |sums| {
        sums.fill(0.0);
        let (sum, dot) = sums.split_at_mut(period);
        for rows in rows {
            let places = rows.start * c..rows.end * c;
            let sources = [&x[places.clone()], &dy[places.clone()]];
            add_dots([sum, dot], sources, relu.at(places), channels);
        }
        let (to_sum, to_dot) = part.split_at_mut(c);
        fold(to_sum, sum);
        fold(to_dot, dot);
    });
}

each_isa! {
/// `sum += dy`, `dot += dy·(x - mean)` with what the ReLU lets through of `dy`, period by period.
fn add_dots(sums: [&mut [f32]; 2], sources: [&[f32]; 2], relu: Relu<'_>, channels: Channels<'_>) {
    let ([sum, dot], [x, dy]) = (sums, sources);
    let period = channels.mean.len();
    for (i, (x, dy)) in x.chunks(period).zip(dy.chunks(period)).enumerate() {
        let sums = sum.iter_mut().zip(&mut *dot);
        let sources = x.iter().zip(dy).zip(channels.mean);
        let add = |(sum, dot): (&mut f32, &mut f32), dy: f32, distance: f32| {
            *sum += dy;
            *dot += dy * distance;
        };
        match relu {
            Relu::None => {
                for (sums, ((x, dy), mean)) in sums.zip(sources) {
                    add(sums, *dy, x - mean);
                }
            }
            Relu::Of(y) => {
                for ((sums, ((x, dy), mean)), y) in sums.zip(sources).zip(&y[i * period..]) {
                    add(sums, relu_backward(*y, *dy), x - mean);
                }
            }
            Relu::OfInput => {
                let rest = channels.scale.iter().zip(channels.beta);
                for ((sums, ((x, dy), mean)), (scale, beta)) in sums.zip(sources).zip(rest) {
                    let distance = x - mean;
                    // The bits of the forward pass, before its ReLU.
                    add(sums, relu_backward(distance * scale + beta, *dy), distance);
                }
            }
        }
    }
}
}

/// Writes the gradients of the input and of the residual.
fn apply(args: &mut Backward<'_>, runs: &Runs, c: usize, channels: Channels<'_>, factors: &[f32]) {
    let (x, relu) = (args.x, args.relu);
    let mut writes = [None; 2];
    let mut parts: [&mut [f32]; 2] = [&mut [], &mut []];
    for (i, to) in [&mut args.dx, &mut args.dresidual].into_iter().enumerate() {
        if let Some((to, write)) = to {
            (parts[i], writes[i]) = (to, Some(*write));
        }
    }
    let (kept, becomes): (&[f32], usize) = match &mut args.dy {
        Upstream::Kept(dy) => (dy, parts.len()),
        Upstream::BecomesInput(dy) => {
            (parts[0], writes[0]) = (dy, Some(Write::Set));
            (&[], 0)
        }
        Upstream::BecomesResidual(dy) => {
            (parts[1], writes[1]) = (dy, Some(Write::Set));
            (&[], 1)
        }
    };
    if writes == [None; 2] {
        return;
    }
    runs.for_each_mut(parts, c, &|first, rows, [dx, dresidual]| {
        let places = first * c..(first + rows) * c;
        let dy = if kept.is_empty() {
            kept
        } else {
            &kept[places.clone()]
        };
        let sources = [&x[places.clone()], dy, factors];
        scratch::numbers(channels.mean.len(), |memory| {
            let to = [dx, dresidual, memory];
            write_rows(to, writes, sources, becomes, relu.at(places), channels);
        });
    });
}

each_isa! {
/// Some rows of [`apply`], period by period. `dy` is the source or, if it becomes one of the gradients, that one.
fn write_rows(
    to: [&mut [f32]; 3],
    writes: [Option<Write>; 2],
    sources: [&[f32]; 3],
    becomes: usize,
    relu: Relu<'_>,
    channels: Channels<'_>,
) {
    let ([dx, dresidual, memory], [x, dy, factors]) = (to, sources);
    let period = channels.mean.len();
    for (i, x) in x.chunks(period).enumerate() {
        let places = i * period..i * period + x.len();
        let dy = match becomes {
            0 => &dx[places.clone()],
            1 => &dresidual[places.clone()],
            _ => &dy[places.clone()],
        };
        let dy = before_relu(memory, [x, dy], places.start, relu, channels);
        if let Some(write) = writes[0] {
            gradient(&mut dx[places.clone()], x, dy, channels, factors, write);
        }
        if let Some(write) = writes[1] {
            let dresidual = &mut dresidual[places];
            dresidual.iter_mut().zip(dy).for_each(|(d, &g)| put(d, g, write));
        }
    }
}
}

/// `dx = scale·(dy - f0 - (x - mean)·f1)`
#[inline(always)]
fn gradient(
    dx: &mut [f32],
    x: &[f32],
    dy: &[f32],
    channels: Channels<'_>,
    factors: &[f32],
    write: Write,
) {
    let (f0, f1) = factors.split_at(channels.mean.len());
    let channels = channels.mean.iter().zip(channels.scale);
    let sources = x.iter().zip(dy).zip(channels).zip(f0.iter().zip(f1));
    for (dx, (((x, dy), (mean, scale)), (f0, f1))) in dx.iter_mut().zip(sources) {
        put(dx, scale * (dy - f0 - (x - mean) * f1), write);
    }
}
