//! Optimisers.

use serde::{Deserialize, Serialize};

use crate::backend::SgdStep;
use crate::error::{Error, Result};
use crate::tape::Tape;

/// Stochastic gradient descent, as `torch.optim.SGD`: weight decay is added to the gradient, the
/// momentum buffer starts as the first gradient (without dampening), the learning rate multiplies
/// the whole update.
///
/// ```
/// use unforget::optim::Sgd;
/// let sgd = Sgd::new(0.1).momentum(0.9).weight_decay(1e-4);
/// assert_eq!(sgd.lr, 0.1);
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// Momentum factor.
    pub momentum: f32,
    /// Dampening of the momentum.
    pub dampening: f32,
    /// L2 penalty.
    pub weight_decay: f32,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

impl Sgd {
    /// Plain SGD.
    pub fn new(lr: f32) -> Self {
        Sgd {
            lr,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        }
    }

    /// Sets the momentum factor.
    pub fn momentum(self, momentum: f32) -> Self {
        Sgd { momentum, ..self }
    }

    /// Sets the dampening of the momentum.
    pub fn dampening(self, dampening: f32) -> Self {
        Sgd { dampening, ..self }
    }

    /// Sets the L2 penalty.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        Sgd {
            weight_decay,
            ..self
        }
    }

    /// Turns Nesterov's look-ahead on or off.
    pub fn nesterov(self, nesterov: bool) -> Self {
        Sgd { nesterov, ..self }
    }

    /// Checks the constants.
    ///
    /// # Errors
    /// [`Error::Config`] for a negative or NaN constant, or Nesterov without momentum or with
    /// dampening (which PyTorch refuses too).
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("lr", self.lr),
            ("momentum", self.momentum),
            ("dampening", self.dampening),
            ("weight-decay", self.weight_decay),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::config(name, "a finite number of at least 0", value));
            }
        }
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let found = format!("momentum {}, dampening {}", self.momentum, self.dampening);
            return Err(Error::config(
                "nesterov",
                "momentum above 0 and no dampening",
                found,
            ));
        }
        Ok(())
    }

    /// One step with the gradients of the tape's step.
    pub fn step(&self, tape: &mut Tape) {
        tape.sgd(SgdStep {
            lr: self.lr,
            momentum: self.momentum,
            dampening: self.dampening,
            weight_decay: self.weight_decay,
            nesterov: self.nesterov,
            first: false,
        });
    }
}
