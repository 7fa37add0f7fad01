//! The backward pass of batch normalisation: two sums over each group, then one pass that writes.

use super::elementwise::put;
use super::norm::group_runs;
use super::parallel::min_tasks;
use super::reduce::{PANEL, Runs, add_panels};
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
                put(d, *total as f32, write);
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
    for j in 0..width {
        put(
            &mut dx[j],
            f0[j] * (dy[j] - f1[j] - (x[j] - mean[j]) * f2[j]),
            write,
        );
    }
}
