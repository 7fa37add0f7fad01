//! Gradient clipping.

use super::at_least_zero;
use crate::error::Result;
use crate::template::{Plugin, State};

/// Limits the gradients of each step, right before the optimizer uses them (`before_update`), so
/// after every projection and penalty of other plugins.
///
/// ```
/// use unforget::prelude::*;
/// use unforget::training::GradientClipping;
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Mlp::new(&mut tape, &[784, 10]);
/// let strategy = Der::builder(tape, model, Sgd::new(0.03))
///     .plugin(GradientClipping::norm(1.0))
///     .build()?;
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradientClipping {
    limit: Limit,
    gradient: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Norm(f32),
    Value(f32),
}

impl GradientClipping {
    /// Scales the gradient of all parameters together down to this Euclidean norm, if it is larger:
    /// `g·min(1, max_norm / (‖g‖ + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`.
    pub fn norm(max_norm: f32) -> Self {
        Self::new(Limit::Norm(max_norm))
    }

    /// Limits each number of the gradient to `[-clip_value, clip_value]`, as
    /// `torch.nn.utils.clip_grad_value_`.
    pub fn value(clip_value: f32) -> Self {
        Self::new(Limit::Value(clip_value))
    }

    fn new(limit: Limit) -> Self {
        GradientClipping {
            limit,
            gradient: Vec::new(),
        }
    }
}

impl Plugin for GradientClipping {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        match self.limit {
            Limit::Norm(limit) => at_least_zero("max-norm", limit),
            Limit::Value(limit) => at_least_zero("clip-value", limit),
        }
    }

    fn before_update(&mut self, s: &mut State) -> Result<()> {
        s.tape.gradients(&mut self.gradient);
        let all = self.gradient.iter_mut();
        match self.limit {
            Limit::Norm(limit) => {
                let squares = all.as_slice().iter().map(|&g| f64::from(g) * f64::from(g));
                let factor = f64::from(limit) / (squares.sum::<f64>().sqrt() + 1e-6);
                if factor >= 1.0 {
                    return Ok(());
                }
                all.for_each(|g| *g *= factor as f32);
            }
            Limit::Value(limit) => all.for_each(|g| *g = g.clamp(-limit, limit)),
        }
        s.tape.set_gradients(&self.gradient);
        Ok(())
    }
}
