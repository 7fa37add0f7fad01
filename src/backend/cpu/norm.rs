//! Batch normalisation over rows x channels.
//!
//! Statistics are taken in two passes over each leaf while it is in the nearest cache (mean, then
//! squares about that mean), and leaves are merged in f64 with the formula of Chan, Golub and LeVeque
//! ("Updating formulae and a pairwise algorithm for computing sample variances", 1979): a channel
//! whose mean is far larger than its deviation keeps its digits.

use super::BATCH_BLOCK;
use super::parallel::{chunk_rows, for_each_piece, min_tasks};
use super::reduce::{PANEL, Runs, add_panels, add_rows};
use crate::backend::{SpatialLayout, Write};
use crate::shape::Images;
use rayon::prelude::*;
use std::ops::Range;

/// [`BatchNorm`](crate::backend::BatchNorm) as slices.
pub(super) struct Forward<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) mean: &'a mut [f32],
    pub(super) inv_std: &'a mut [f32],
    pub(super) running: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
}

/// [`BatchNormBackward`](crate::backend::BatchNormBackward) as slices.
pub(super) struct Backward<'a> {
    pub(super) dx: Option<(&'a mut [f32], Write)>,
    pub(super) dgamma_dbeta: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) inv_std: &'a [f32],
}

/// The rows of each group, with its number.
fn group_runs(images: Images, groups: &[usize]) -> impl Iterator<Item = (usize, Runs)> {
    let layout = SpatialLayout::new(images, BATCH_BLOCK);
    let mut end = 0;
    groups.iter().enumerate().map(move |(g, samples)| {
        let start = end;
        end += samples;
        (g, Runs::of_samples(layout, start..end))
    })
}

/// `y = (x - mean)·inv_std·gamma + beta` with the statistics of each group.
pub(super) fn forward(
    args: Forward<'_>,
    images: Images,
    groups: &[usize],
    eps: f32,
    momentum: f32,
) {
    let (c, x) = (images.c, args.x);
    for (g, runs) in group_runs(images, groups) {
        let (mean, inv_std) = (
            &mut args.mean[g * c..][..c],
            &mut args.inv_std[g * c..][..c],
        );
        let (running_mean, running_var) = args.running.split_at_mut(c);
        let panels = (
            mean.par_chunks_mut(PANEL),
            inv_std.par_chunks_mut(PANEL),
            running_mean.par_chunks_mut(PANEL),
            running_var.par_chunks_mut(PANEL),
        );
        let panels = panels
            .into_par_iter()
            .with_min_len(min_tasks(runs.rows() * c));
        panels
            .enumerate()
            .for_each(|(panel, (mean, inv_std, running_mean, running_var))| {
                let columns = panel * PANEL..panel * PANEL + mean.len();
                let moments = moments(&runs, x, c, columns);
                let n = moments.count;
                for j in 0..mean.len() {
                    mean[j] = moments.mean[j] as f32;
                    inv_std[j] = (moments.squares[j] / n.max(1.0) + f64::from(eps))
                        .sqrt()
                        .recip() as f32;
                    if n > 1.0 {
                        update(&mut running_mean[j], moments.mean[j], momentum);
                        update(
                            &mut running_var[j],
                            moments.squares[j] / (n - 1.0),
                            momentum,
                        );
                    }
                }
            });
        let (mean, inv_std) = (&*mean, &*inv_std);
        runs.for_each_mut(args.y, c, &|first, y| {
            apply_body(
                y,
                &x[first * c..][..y.len()],
                mean,
                inv_std,
                args.gamma,
                args.beta,
            );
        });
    }
}

/// `running = (1 - momentum)·running + momentum·batch`
fn update(running: &mut f32, batch: f64, momentum: f32) {
    let momentum = f64::from(momentum);
    *running = ((1.0 - momentum) * f64::from(*running) + momentum * batch) as f32;
}

/// `y = (x - mean)·inv_std·gamma + beta`
#[inline(always)]
fn apply_body(
    y: &mut [f32],
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    gamma: &[f32],
    beta: &[f32],
) {
    let c = gamma.len();
    let (mean, inv_std, beta) = (&mean[..c], &inv_std[..c], &beta[..c]);
    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
        for j in 0..c {
            y[j] = (x[j] - mean[j]) * (inv_std[j] * gamma[j]) + beta[j];
        }
    }
}

/// The statistics of some rows of a panel.
struct Moments {
    /// How many rows.
    count: f64,
    /// Their mean.
    mean: [f64; PANEL],
    /// The sum of the squares of their distances to the mean.
    squares: [f64; PANEL],
}

