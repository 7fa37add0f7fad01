//! The peak of the multipliers and the speed of a matrix product.

use super::{Measurement, time};
use crate::backend::cpu::probe::Kernels;
use std::time::Duration;

/// Rows and columns of the product.
const SIZE: usize = 1024;

/// Floating point operations that the multipliers of `threads` threads can do in a second.
pub fn peak(threads: usize) -> f64 {
    let (kernels, rounds) = (Kernels::selected(), 100_000);
    let operations = kernels.burn(rounds);
    let burn = || {
        std::hint::black_box(kernels.burn(rounds));
    };
    operations / time(Duration::from_millis(200), burn).thread_min * threads as f64
}

/// The product of two square matrices.
pub(super) fn measure(name: &str, threads: usize) -> Measurement {
    let numbers = |seed: usize| -> Vec<f32> {
        let number = |i: usize| (i * seed % 1009) as f32 / 1009.0 - 0.5;
        (0..SIZE * SIZE).map(number).collect()
    };
    let (a, b, mut c) = (numbers(31), numbers(37), vec![0.0; SIZE * SIZE]);
    let kernels = Kernels::selected();
    let timing = time(Duration::from_secs(2), || {
        kernels.product(std::hint::black_box(&mut c), &a, &b, SIZE);
    });
    let value = 2.0 * (SIZE * SIZE * SIZE) as f64 / timing.least(threads) / 1e9;
    let ceiling = peak(threads) / 1e9;
    Measurement {
        name: name.to_string(),
        threads,
        unit: "GFLOP/s",
        value,
        seconds_per_step: None,
        ceiling,
        percent: 100.0 * value / ceiling,
    }
}
