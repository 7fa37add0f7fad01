//! Batch normalisation over rows x channels.
//!
//! Statistics take one pass: each leaf of rows sums distances to its own first row and their squares,
//! and leaves are merged in f64 with the formula of Chan, Golub and LeVeque ("Updating formulae and a
//! pairwise algorithm for computing sample variances", 1979): a channel whose mean is far larger than
//! its deviation keeps its digits. A second pass writes the result, with residual and ReLU.
//!
//! Loops go over a *period* of whole rows at once, at least [`PERIOD`] numbers, with what belongs to
//! the channels repeated as often: few channels fill vectors as well as many.

use super::after::RowsDone;
use super::dispatch::each_isa;
use super::elementwise;
use super::leaves::{self, Leaf, group_runs};
use super::reduce::Runs;
use super::scratch;
use crate::shape::Images;
use std::ops::Range;

/// [`BatchNorm`](crate::backend::BatchNorm) as slices, but for its input.
pub(super) struct Forward<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) mean: &'a mut [f32],
    pub(super) inv_std: &'a mut [f32],
    pub(super) running: &'a mut [f32],
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) residual: Option<&'a [f32]>,
    pub(super) relu: bool,
}

/// Fewest numbers in a period.
const PERIOD: usize = 512;

/// Numbers that a loop takes at once, a power of two: four of the widest vectors.
const STEP: usize = 64;

/// Numbers of which what belongs to the channels stays in the nearest cache.
const MAX_PERIOD: usize = 1024;

/// Numbers kept of a channel of a leaf: that of its first row, the sum of the distances to it and that of their squares.
const KEPT: usize = 3;

/// Channels merged at a time.
const MERGED: usize = 16;

/// Numbers in a period of rows of `c` channels: whole vectors that start on cache lines, unless that takes too many.
pub(super) fn period(c: usize) -> usize {
    let c = c.max(1);
    let aligned = c * (STEP >> c.trailing_zeros().min(STEP.ilog2()));
    let unit = if aligned <= MAX_PERIOD { aligned } else { c };
    unit * PERIOD.div_ceil(unit)
}

/// Repeats the numbers of the channels until `dst`, a period, is full.
pub(super) fn repeat(dst: &mut [f32], channels: &[f32]) {
    for dst in dst.chunks_exact_mut(channels.len().max(1)) {
        dst.copy_from_slice(channels);
    }
}

/// Adds up the rows of a period.
pub(super) fn fold(dst: &mut [f32], period: &[f32]) {
    dst.fill(0.0);
    for row in period.chunks_exact(dst.len().max(1)) {
        dst.iter_mut().zip(row).for_each(|(d, x)| *d += x);
    }
}

/// `y = (x - mean)·inv_std·gamma + beta` with the statistics of each group.
pub(super) fn forward(
    args: Forward<'_>,
    x: &[f32],
    images: Images,
    groups: &[usize],
    eps: f32,
    momentum: f32,
) {
    forward_groups(args, x, images, groups, [eps, momentum], None);
}

/// [`forward`] once `make` has computed the input, `x`, as [`leaves::while_computed`] says: the leaves are added up while
/// they are in the cache.
pub(super) fn forward_after(
    args: Forward<'_>,
    x: &mut [f32],
    images: Images,
    groups: &[usize],
    eps: f32,
    momentum: f32,
    make: impl FnOnce(&mut [f32], &RowsDone<'_>),
) {
    let c = images.c;
    scratch::numbers(leaves::count(images, groups) * KEPT * c, |parts| {
        let sum = |part: &mut [f32], leaf: Leaf<'_>| {
            let (numbers, first) = (&*leaf.numbers.0, leaf.numbers.1);
            leaf_sums(part, leaf.rows(c), (numbers, first), c);
        };
        leaves::while_computed(parts, images, groups, sum, |rows_done| {
            make(&mut *x, rows_done);
        });
        forward_groups(args, x, images, groups, [eps, momentum], Some(&*parts));
    });
}

/// The forward pass over groups of samples. `parts` are the sums of all leaves of all groups, if they are known.
fn forward_groups(
    mut args: Forward<'_>,
    x: &[f32],
    images: Images,
    groups: &[usize],
    eps_momentum: [f32; 2],
    mut parts: Option<&[f32]>,
) {
    let c = images.c;
    for (g, runs) in group_runs(images, groups) {
        let group = g * c..(g + 1) * c;
        statistics(&mut args, x, &runs, group.clone(), eps_momentum, &mut parts);
        apply(&mut args, x, &runs, c, group);
    }
}

