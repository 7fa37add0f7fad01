//! The losses. Sums over rows and over elements are kept in f64 and in a fixed order.

use super::elementwise::map2;
use super::reduce::Runs;
use crate::backend::{ROW_LOSS_COLUMNS, RowLoss, Write};
use std::ops::Range;

/// One line of the row table.
struct Row {
    label: usize,
    w_ce: f32,
    w_mse: f32,
    width: usize,
}

impl Row {
    fn read(line: &[f32]) -> Self {
        Row {
            label: line[0] as usize,
            w_ce: line[1],
            w_mse: line[2],
            width: line[3] as usize,
        }
    }
}

/// Row `i` of a matrix of `c` columns.
fn row(matrix: &[f32], i: usize, c: usize) -> &[f32] {
    &matrix[i * c..][..c]
}

/// Row `i` of the stored logits; asked for only where it has a weight.
fn target(targets: Option<&[f32]>, i: usize, c: usize) -> &[f32] {
    row(
        targets.expect("a row with an MSE weight has stored logits"),
        i,
        c,
    )
}

/// `L = Σ_i w_ce[i]·CE(o_i, label_i) + w_mse[i]·Σ_{j < width_i} (o_ij - z_ij)²`
pub(super) fn row_loss(
    terms: &mut [f32],
    probs: &mut [f32],
    logits: &[f32],
    table: &[f32],
    targets: Option<&[f32]>,
    dims: RowLoss,
) {
    let c = dims.c;
    let (mut current, mut mse, mut replay) = (0.0, 0.0, 0.0);
    for (i, line) in table
        .chunks_exact(ROW_LOSS_COLUMNS)
        .take(dims.n)
        .enumerate()
    {
        let (line, logits) = (Row::read(line), row(logits, i, c));
        if line.w_ce != 0.0 {
            let log_sum = softmax(&mut probs[i * c..][..c], logits);
            let ce = f64::from(line.w_ce) * (log_sum - f64::from(logits[line.label]));
            match (dims.current_start..dims.current_end).contains(&i) {
                true => current += ce,
                false => replay += ce,
            }
        }
        if line.w_mse != 0.0 {
            let pairs = logits.iter().zip(target(targets, i, c)).take(line.width);
            let squares: f64 = pairs
                .map(|(o, z)| f64::from(distance(*o, *z)).powi(2))
                .sum();
            mse += f64::from(line.w_mse) * squares;
        }
    }
    let all = [current + mse + replay, current, mse, replay];
    for (term, value) in terms.iter_mut().zip(all) {
        *term = value as f32;
    }
}

/// `o - z`, or 0 where z is NaN: then it was not stored.
#[inline(always)]
fn distance(o: f32, z: f32) -> f32 {
    if z.is_nan() { 0.0 } else { o - z }
}

/// Writes `exp(x) / Σ exp(x)` and returns `ln Σ exp(x)`.
fn softmax(probs: &mut [f32], x: &[f32]) -> f64 {
    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (p, x) in probs.iter_mut().zip(x) {
        *p = (x - top).exp();
        sum += f64::from(*p);
    }
    let scale = (1.0 / sum) as f32;
    for p in probs {
        *p *= scale;
    }
    sum.ln() + f64::from(top)
}

/// What [`row_loss_backward`] reads.
pub(super) struct RowLossBackward<'a> {
    pub(super) probs: &'a [f32],
    pub(super) logits: &'a [f32],
    pub(super) table: &'a [f32],
    pub(super) targets: Option<&'a [f32]>,
    pub(super) dl: f32,
    pub(super) dims: RowLoss,
}

/// `dx = dl·(w_ce·(softmax(o) - onehot(label)) + 2·w_mse·(o - z))`
pub(super) fn row_loss_backward(dx: &mut [f32], args: &RowLossBackward<'_>, write: Write) {
    let c = args.dims.c;
    for (i, line) in args
        .table
        .chunks_exact(ROW_LOSS_COLUMNS)
        .take(args.dims.n)
        .enumerate()
    {
        let (line, dx) = (Row::read(line), &mut dx[i * c..][..c]);
        if write == Write::Set {
            dx.fill(0.0);
        }
        if line.w_ce != 0.0 {
            let scale = args.dl * line.w_ce;
            for (j, (dx, p)) in dx.iter_mut().zip(row(args.probs, i, c)).enumerate() {
                let onehot = if j == line.label { 1.0 } else { 0.0 };
                *dx += scale * (p - onehot);
            }
        }
        if line.w_mse != 0.0 {
            let scale = args.dl * 2.0 * line.w_mse;
            let pairs = row(args.logits, i, c)
                .iter()
                .zip(target(args.targets, i, c));
            for (dx, (o, z)) in dx.iter_mut().zip(pairs).take(line.width) {
                *dx += scale * distance(*o, *z);
            }
        }
    }
}

/// `mean (x - t)²`
pub(super) fn mse(x: &[f32], t: &[f32]) -> f32 {
    let elements = Runs::contiguous(x.len());
    let leaf = |runs: Range<usize>| {
        let places = runs.map(|i| elements.get(i));
        places
            .map(|place| squares_body(&x[place.clone()], &t[place]))
            .sum()
    };
    let sum = elements.reduce(1, &leaf, &|a: f64, b| a + b);
    (sum / x.len() as f64) as f32
}

/// `Σ (x - t)²` of a few numbers.
#[inline(always)]
fn squares_body(x: &[f32], t: &[f32]) -> f64 {
    const LANES: usize = 16;
    let (x, x_tail) = x.as_chunks::<LANES>();
    let (t, t_tail) = t.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, t) in x.iter().zip(t) {
        for ((sum, x), t) in sums.iter_mut().zip(x).zip(t) {
            *sum += (x - t) * (x - t);
        }
    }
    let tail: f32 = x_tail
        .iter()
        .zip(t_tail)
        .map(|(x, t)| (x - t) * (x - t))
        .sum();
    sums.into_iter().chain([tail]).map(f64::from).sum()
}

/// `dx = scale·(x - t)`
pub(super) fn mse_backward(dx: &mut [f32], x: &[f32], t: &[f32], scale: f32, write: Write) {
    map2(dx, x, t, write, |x, t| scale * (x - t));
}