fn moments(runs: &Runs, x: &[f32], c: usize, columns: Range<usize>) -> Moments {
    let width = columns.len();
    let rows_of = |i| {
        let rows: Range<usize> = runs.get(i);
        &x[rows.start * c..rows.end * c]
    };
    let leaf = |part: Range<usize>| {
        let count: usize = part.clone().map(|i| runs.get(i).len()).sum();
        let scale = 1.0 / count.max(1) as f32;
        let mut centre = [0.0; PANEL];
        for i in part.clone() {
            add_rows(&mut centre[..width], rows_of(i), c, columns.clone());
        }
        centre = centre.map(|sum| sum * scale);
        // The first pass rounds the mean; `rest` is what the distances to it still add up to.
        let (mut rest, mut squares) = ([0.0; PANEL], [0.0; PANEL]);
        for i in part {
            let (rest, squares) = (&mut rest[..width], &mut squares[..width]);
            add_distances(
                rest,
                squares,
                &centre[..width],
                rows_of(i),
                c,
                columns.clone(),
            );
        }
        let count = count.max(1) as f64;
        let rest = rest.map(f64::from);
        Moments {
            count,
            mean: std::array::from_fn(|j| f64::from(centre[j]) + rest[j] / count),
            squares: std::array::from_fn(|j| {
                (f64::from(squares[j]) - rest[j] * rest[j] / count).max(0.0)
            }),
        }
    };
    runs.reduce(PANEL, &leaf, &merge)
}

/// `rest += x - centre`, `squares += (x - centre)²` over some columns of every row of `x`.
#[inline(always)]
fn add_distances(
    rest: &mut [f32],
    squares: &mut [f32],
    centre: &[f32],
    x: &[f32],
    cols: usize,
    columns: Range<usize>,
) {
    let width = columns.len();
    let (rest, squares, centre) = (&mut rest[..width], &mut squares[..width], &centre[..width]);
    for row in x.chunks_exact(cols) {
        let row = &row[columns.clone()][..width];
        for j in 0..width {
            let d = row[j] - centre[j];
            rest[j] += d;
            squares[j] += d * d;
        }
    }
}

fn merge(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    let delta = |j: usize| b.mean[j] - a.mean[j];
    Moments {
        count,
        mean: std::array::from_fn(|j| a.mean[j] + delta(j) * b.count / count),
        squares: std::array::from_fn(|j| {
            a.squares[j] + b.squares[j] + delta(j) * delta(j) * a.count * b.count / count
        }),
    }
}

/// Channels whose sums are held at a time, on the stack: more than any model in use has.
const CHANNELS: usize = 512;

/// With `n` rows in the group and `h = (x - mean)·inv_std`:
/// `dx = gamma·inv_std·(dy - Σdy/n - h·Σ(dy·h)/n)`, `dgamma = Σ dy·h`, `dbeta = Σ dy`.
pub(super) fn backward(args: Backward<'_>, images: Images, groups: &[usize], write: Write) {
    let runs = || group_runs(images, groups);
    backward_groups(args, images.c, &runs, write, |sum, n| sum / n);
}

/// `dx = gamma·inv_std·dy`, `dgamma = Σ dy·(x - mean)·inv_std`, `dbeta = Σ dy`: as [`backward`], but
/// the statistics do not move with `x`, so their two terms are 0.
pub(super) fn eval_backward(args: Backward<'_>, c: usize, write: Write) {
    let rows = args.x.len() / c.max(1);
    let runs = || std::iter::once((0, Runs::contiguous(rows)));
    backward_groups(args, c, &runs, write, |_, _| 0.0);
}

/// The backward pass over groups of rows; `share(sum, rows)` is what each row of a group takes of a
/// sum over the group.
fn backward_groups<I: Iterator<Item = (usize, Runs)>>(
    args: Backward<'_>,
    c: usize,
    groups: &dyn Fn() -> I,
    write: Write,
    share: impl Fn(f64, f64) -> f64,
) {
    let Backward {
        mut dx,
        dgamma_dbeta,
        x,
        dy,
        gamma,
        mean,
        inv_std,
    } = args;
    for start in (0..c).step_by(CHANNELS) {
        let width = CHANNELS.min(c - start);
        let mut totals = [[0.0; CHANNELS]; 2];
        for (g, runs) in groups().filter(|(_, runs)| runs.rows() > 0) {
            let at = g * c + start;
            let (mean, inv_std) = (&mean[at..][..width], &inv_std[at..][..width]);
            let mut sums = [[0.0; CHANNELS]; 2];
            add_sums(&mut sums, &runs, x, dy, c, start, mean);
            let mut factors = [[0.0; CHANNELS]; 3];
            for j in 0..width {
                let (sum, dot) = (sums[0][j], sums[1][j] * f64::from(inv_std[j]));
                totals[0][j] += dot;
                totals[1][j] += sum;
                let n = runs.rows() as f64;
                factors[0][j] = gamma[start + j] * inv_std[j];
                factors[1][j] = share(sum, n) as f32;
                factors[2][j] = (share(dot, n) * f64::from(inv_std[j])) as f32;
            }
            if let Some((dx, write)) = &mut dx {
                let write = *write;
                runs.for_each_mut(dx, c, &|first, dx| {
                    let (x, dy) = (&x[first * c..][..dx.len()], &dy[first * c..][..dx.len()]);
                    let rows = x.chunks_exact(c).zip(dy.chunks_exact(c));
                    for (dx, (x, dy)) in dx.chunks_exact_mut(c).zip(rows) {
                        let columns = start..start + width;
                        let (x, dy) = (&x[columns.clone()], &dy[columns.clone()]);
                        dx_body(&mut dx[columns], x, dy, mean, &factors, write);
                    }
                });
            }
        }
        for (half, totals) in dgamma_dbeta.chunks_exact_mut(c).zip(totals) {
            for (d, total) in half[start..].iter_mut().zip(&totals[..width]) {
                match write {
                    Write::Set => *d = *total as f32,
                    Write::Add => *d += *total as f32,
                }
            }
        }
    }
}

