//! PyTorch's learning-rate schedules, each as it goes from one step to the next.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A schedule of `torch.optim.lr_scheduler`, under its names. Step `n` (counted from 1) turns the
/// learning rate of before into the next one.
#[derive(Clone, PartialEq, Debug)]
pub enum Schedule {
    /// `StepLR`: times `gamma` at every `step_size`-th step.
    Step {
        /// Steps between two changes.
        step_size: u64,
        /// The factor.
        gamma: f64,
    },
    /// `MultiStepLR`: times `gamma` at each of these steps; twice where one is named twice.
    MultiStep {
        /// The steps.
        milestones: Vec<u64>,
        /// The factor.
        gamma: f64,
    },
    /// `ExponentialLR`: times `gamma` at every step.
    Exponential {
        /// The factor.
        gamma: f64,
    },
    /// `CosineAnnealingLR`: `eta_min + (base - eta_min)·(1 + cos(π·n/t_max))/2`.
    Cosine {
        /// Steps from the base rate to `eta_min`.
        t_max: u64,
        /// The lowest rate.
        eta_min: f64,
    },
    /// `ReduceLROnPlateau`.
    Plateau(Plateau),
}

/// `ReduceLROnPlateau` with `mode="min"` and a relative threshold: after more than `patience` steps
/// in which the loss was not below `(1 - threshold)·best`, the rate is multiplied by `factor`.
#[derive(Clone, PartialEq, Debug)]
pub struct Plateau {
    /// The factor (default 0.1).
    pub factor: f64,
    /// Steps without an improvement that are put up with (default 10).
    pub patience: u64,
    /// What counts as an improvement, relative to the best loss (default 1e-4).
    pub threshold: f64,
    /// Steps after a reduction in which nothing is counted (default 0).
    pub cooldown: u64,
    /// The lowest rate (default 0).
    pub min_lr: f64,
}

/// What a plateau has seen so far.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    best: f64,
    bad: u64,
    cooling: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Seen {
            best: f64::INFINITY,
            bad: 0,
            cooling: 0,
        }
    }
}

impl Default for Plateau {
    /// PyTorch's defaults.
    fn default() -> Self {
        Plateau {
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            cooldown: 0,
            min_lr: 0.0,
        }
    }
}

impl Plateau {
    /// PyTorch's defaults with this factor and patience.
    pub fn new(factor: f64, patience: u64) -> Self {
        Plateau {
            factor,
            patience,
            ..Plateau::default()
        }
    }

    fn step(&self, seen: &mut Seen, lr: f64, loss: f64) -> f64 {
        if loss < seen.best * (1.0 - self.threshold) {
            (seen.best, seen.bad) = (loss, 0);
        } else {
            seen.bad += 1;
        }
        if seen.cooling > 0 {
            seen.cooling -= 1;
            seen.bad = 0;
        }
        if seen.bad <= self.patience {
            return lr;
        }
        (seen.cooling, seen.bad) = (self.cooldown, 0);
        let reduced = (lr * self.factor).max(self.min_lr);
        // PyTorch's `eps`: a smaller change is none.
        if lr - reduced > 1e-8 { reduced } else { lr }
    }
}

impl Schedule {
    /// The rate after step `n`; `lr` is the one before, `base` the one at the start, and `loss` the
    /// one watched.
    pub(super) fn step(&self, seen: &mut Seen, n: u64, lr: f64, base: f64, loss: f64) -> f64 {
        match self {
            Schedule::Step { step_size, gamma } if n.is_multiple_of(*step_size) => lr * *gamma,
            Schedule::Step { .. } => lr,
            Schedule::MultiStep { milestones, gamma } => {
                let times = milestones.iter().filter(|&&m| m == n).count();
                lr * gamma.powi(times as i32)
            }
            Schedule::Exponential { gamma } => lr * *gamma,
            Schedule::Cosine { t_max, eta_min } => {
                let height = |n: u64| 1.0 + (PI * n as f64 / *t_max as f64).cos();
                // From the bottom, where the quotient below would be 0/0, the way leads up again.
                if (n - 1) % (2 * *t_max) == *t_max {
                    return lr + (base - *eta_min) * (2.0 - height(1)) / 2.0;
                }
                height(n) / height(n - 1) * (lr - *eta_min) + *eta_min
            }
            Schedule::Plateau(plateau) => plateau.step(seen, lr, loss),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let factor = |name: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                return Ok(());
            }
            Err(Error::config(name, "a finite number above 0", value))
        };
        let least = |name: &str, value: f64| {
            if value >= 0.0 && value.is_finite() {
                return Ok(());
            }
            Err(Error::config(name, "a finite number of at least 0", value))
        };
        match self {
            Schedule::Step { step_size, gamma } => {
                positive("step-size", *step_size)?;
                factor("gamma", *gamma)
            }
            Schedule::MultiStep { gamma, .. } | Schedule::Exponential { gamma } => {
                factor("gamma", *gamma)
            }
            Schedule::Cosine { t_max, eta_min } => {
                positive("t-max", *t_max)?;
                least("eta-min", *eta_min)
            }
            Schedule::Plateau(p) => {
                if p.factor >= 1.0 {
                    return Err(Error::config("factor", "a number below 1", p.factor));
                }
                factor("factor", p.factor)?;
                least("threshold", p.threshold)?;
                least("min-lr", p.min_lr)
            }
        }
    }
}

fn positive(name: &str, value: u64) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::config(name, "at least 1", value))
}
