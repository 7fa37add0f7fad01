//! Initial weights, as PyTorch draws them.
//!
//! `torch.nn.Linear` and `Conv2d` fill the weight and then the bias, in row-major order, with
//! `uniform_(-bound, bound)` where `bound = 1/sqrt(fan_in)` (their `kaiming_uniform_(a=√5)` comes to
//! that) rounded to f32.

use crate::rng::TorchGenerator;

/// `count` numbers uniform in `(-bound, bound)`.
pub(super) fn uniform(generator: &mut TorchGenerator, bound: f64, count: usize) -> Vec<f32> {
    let bound = bound as f32;
    (0..count)
        .map(|_| generator.uniform(-bound, bound))
        .collect()
}

/// The bound of PyTorch's default initialisation.
pub(super) fn default_bound(fan_in: usize) -> f64 {
    if fan_in == 0 {
        0.0
    } else {
        1.0 / (fan_in as f64).sqrt()
    }
}

/// The bound of `xavier_uniform_`: `sqrt(6 / (fan_in + fan_out))`, computed as PyTorch does.
pub(super) fn xavier_bound(fan_in: usize, fan_out: usize) -> f64 {
    3f64.sqrt() * (2.0 / (fan_in + fan_out) as f64).sqrt()
}

/// The standard deviation of `kaiming_normal_(mode="fan_out", nonlinearity="relu")`.
pub(super) fn kaiming_std(fan_out: usize) -> f64 {
    2f64.sqrt() / (fan_out as f64).sqrt()
}