/// Mean and `inv_std` of a group, and what it adds to the running statistics. For `parts` see [`leaves::of_group`].
fn statistics(
    args: &mut Forward<'_>,
    x: &[f32],
    runs: &Runs,
    group: Range<usize>,
    [eps, momentum]: [f32; 2],
    parts: &mut Option<&[f32]>,
) {
    let (c, n) = (group.len(), runs.rows() as f64);
    let (mean, inv_std) = (&mut args.mean[group.clone()], &mut args.inv_std[group]);
    let (running_mean, running_var) = args.running.split_at_mut(c);
    let sum = |part: &mut [f32], i| leaf_sums(part, runs.leaf(i, c), (x, 0), c);
    leaves::of_group(runs, c, KEPT * c, parts, sum, |parts| {
        let counts = |i| runs.leaf(i, c).map(|rows| rows.len()).sum::<usize>() as f64;
        for start in (0..c).step_by(MERGED) {
            let columns = start..c.min(start + MERGED);
            let parts = parts.chunks_exact(KEPT * c).enumerate();
            let moments = merge(parts.map(|(i, part)| (counts(i), part)), columns.clone(), c);
            for (j, (centre, squares)) in columns.zip(moments) {
                mean[j] = centre as f32;
                let variance = squares / n.max(1.0);
                inv_std[j] = (variance + f64::from(eps)).sqrt().recip() as f32;
                if n > 1.0 {
                    update(&mut running_mean[j], centre, momentum);
                    update(&mut running_var[j], squares / (n - 1.0), momentum);
                }
            }
        }
    });
}

/// `running = (1 - momentum)·running + momentum·batch`
fn update(running: &mut f32, batch: f64, momentum: f32) {
    let momentum = f64::from(momentum);
    *running = ((1.0 - momentum) * f64::from(*running) + momentum * batch) as f32;
}

/// The first row of a leaf, the sums of the distances to it and of their squares.
fn leaf_sums(
    part: &mut [f32],
    rows: impl Iterator<Item = Range<usize>>,
    (x, before): (&[f32], usize),
    c: usize,
) {
    let period = period(c);
    let mut rows = rows
        .map(|rows| rows.start - before..rows.end - before)
        .peekable();
    let first = rows.peek().map_or(0, |rows| rows.start);
    part[..c].copy_from_slice(&x[first * c..][..c]);
    scratch::numbers(3 * period, |sums| {
        let (shift, sums) = sums.split_at_mut(period);
        sums.fill(0.0);
        let (rest, squares) = sums.split_at_mut(period);
        repeat(shift, &part[..c]);
        for rows in rows {
            let x = &x[rows.start * c..rows.end * c];
            add_distances(rest, squares, shift, x);
        }
        fold(&mut part[c..2 * c], rest);
        fold(&mut part[2 * c..], squares);
    });
}

each_isa! {
/// `rest += x - shift`, `squares += (x - shift)²`, period by period.
fn add_distances(rest: &mut [f32], squares: &mut [f32], shift: &[f32], x: &[f32]) {
    for x in x.chunks(shift.len()) {
        let sums = rest.iter_mut().zip(&mut *squares);
        for (((rest, squares), shift), x) in sums.zip(shift).zip(x) {
            let d = x - shift;
            *rest += d;
            *squares += d * d;
        }
    }
}
}

/// Mean and sum of the squares of the distances to it, from those of all leaves in order.
fn merge<'a>(
    leaves: impl Iterator<Item = (f64, &'a [f32])>,
    columns: Range<usize>,
    c: usize,
) -> [(f64, f64); MERGED] {
    let mut moments = [(0.0, 0.0); MERGED];
    let mut count = 0.0;
    for (n, leaf) in leaves {
        let total = count + n;
        for (j, (mean, squares)) in columns.clone().zip(&mut moments) {
            let [first, rest, of_squares] = [leaf[j], leaf[c + j], leaf[2 * c + j]].map(f64::from);
            let delta = first + rest / n - *mean;
            *mean += delta * n / total;
            *squares += (of_squares - rest * rest / n).max(0.0) + delta * delta * count * n / total;
        }
        count = total;
    }
    moments
}

/// Writes the output for the statistics of `group`.
fn apply(args: &mut Forward<'_>, x: &[f32], runs: &Runs, c: usize, group: Range<usize>) {
    let period = period(c);
    let (residual, relu) = (args.residual, args.relu);
    scratch::numbers(3 * period, |channels| {
        let (mean, rest) = channels.split_at_mut(period);
        let (scale, beta) = rest.split_at_mut(period);
        repeat(mean, &args.mean[group.clone()]);
        repeat(scale, &args.inv_std[group]);
        for row in scale.chunks_exact_mut(c.max(1)) {
            row.iter_mut().zip(args.gamma).for_each(|(s, g)| *s *= g);
        }
        repeat(beta, args.beta);
        let channels = [&*mean, &*scale, &*beta];
        runs.for_each_mut([&mut *args.y], c, &|first, _, [y]| {
            let x = &x[first * c..][..y.len()];
            let residual = residual.map(|r| &r[first * c..][..y.len()]);
            finish(y, x, residual, relu, channels);
        });
    });
}

