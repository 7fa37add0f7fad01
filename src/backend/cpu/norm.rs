//! Batch normalisation over rows x channels.
//!
//! Statistics are taken in two passes over each leaf while it is in the nearest cache (mean, then
//! squares about that mean), and leaves are merged in f64 with the formula of Chan, Golub and LeVeque
//! ("Updating formulae and a pairwise algorithm for computing sample variances", 1979): a channel
//! whose mean is far larger than its deviation keeps its digits.

use super::BATCH_BLOCK;
use super::parallel::{chunk_rows, for_each_piece, min_tasks};
use super::reduce::{PANEL, Runs, add_rows};
use crate::backend::SpatialLayout;
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

/// The rows of each group, with its number.
pub(super) fn group_runs(images: Images, groups: &[usize]) -> impl Iterator<Item = (usize, Runs)> {
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
