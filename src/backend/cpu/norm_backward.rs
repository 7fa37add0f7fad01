//! The backward pass of batch normalisation: one pass for two sums over each group, one that writes.
//! Where the forward pass ended in a ReLU, both look at its output to know what came through.

use super::dispatch::each_isa;
use super::elementwise::{put, relu_backward};
use super::norm::{fold, group_runs, period, repeat};
use super::parallel::min_leaves;
use super::reduce::Runs;
use super::scratch;
use crate::backend::Write;
use crate::shape::Images;
use rayon::prelude::*;
use std::ops::Range;

/// [`BatchNormBackward`](crate::backend::BatchNormBackward) as slices.
pub(super) struct Backward<'a> {
    pub(super) dx: Option<(&'a mut [f32], Write)>,
    pub(super) dgamma_dbeta: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) inv_std: &'a [f32],
    pub(super) y: Option<&'a [f32]>,
    pub(super) dresidual: Option<(&'a mut [f32], Write)>,
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
        scratch::numbers(4 * period, |channels| {
            let (mean, factors) = channels.split_at_mut(period);
            repeat(mean, &args.mean[group.clone()]);
            let (dgamma, dbeta) = args.dgamma_dbeta.split_at_mut(c);
            let leaves = runs.leaves(c);
            scratch::numbers(leaves * 2 * c, |parts| {
                let (x, dy, y, mean) = (args.x, args.dy, args.y, &*mean);
                let tasks = parts.par_chunks_mut((2 * c).max(1)).enumerate();
                tasks
                    .with_min_len(min_leaves(runs.rows() * c))
                    .for_each(|(i, part)| leaf_sums(part, runs.leaf(i, c), [x, dy], y, mean, c));
                for j in 0..c {
                    let total = |from: usize| -> f64 {
                        let leaves = parts.chunks_exact(2 * c);
                        leaves.map(|part| f64::from(part[from + j])).sum()
                    };
                    let (n, inv_std) = (runs.rows() as f64, args.inv_std[group.start + j]);
                    let (sum, dot) = (total(0), total(c) * f64::from(inv_std));
                    put(&mut dgamma[j], dot as f32, write);
                    put(&mut dbeta[j], sum as f32, write);
                    factors[j] = args.gamma[j] * inv_std;
                    factors[period + j] = share(sum, n) as f32;
                    factors[2 * period + j] = (share(dot, n) * f64::from(inv_std)) as f32;
                }
            });
            write = Write::Add;
            for factor in factors.chunks_exact_mut(period) {
                let (channels, rest) = factor.split_at_mut(c);
                repeat(rest, channels);
            }
            apply(&mut args, &runs, c, mean, factors);
        });
    }
    if write == Write::Set {
        // There was not a single row.
        args.dgamma_dbeta.fill(0.0);
    }
}

/// What the ReLU, if `y` is its output, lets through of `dy`, which belongs to `y` from `start` on;
/// `memory` may be used for it.
#[inline(always)]
fn before_relu<'a>(
    memory: &'a mut [f32],
    dy: &'a [f32],
    y: Option<&[f32]>,
    start: usize,
) -> &'a [f32] {
    let Some(y) = y else { return dy };
    let n = dy.len();
    let (memory, y) = (&mut memory[..n], &y[start..start + n]);
    for j in 0..n {
        memory[j] = relu_backward(y[j], dy[j]);
    }
    memory
}

/// `[Σ dy, Σ dy·(x - mean)]` over a leaf.
fn leaf_sums(
    part: &mut [f32],
    rows: impl Iterator<Item = Range<usize>>,
    [x, dy]: [&[f32]; 2],
    y: Option<&[f32]>,
    mean: &[f32],
    c: usize,
) {
    let period = mean.len();
    scratch::numbers(3 * period, |memory| {
        let (memory, sums) = memory.split_at_mut(period);
        sums.fill(0.0);
        let (sum, dot) = sums.split_at_mut(period);
        for rows in rows {
            let places = rows.start * c..rows.end * c;
            let y = y.map(|y| &y[places.clone()]);
            add_dots([sum, dot, memory], &x[places.clone()], &dy[places], y, mean);
        }
        let (to_sum, to_dot) = part.split_at_mut(c);
        fold(to_sum, sum);
        fold(to_dot, dot);
    });
}