/// `sums = [Σ dy, Σ dy·(x - mean)]` over a group, for the channels from `start` that `mean` covers.
fn add_sums(
    sums: &mut [[f64; CHANNELS]; 2],
    runs: &Runs,
    x: &[f32],
    dy: &[f32],
    c: usize,
    start: usize,
    mean: &[f32],
) {
    let [sum, dot] = sums;
    let width = mean.len();
    let panels = (
        sum[..width].par_chunks_mut(PANEL),
        dot[..width].par_chunks_mut(PANEL),
    );
    let panels = panels
        .into_par_iter()
        .with_min_len(min_tasks(runs.rows() * c));
    panels.enumerate().for_each(|(panel, (sum, dot))| {
        let width = sum.len();
        let columns = start + panel * PANEL..start + panel * PANEL + width;
        let mean = &mean[panel * PANEL..][..width];
        let leaf = |part: Range<usize>| {
            let (mut sum, mut dot) = ([0.0; PANEL], [0.0; PANEL]);
            for rows in part.map(|i| runs.get(i)) {
                let places = rows.start * c..rows.end * c;
                let (sum, dot) = (&mut sum[..width], &mut dot[..width]);
                dots_body(
                    sum,
                    dot,
                    mean,
                    &x[places.clone()],
                    &dy[places],
                    c,
                    columns.clone(),
                );
            }
            (sum.map(f64::from), dot.map(f64::from))
        };
        let merge = |a: ([f64; PANEL], _), b: ([f64; PANEL], _)| {
            (add_panels(a.0, b.0), add_panels(a.1, b.1))
        };
        let sums = runs.reduce(2 * PANEL, &leaf, &merge);
        sum.copy_from_slice(&sums.0[..width]);
        dot.copy_from_slice(&sums.1[..width]);
    });
}

/// `sum += dy`, `dot += dy·(x - mean)` over some columns of every row.
#[inline(always)]
fn dots_body(
    sum: &mut [f32],
    dot: &mut [f32],
    mean: &[f32],
    x: &[f32],
    dy: &[f32],
    cols: usize,
    columns: Range<usize>,
) {
    let width = columns.len();
    let (sum, dot, mean) = (&mut sum[..width], &mut dot[..width], &mean[..width]);
    for (x, dy) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)) {
        let (x, dy) = (&x[columns.clone()][..width], &dy[columns.clone()][..width]);
        for j in 0..width {
            sum[j] += dy[j];
            dot[j] += dy[j] * (x[j] - mean[j]);
        }
    }
}

/// One row of `dx = f0·(dy - f1 - (x - mean)·f2)`.
#[inline(always)]
fn dx_body(
    dx: &mut [f32],
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    factors: &[[f32; CHANNELS]; 3],
    write: Write,
) {
    let width = dx.len().min(CHANNELS);
    let [f0, f1, f2] = factors;
    let (f0, f1, f2) = (&f0[..width], &f1[..width], &f2[..width]);
    let (dx, x, dy, mean) = (&mut dx[..width], &x[..width], &dy[..width], &mean[..width]);
    let value = |j: usize| f0[j] * (dy[j] - f1[j] - (x[j] - mean[j]) * f2[j]);
    match write {
        Write::Set => (0..width).for_each(|j| dx[j] = value(j)),
        Write::Add => (0..width).for_each(|j| dx[j] += value(j)),
    }
}

/// `y = (x - mean)·inv_std·gamma + beta` with the running statistics.
pub(super) fn eval(args: Forward<'_>, c: usize, eps: f32) {
    let (running_mean, running_var) = args.running.split_at(c);
    args.mean[..c].copy_from_slice(running_mean);
    for (inv_std, &var) in args.inv_std.iter_mut().zip(running_var) {
        *inv_std = (f64::from(var) + f64::from(eps)).sqrt().recip() as f32;
    }
    let work = args.y.len();
    for_each_piece(args.y, chunk_rows(c) * c, work, |first, y| {
        let x = &args.x[first..][..y.len()];
        apply_body(y, x, args.mean, args.inv_std, args.gamma, args.beta);
    });
}
