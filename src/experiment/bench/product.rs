//! The peak of the multipliers and the speed of a matrix product.

use super::{Measurement, time};
use crate::backend::cpu::probe::Aligned;
use crate::backend::cpu::probe::Products;
use crate::error::Result;
use crate::tape::Precision;
use std::time::Duration;

/// Rows and columns of the product.
const SIZE: usize = 1024;

/// Floating point operations that the multipliers of `threads` threads can do in a second, in the precision
/// as this machine has it.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) if a CPU has no such precision.
pub fn peak(precision: Precision, threads: usize) -> Result<f64> {
    let (kernels, rounds) = (Products::of(precision)?, 100_000);
    let operations = kernels.burn(rounds);
    let burn = || {
        std::hint::black_box(kernels.burn(rounds));
    };
    Ok(operations / time(Duration::from_millis(200), burn).thread_min * threads as f64)
}

/// The product of two square matrices, which are f32 whatever the precision.
pub(super) fn measure(name: &str, precision: Precision, threads: usize) -> Result<Measurement> {
    let numbers = |seed: usize| {
        let number = |i: usize| (i * seed % 1009) as f32 / 1009.0 - 0.5;
        Aligned::from_fn(SIZE * SIZE, number)
    };
    let [a, b, mut c] = [31, 37, 0].map(numbers);
    let kernels = Products::of(precision)?;
    let timing = time(Duration::from_secs(2), || {
        kernels.product(std::hint::black_box(&mut c), &a, &b, SIZE);
    });
    let value = 2.0 * (SIZE * SIZE * SIZE) as f64 / timing.least(threads) / 1e9;
    let ceiling = peak(precision, threads)? / 1e9;
    Ok(Measurement {
        name: name.to_string(),
        threads,
        unit: "GFLOP/s",
        value,
        seconds_per_step: None,
        ceiling,
        percent: 100.0 * value / ceiling,
    })
}
