//! Pooling, window by window.

use super::{Elem, SpatialLayout, Write, put_all};
use crate::shape::Pool;

/// One window of one channel.
struct PoolWindow {
    /// The index of its output.
    output: usize,
    /// The indices of its inputs, row by row.
    inputs: Vec<usize>,
    /// What its average divides by.
    divisor: usize,
}

/// Calls `f` for every window.
fn for_each_window(pool: Pool, mut f: impl FnMut(PoolWindow)) {
    let (input, output) = (pool.input, pool.output());
    let (x_layout, y_layout) = (SpatialLayout::new(input, 1), SpatialLayout::new(output, 1));
    for sample in 0..input.n {
        for oy in 0..output.h {
            for ox in 0..output.w {
                for channel in 0..input.c {
                    let mut inputs = Vec::new();
                    for iy in pool.rows.range(oy, input.h) {
                        for ix in pool.cols.range(ox, input.w) {
                            inputs.push(x_layout.index(sample, iy, ix) + channel);
                        }
                    }
                    f(PoolWindow {
                        output: y_layout.index(sample, oy, ox) + channel,
                        inputs,
                        divisor: pool.rows.divisor(oy, input.h) * pool.cols.divisor(ox, input.w),
                    });
                }
            }
        }
    }
}

/// The first largest of `inputs` and its index; a NaN is larger than every number. An empty window
/// has none.
fn largest<E: Elem>(x: &[E], inputs: &[usize]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for &at in inputs {
        let value = x[at].to_f64();
        let wins = match best {
            None => true,
            Some((_, top)) => value > top || (value.is_nan() && !top.is_nan()),
        };
        if wins {
            best = Some((at, value));
        }
    }
    best
}

/// `y = max over the window`
pub(super) fn max<E: Elem>(y: &mut [E], x: &[E], pool: Pool) {
    for_each_window(pool, |window| {
        let top = largest(x, &window.inputs).map_or(f64::NEG_INFINITY, |(_, value)| value);
        y[window.output] = E::from_f64(top);
    });
}

/// Each `dy` goes to the first largest input of its window.
pub(super) fn max_backward<E: Elem>(dx: &mut [E], x: &[E], dy: &[E], pool: Pool, write: Write) {
    let mut sums = vec![0.0; dx.len()];
    for_each_window(pool, |window| {
        if let Some((at, _)) = largest(x, &window.inputs) {
            sums[at] += dy[window.output].to_f64();
        }
    });
    put_all(dx, sums, write);
}

/// `y = Σ over the window / divisor`
pub(super) fn avg<E: Elem>(y: &mut [E], x: &[E], pool: Pool) {
    for_each_window(pool, |window| {
        let sum: f64 = window.inputs.iter().map(|&at| x[at].to_f64()).sum();
        y[window.output] = E::from_f64(sum / window.divisor as f64);
    });
}

/// Each `dy / divisor` goes to every input of its window.
pub(super) fn avg_backward<E: Elem>(dx: &mut [E], dy: &[E], pool: Pool, write: Write) {
    let mut sums = vec![0.0; dx.len()];
    for_each_window(pool, |window| {
        for &at in &window.inputs {
            sums[at] += dy[window.output].to_f64() / window.divisor as f64;
        }
    });
    put_all(dx, sums, write);
}
