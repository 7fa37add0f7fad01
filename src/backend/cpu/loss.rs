//! The losses. Sums over rows and over elements are kept in f64 and in a fixed order.

use super::dispatch::each_isa;
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
    exponentials(probs, logits, table, dims);
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

/// The largest logit of a row.
fn top(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Writes `exp(x - top)` for the rows that have a cross-entropy. Rows are short: those beside each other are
/// one run of numbers.
fn exponentials(probs: &mut [f32], logits: &[f32], table: &[f32], dims: RowLoss) {
    let (lines, _) = table.as_chunks::<ROW_LOSS_COLUMNS>();
    let weighted = |line: &[f32; ROW_LOSS_COLUMNS]| Row::read(line).w_ce != 0.0;
    let mut first = 0;
    for run in lines[..dims.n].chunk_by(|a, b| weighted(a) == weighted(b)) {
        let places = first * dims.c..(first + run.len()) * dims.c;
        first += run.len();
        if !weighted(&run[0]) {
            continue;
        }
        let (probs, logits) = (&mut probs[places.clone()], &logits[places]);
        let rows = probs.chunks_exact_mut(dims.c);
        for (p, x) in rows.zip(logits.chunks_exact(dims.c)) {
            let top = top(x);
            (p.iter_mut().zip(x)).for_each(|(p, x)| *p = x - top);
        }
        exp(probs);
    }
}

each_isa! {
/// `exp(x)` of each number, none above 0; 0 where it is not a normal number, and NaN stays NaN.
fn exp(numbers: &mut [f32]) {
    for x in numbers {
        *x = exp_of(*x);
    }
}
}

/// `exp(x) = 2ⁿ·exp(r)`, `|r| ≤ ln 2 / 2`, with the series of `exp(r)` up to `r⁷ / 7!` (what is left out is
/// below 6e-9): plain arithmetic, the same bits for every instruction set.
#[inline(always)]
fn exp_of(x: f32) -> f32 {
    /// Adding 1.5·2²³ leaves the nearest whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, of which the first has so few bits that its product with n is exact.
    const LN_2: [f32; 2] = [
        355.0 / 512.0,
        (std::f64::consts::LN_2 - 355.0 / 512.0) as f32,
    ];
    /// Below it the result has no normal number.
    const LEAST: f32 = -87.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let mut sum = 1.0 / 5040.0;
    for factor in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * r + 1.0 / factor;
    }
    // The sum is between 0.7 and 1.5; so its exponent can be added to where x is in range.
    let bits = sum.to_bits().wrapping_add(shifted.to_bits() << 23);
    if x < LEAST {
        0.0
    } else if x.is_nan() {
        x
    } else {
        f32::from_bits(bits)
    }
}

/// Makes `exp(x - top)` of a row `exp(x) / Σ exp(x)` and returns `ln Σ exp(x)`.
fn softmax(probs: &mut [f32], x: &[f32]) -> f64 {
    let sum: f64 = probs.iter().copied().map(f64::from).sum();
    let scale = (1.0 / sum) as f32;
    for p in probs {
        *p *= scale;
    }
    sum.ln() + f64::from(top(x))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_library() {
        let mut steps: Vec<f32> = (0..=870_000).map(|i| -1e-4 * i as f32).collect();
        steps.extend((0..=40).map(|i| -(2f32.powi(-i))));
        let mut found = steps.clone();
        exp(&mut found);
        for (&x, found) in steps.iter().zip(found) {
            let want = f64::from(x).exp();
            let error = (f64::from(found) / want - 1.0).abs();
            assert!(error < 1.5e-7, "exp({x}) = {found}, not {want}");
        }
        let mut edges = [0.0, -88.0, -1e30, f32::NEG_INFINITY];
        exp(&mut edges);
        assert_eq!(edges, [1.0, 0.0, 0.0, 0.0]);
        let mut nans = [
            f32::NAN,
            f32::from_bits(0x7fc0_0001),
            f32::from_bits(0xffc0_01ff),
        ];
        exp(&mut nans);
        assert!(nans.iter().all(|x| x.is_nan()), "{nans:?}");
    }
}
