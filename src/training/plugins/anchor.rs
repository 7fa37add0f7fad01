//! The penalty that EWC, MAS and Synaptic Intelligence share: `λ·Σ F·(θ - θ*)²`, which holds each
//! parameter where it was, the harder the more important it is.

use crate::error::Result;
use crate::snapshot::Snapshot;
use crate::tape::{Flat, Tape};
use crate::template::State;

/// Where the parameters were, and how important each of them is.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub importance: Flat,
    pub parameters: Flat,
}

impl Anchor {
    /// Nothing is important yet.
    pub fn here(tape: &Tape) -> Self {
        Anchor {
            importance: Flat::zeros(tape),
            parameters: Flat::parameters(tape),
        }
    }

    /// Follows a model that has grown; what is new has no importance.
    pub fn fit(&mut self, tape: &Tape) {
        if self.importance.values.len() != tape.parameter_count() {
            self.importance.fit(tape);
            self.parameters.fit(tape);
        }
    }

    pub fn save(&self, out: &mut Snapshot) {
        self.importance.save(out, "importance");
        self.parameters.save(out, "parameters");
    }

    pub fn load(from: &Snapshot) -> Result<Self> {
        Ok(Anchor {
            importance: Flat::load(from, "importance")?,
            parameters: Flat::load(from, "parameters")?,
        })
    }
}

/// Room for the parameters and for the gradient of the penalty, kept from step to step.
#[derive(Clone, Debug, Default)]
pub(super) struct Pull {
    theta: Vec<f32>,
    gradient: Vec<f32>,
}

impl Pull {
    /// Adds `factor·Σ F·(θ - θ*)²`, summed over all anchors, to the loss of the iteration.
    pub fn add(&mut self, s: &mut State, factor: f32, anchors: &mut [Anchor]) {
        if anchors.is_empty() {
            return;
        }
        s.tape.parameters_flat(&mut self.theta);
        self.gradient.clear();
        self.gradient.resize(self.theta.len(), 0.0);
        let mut sum = 0.0;
        for anchor in anchors {
            anchor.fit(&s.tape);
            let known = anchor
                .importance
                .values
                .iter()
                .zip(&anchor.parameters.values);
            let own = self.theta.iter().zip(&mut self.gradient);
            for ((theta, gradient), (importance, before)) in own.zip(known) {
                let moved = theta - before;
                sum += f64::from(importance * moved * moved);
                *gradient += 2.0 * factor * importance * moved;
            }
        }
        s.add_penalty(f64::from(factor) * sum, &self.gradient);
    }
}