each_isa! {
/// `y = (x - mean)·scale + beta`, plus the residual, through a ReLU if so wanted.
fn finish(y: &mut [f32], x: &[f32], residual: Option<&[f32]>, relu: bool, channels: [&[f32]; 3]) {
    let period = channels[0].len();
    for (i, (y, x)) in y.chunks_mut(period).zip(x.chunks(period)).enumerate() {
        let residual = residual.map(|r| &r[i * period..][..y.len()]);
        match (residual, relu) {
            (None, false) => affine(y, x, channels, |y| y),
            (None, true) => affine(y, x, channels, elementwise::relu),
            (Some(r), false) => affine_and(y, x, r, channels, |y| y),
            (Some(r), true) => affine_and(y, x, r, channels, elementwise::relu),
        }
    }
}
}

/// `y = then((x - mean)·scale + beta)`
#[inline(always)]
fn affine(y: &mut [f32], x: &[f32], [mean, scale, beta]: [&[f32]; 3], then: impl Fn(f32) -> f32) {
    for ((((y, x), mean), scale), beta) in y.iter_mut().zip(x).zip(mean).zip(scale).zip(beta) {
        *y = then((x - mean) * scale + beta);
    }
}

/// `y = then((x - mean)·scale + beta + residual)`
#[inline(always)]
fn affine_and(
    y: &mut [f32],
    x: &[f32],
    residual: &[f32],
    [mean, scale, beta]: [&[f32]; 3],
    then: impl Fn(f32) -> f32,
) {
    let sources = x.iter().zip(residual).zip(mean).zip(scale).zip(beta);
    for (y, ((((x, residual), mean), scale), beta)) in y.iter_mut().zip(sources) {
        *y = then((x - mean) * scale + beta + residual);
    }
}

/// `y = (x - mean)·inv_std·gamma + beta` with the running statistics.
pub(super) fn eval(mut args: Forward<'_>, x: &[f32], c: usize, eps: f32) {
    let (running_mean, running_var) = args.running.split_at(c);
    args.mean[..c].copy_from_slice(running_mean);
    for (inv_std, &var) in args.inv_std.iter_mut().zip(running_var) {
        *inv_std = (f64::from(var) + f64::from(eps)).sqrt().recip() as f32;
    }
    let rows = Runs::contiguous(args.y.len() / c.max(1));
    apply(&mut args, x, &rows, c, 0..c);
}

#[cfg(test)]
mod tests {
    use super::super::after::After;
    use super::super::{check::noise, conv};
    use super::*;
    use crate::shape::Conv;

    /// All that a batch normalisation behind a convolution computes, with the sums taken at once or afterwards.
    fn results(conv: Conv, groups: &[usize], at_once: bool, residual: bool) -> Vec<u32> {
        let (images, c, saved) = (conv.output(), conv.out_c, groups.len() * conv.out_c);
        let (x, w) = (noise(1, conv.input.len()), noise(2, conv.weight_len()));
        let [mut between, mut y] = [f32::NAN; 2].map(|nan| vec![nan; images.len()]);
        let [mut mean, mut inv_std] = [f32::NAN; 2].map(|nan| vec![nan; saved]);
        let mut running = noise(3, 2 * c);
        let added = noise(4, images.len());
        let args = Forward {
            y: &mut y,
            mean: &mut mean,
            inv_std: &mut inv_std,
            running: &mut running,
            gamma: &noise(5, c),
            beta: &noise(6, c),
            residual: residual.then_some(&added[..]),
            relu: residual,
        };
        let (eps, momentum) = (1e-5, 0.1);
        if at_once {
            assert!(
                conv::by_rows(None, conv, images) && leaves::of_whole_blocks(images, groups),
                "{conv:?} and {groups:?} do not go together"
            );
            let make = |y: &mut [f32], rows_done: &RowsDone<'_>| {
                let after = After {
                    rows_done,
                    beside: [&[]; 2],
                };
                conv::conv2d_then(y, &x, &w, conv, after);
            };
            forward_after(args, &mut between, images, groups, eps, momentum, make);
        } else {
            conv::conv2d(None, &mut between, &x, &w, conv);
            forward(args, &between, images, groups, eps, momentum);
        }
        let all = [between, y, mean, inv_std, running].concat();
        all.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn statistics_taken_while_a_convolution_computes_have_the_same_bits() {
        for (groups, c, h, w) in [
            (&[20][..], 20, 8, 8),
            (&[32, 32], 16, 7, 12),
            (&[34], 24, 8, 16),
            (&[17, 17], 40, 12, 4),
            (&[64, 32], 16, 8, 4),
            (&[32, 0, 32], 20, 9, 6),
        ] {
            let input = Images {
                n: groups.iter().sum(),
                c: 24,
                h,
                w,
            };
            let conv = Conv {
                input,
                out_c: c,
                kernel: [3; 2],
                stride: [1; 2],
                padding: [1; 2],
            };
            for residual in [false, true] {
                let of = |at_once| results(conv, groups, at_once, residual);
                assert!(of(true) == of(false), "{groups:?}, {conv:?}, {residual}");
            }
        }
    }
}
