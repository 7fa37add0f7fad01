//! The speed of this machine, in short: `unforget bench`.
//!
//! Each figure stands beside the most that the same threads can do, which is measured in the same
//! process: multiply-adds in registers, without touching memory.

mod clock;
mod product;
mod step;

pub use clock::{Timing, time};
pub use product::peak;
pub use step::{Step, WORKLOADS, Workload};

use crate::error::{Error, Result};
use crate::tape::{Precision, Tape};
use serde::Serialize;
use std::time::Duration;

/// What `unforget bench` measures when it is not told what.
pub const NAMES: [&str; 9] = [
    "gemm-f32-1024",
    "gemm-high-1024",
    "gemm-bf16-1024",
    "mlp-10+10",
    "mlp-3x128",
    "slim-resnet18-10+10",
    "resnet18-3x32-f32",
    "resnet18-3x32-high",
    "resnet18-3x32-bf16",
];

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Measurement {
    /// What was measured, one of [`NAMES`].
    pub name: String,
    /// Threads it ran on.
    pub threads: usize,
    /// The unit of `value` and `ceiling`.
    pub unit: &'static str,
    /// How much of it in a second.
    pub value: f64,
    /// Seconds for one training step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_per_step: Option<f64>,
    /// What the multipliers alone could do.
    pub ceiling: f64,
    /// `value` in per cent of `ceiling`; more than 100 where multiplications are left out (Winograd's transforms,
    /// images on a black ground).
    pub percent: f64,
}

/// Measures `name` on `threads` threads for about two seconds: the least time of a call, on one
/// thread in processor time, on several in wall time.
///
/// # Errors
/// [`Error::Config`] for an unknown name or no thread to be had, [`Error::Device`] when memory cannot be had.
pub fn run(name: &str, threads: usize) -> Result<Measurement> {
    if threads == 0 {
        return Err(Error::config("--threads", "at least 1", 0));
    }
    let workload = Workload::find(name);
    if !NAMES.contains(&name) && workload.is_none() {
        let names = NAMES.join(", ");
        return Err(Error::config("bench", format!("one of {names}"), name));
    }
    let precision = precision(name);
    on_threads(threads, || match workload {
        Some(workload) => step(workload, threads),
        None => product::measure(name, precision, threads),
    })?
}

/// The precision that a name ends with or contains.
fn precision(name: &str) -> Precision {
    let part = |part: &str| name.split('-').any(|p| p == part);
    match () {
        () if part("high") => Precision::High,
        () if part("bf16") => Precision::Bf16,
        () => Precision::Full,
    }
}

/// Runs `work` inside a pool of `threads` threads: [`Tape::on_threads`].
///
/// # Errors
/// [`Error::Config`] when there are no threads to be had.
pub fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    Tape::on_threads(threads, work)
}

fn step(workload: Workload, threads: usize) -> Result<Measurement> {
    let mut step = Tape::guard(|| workload.start())?;
    let timing = Tape::guard(|| {
        Ok(time(Duration::from_secs(2), || {
            std::hint::black_box(step.run());
        }))
    })?;
    let seconds = timing.least(threads);
    let ceiling = peak(workload.precision, threads)? / workload.operations();
    Ok(Measurement {
        name: workload.name.to_string(),
        threads,
        unit: "steps/s",
        value: 1.0 / seconds,
        seconds_per_step: Some(seconds),
        ceiling,
        percent: 100.0 / seconds / ceiling,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_measured_or_unknown() {
        for name in ["mlp-10+10", "gemm-f32-1024"] {
            let measured = run(name, 1).unwrap();
            if let Some(seconds) = measured.seconds_per_step {
                let product = measured.value * seconds;
                assert!((product - 1.0).abs() <= 1e-9, "{measured:?}");
            }
            // What is left out of a product may bring it above the ceiling.
            assert!(
                measured.percent > 0.0 && measured.ceiling > 0.0,
                "{measured:?}"
            );
        }
        for (name, threads) in [("gemm", 1), ("mlp-10+10", 0)] {
            assert!(
                matches!(run(name, threads), Err(Error::Config { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_says_its_precision() {
        for name in NAMES {
            let want = match name {
                "gemm-high-1024" | "resnet18-3x32-high" => Precision::High,
                "gemm-bf16-1024" | "resnet18-3x32-bf16" => Precision::Bf16,
                _ => Precision::Full,
            };
            assert_eq!(precision(name), want, "{name}");
            assert!(
                Workload::find(name).is_none_or(|w| w.precision == want),
                "{name}"
            );
        }
    }
}
