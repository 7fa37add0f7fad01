//! The backward pass of batch normalisation: one pass for two sums over each group, one that writes.
//! Where the forward pass ended in a ReLU, both look at its output to know what came through, or compute its sign
//! once more: what is read from memory is what takes the time.

use super::after::RowsDone;
use super::dispatch::each_isa;
use super::elementwise::{put, relu_backward};
use super::leaves::{self, Leaf, group_runs};
use super::norm::{fold, period, repeat};
use super::reduce::Runs;
use super::scratch;
use crate::backend::{Upstream, Write};
use crate::shape::Images;
use std::ops::Range;

/// Numbers kept of a channel of a leaf: the sum of the gradients, and that of their products with the distances from the
/// mean.
const KEPT: usize = 2;

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
    backward_groups(args, images.c, runs, write, |sum, n| sum / n, None);
}

/// `dx = gamma·inv_std·dy`, `dgamma = Σ dy·(x - mean)·inv_std`, `dbeta = Σ dy`: as [`backward`], but
/// the statistics do not move with `x`, so their two terms are 0.
pub(super) fn eval_backward(args: Backward<'_>, c: usize, write: Write) {
    let rows = args.x.len() / c.max(1);
    let runs = std::iter::once((0, Runs::contiguous(rows)));
    backward_groups(args, c, runs, write, |_, _| 0.0, None);
}

/// [`backward`] once `make` has computed the gradient of the output, as [`leaves::while_computed`] says: the leaves are
/// added up while they are in the cache.
pub(super) fn backward_after(
    mut args: Backward<'_>,
    images: Images,
    groups: &[usize],
    write: Write,
    make: impl FnOnce(&mut [f32], &RowsDone<'_>),
) {
    let (c, period) = (images.c, period(images.c));
    scratch::numbers(leaves::count(images, groups) * KEPT * c, |parts| {
        scratch::numbers(groups.len() * 3 * period, |memory| {
            for (g, memory) in memory.chunks_exact_mut(3 * period).enumerate() {
                args.repeat(memory, g * c..(g + 1) * c);
            }
            let (x, relu, memory) = (args.x, args.relu, &*memory);
            let dy = match &mut args.dy {
                Upstream::BecomesInput(dy) | Upstream::BecomesResidual(dy) => dy,
                Upstream::Kept(_) => unreachable!("what is computed here can be written"),
            };
            let sum = |part: &mut [f32], leaf: Leaf<'_>| {
                let channels = Channels::of(&memory[leaf.group * 3 * period..][..3 * period]);
                let rows = leaf.rows(c);
                let (numbers, first) = leaf.numbers;
                leaf_sums(part, period, rows, |sums, rows| {
                    let dy = &mut numbers[(rows.start - first) * c..(rows.end - first) * c];
                    let places = rows.start * c..rows.end * c;
                    let x = &x[places.clone()];
                    match relu {
                        Relu::Of(y) => cut_and_add_dots(sums, [x, &y[places]], dy, channels.mean),
                        _ => add_dots(sums, [x, dy], relu, channels),
                    }
                });
            };
            let make = |rows_done: &RowsDone<'_>| make(dy, rows_done);
            leaves::while_computed(parts, images, groups, sum, make);
        });
        if let Relu::Of(_) = args.relu {
            // Already taken off, so this is the gradient of the residual.
            args.relu = Relu::None;
            args.dy = match args.dy {
                Upstream::BecomesResidual(dy) => Upstream::Kept(dy),
                other => other,
            };
        }
        let runs = group_runs(images, groups);
        backward_groups(args, c, runs, write, |sum, n| sum / n, Some(&*parts));
    });
}