each_isa! {
/// `sum += dy`, `dot += dy·(x - mean)`, period by period.
fn add_dots(sums: [&mut [f32]; 3], x: &[f32], dy: &[f32], y: Option<&[f32]>, mean: &[f32]) {
    let [sum, dot, memory] = sums;
    let period = mean.len();
    for (i, (x, dy)) in x.chunks(period).zip(dy.chunks(period)).enumerate() {
        let dy = before_relu(memory, dy, y, i * period);
        let n = x.len();
        let (dy, mean) = (&dy[..n], &mean[..n]);
        let (sum, dot) = (&mut sum[..n], &mut dot[..n]);
        for j in 0..n {
            sum[j] += dy[j];
            dot[j] += dy[j] * (x[j] - mean[j]);
        }
    }
}
}

/// Writes the gradients of the input and of the residual.
fn apply(args: &mut Backward<'_>, runs: &Runs, c: usize, mean: &[f32], factors: &[f32]) {
    let period = mean.len();
    let (x, dy, y) = (args.x, args.dy, args.y);
    let parts = [&mut args.dx, &mut args.dresidual];
    let writes = parts
        .each_ref()
        .map(|d| d.as_ref().map(|(_, write)| *write));
    if writes == [None; 2] {
        return;
    }
    let parts = parts.map(|d| d.as_mut().map_or(&mut [] as &mut [f32], |(d, _)| d));
    runs.for_each_mut(parts, c, &|first, rows, [dx, dresidual]| {
        let places = first * c..(first + rows) * c;
        let y = y.map(|y| &y[places.clone()]);
        let sources = [&x[places.clone()], &dy[places], mean, factors];
        scratch::numbers(period, |memory| {
            write_rows([dx, dresidual, memory], writes, sources, y);
        });
    });
}

each_isa! {
/// Some rows of [`apply`], period by period.
fn write_rows(
    to: [&mut [f32]; 3],
    writes: [Option<Write>; 2],
    sources: [&[f32]; 4],
    y: Option<&[f32]>,
) {
    let ([dx, dresidual, memory], [x, dy, mean, factors]) = (to, sources);
    let period = mean.len();
    for (i, (x, dy)) in x.chunks(period).zip(dy.chunks(period)).enumerate() {
        let (start, end) = (i * period, i * period + x.len());
        let dy = before_relu(memory, dy, y, start);
        if let Some(write) = writes[0] {
            gradient(&mut dx[start..end], x, dy, mean, factors, write);
        }
        if let Some(write) = writes[1] {
            let dresidual = &mut dresidual[start..end];
            dresidual.iter_mut().zip(dy).for_each(|(d, &g)| put(d, g, write));
        }
    }
}
}

/// `dx = f0·(dy - f1 - (x - mean)·f2)`
#[inline(always)]
fn gradient(dx: &mut [f32], x: &[f32], dy: &[f32], mean: &[f32], factors: &[f32], write: Write) {
    let (n, period) = (dx.len(), mean.len());
    let (x, dy, mean) = (&x[..n], &dy[..n], &mean[..n]);
    let (f0, rest) = factors.split_at(period);
    let (f1, f2) = rest.split_at(period);
    let (f0, f1, f2) = (&f0[..n], &f1[..n], &f2[..n]);
    for j in 0..n {
        let d = f0[j] * (dy[j] - f1[j] - (x[j] - mean[j]) * f2[j]);
        put(&mut dx[j], d, write);
    }
}