impl Backward<'_> {
    /// Fills three periods with what belongs to the channels of a group: see [`Channels::of`].
    fn repeat(&self, memory: &mut [f32], group: Range<usize>) {
        let (mean, rest) = memory.split_at_mut(memory.len() / 3);
        let (scale, beta) = rest.split_at_mut(mean.len());
        repeat(mean, &self.mean[group.clone()]);
        repeat(beta, self.beta);
        repeat(scale, &self.inv_std[group]);
        for row in scale.chunks_exact_mut(self.gamma.len().max(1)) {
            row.iter_mut().zip(self.gamma).for_each(|(s, g)| *s *= g);
        }
    }
}

impl<'a> Channels<'a> {
    /// The three periods of [`Backward::repeat`].
    fn of(memory: &'a [f32]) -> Self {
        let (mean, rest) = memory.split_at(memory.len() / 3);
        let (scale, beta) = rest.split_at(mean.len());
        Channels { mean, scale, beta }
    }
}

/// The backward pass over groups of rows; `share(sum, rows)` is what each row of a group takes of a
/// sum over the group. `parts` are the sums of all leaves of all groups, if they are known.
fn backward_groups(
    mut args: Backward<'_>,
    c: usize,
    groups: impl Iterator<Item = (usize, Runs)>,
    mut write: Write,
    share: impl Fn(f64, f64) -> f64,
    mut parts: Option<&[f32]>,
) {
    let period = period(c);
    for (g, runs) in groups.filter(|(_, runs)| runs.rows() > 0) {
        let group = g * c..(g + 1) * c;
        scratch::numbers(5 * period, |memory| {
            let (memory, factors) = memory.split_at_mut(3 * period);
            args.repeat(memory, group.clone());
            let channels = Channels::of(memory);
            let (x, relu) = (args.x, args.relu);
            let dy = match &args.dy {
                Upstream::Kept(dy) => *dy,
                Upstream::BecomesInput(dy) | Upstream::BecomesResidual(dy) => &**dy,
            };
            let sum = |part: &mut [f32], i| {
                leaf_sums(part, period, runs.leaf(i, c), |sums, rows| {
                    let places = rows.start * c..rows.end * c;
                    let sources = [&x[places.clone()], &dy[places.clone()]];
                    add_dots(sums, sources, relu.at(places), channels);
                });
            };
            leaves::of_group(&runs, c, KEPT * c, &mut parts, sum, |parts| {
                let (dgamma, dbeta) = args.dgamma_dbeta.split_at_mut(c);
                for j in 0..c {
                    let total = |from: usize| -> f64 {
                        let leaves = parts.chunks_exact(KEPT * c);
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

/// `[Σ dy, Σ dy·(x - mean)]` over a leaf, of which `add` adds some rows to two periods of sums.
fn leaf_sums(
    part: &mut [f32],
    period: usize,
    rows: impl Iterator<Item = Range<usize>>,
    mut add: impl FnMut([&mut [f32]; 2], Range<usize>),
) {
    scratch::numbers(2 * period, |sums| {
        sums.fill(0.0);
        let (sum, dot) = sums.split_at_mut(period);
        for rows in rows {
            add([&mut *sum, &mut *dot], rows);
        }
        let (to_sum, to_dot) = part.split_at_mut(part.len() / 2);
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

each_isa! {
/// [`add_dots`] behind a ReLU that put out `y`; of `dy` only what that lets through stays.
fn cut_and_add_dots(sums: [&mut [f32]; 2], sources: [&[f32]; 2], dy: &mut [f32], mean: &[f32]) {
    let ([sum, dot], [x, y]) = (sums, sources);
    let period = mean.len();
    for (dy, (x, y)) in dy.chunks_mut(period).zip(x.chunks(period).zip(y.chunks(period))) {
        let sums = sum.iter_mut().zip(&mut *dot);
        let sources = x.iter().zip(y).zip(mean);
        for ((sum, dot), (dy, ((x, y), mean))) in sums.zip(dy.iter_mut().zip(sources)) {
            *dy = relu_backward(*y, *dy);
            *sum += *dy;
            *dot += *dy * (x - mean);
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
        let dy = if becomes >= writes.len() && matches!(relu, Relu::None) {
            &dy[places.clone()]
        } else {
            let dy = match becomes {
                0 => &dx[places.clone()],
                1 => &dresidual[places.clone()],
                _ => &dy[places.clone()],
            };
            before_relu(memory, [x, dy], places.start, relu, channels)
        };
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

#[cfg(test)]
mod tests {
    use super::super::after::After;
    use super::super::{check::noise, conv};
    use super::*;
    use crate::shape::Conv;

    /// What becomes of the gradient of the output.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Becomes {
        /// That of the input; there is no residual.
        Input,
        /// That of the input; it is added to that of the residual.
        InputAndAdded,
        /// That of the residual.
        Residual,
    }

    /// All gradients of a batch normalisation behind which a convolution is, added up at once or afterwards.
    fn gradients(conv: Conv, groups: &[usize], at_once: bool, becomes: Becomes) -> Vec<u32> {
        let (images, c, write) = (conv.input, conv.input.c, Write::Add);
        let [x, y, mut dy, mut other] = [1, 2, 3, 4].map(|seed| noise(seed, images.len()));
        let residual = becomes != Becomes::Input;
        let (upstream, w) = (noise(5, conv.output().len()), noise(6, conv.weight_len()));
        let mut sums = noise(7, 2 * c);
        let saved = groups.len() * c;
        let args = Backward {
            dx: None,
            dgamma_dbeta: &mut sums,
            x: &x,
            dy: match becomes {
                Becomes::Residual => Upstream::BecomesResidual(&mut dy),
                _ => Upstream::BecomesInput(&mut dy),
            },
            gamma: &noise(8, c),
            beta: &noise(9, c),
            mean: &noise(10, saved),
            inv_std: &noise(11, saved),
            relu: match residual {
                true => Relu::Of(&y),
                false => Relu::OfInput,
            },
            dresidual: None,
        };
        let args = match becomes {
            Becomes::Input => args,
            Becomes::InputAndAdded => Backward {
                dresidual: Some((&mut other, Write::Add)),
                ..args
            },
            Becomes::Residual => Backward {
                dx: Some((&mut other, Write::Set)),
                ..args
            },
        };
        if at_once {
            assert!(
                conv::by_rows(None, conv, images) && leaves::of_whole_blocks(images, groups),
                "{conv:?} and {groups:?} do not go together"
            );
            backward_after(args, images, groups, write, |dx, rows_done| {
                let beside = [&x[..], if residual { &y } else { &[] }];
                let after = Some(After { rows_done, beside });
                conv::conv2d_backward((dx, write), None, &upstream, &w, conv, after);
            });
        } else {
            let mut args = args;
            let (Upstream::BecomesInput(to) | Upstream::BecomesResidual(to)) = &mut args.dy else {
                unreachable!()
            };
            conv::conv2d_backward_data(None, to, &upstream, &w, conv, write);
            backward(args, images, groups, write);
        }
        let all = [dy, other, sums].concat();
        all.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn what_is_added_up_while_it_is_computed_has_the_same_bits() {
        for (groups, c, h, w) in [
            (&[20][..], 20, 8, 8),
            (&[32, 32], 16, 7, 12),
            (&[34], 24, 8, 16),
            (&[17, 17], 40, 12, 4),
            (&[64, 32], 16, 8, 4),
        ] {
            let input = crate::shape::Images {
                n: groups.iter().sum(),
                c,
                h,
                w,
            };
            let conv = Conv {
                input,
                out_c: 24,
                kernel: [3; 2],
                stride: [1; 2],
                padding: [1; 2],
            };
            for becomes in [Becomes::Input, Becomes::InputAndAdded, Becomes::Residual] {
                let of = |at_once| gradients(conv, groups, at_once, becomes);
                assert!(of(true) == of(false), "{groups:?}, {conv:?}, {becomes:?}");
            }
        }
    }
}
