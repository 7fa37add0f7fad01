//! Memory Aware Synapses (Aljundi et al., ECCV 2018).

use super::anchor::{Anchor, Pull};
use super::{at_least_zero, named, preset};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::{Flat, Tape, Var};
use crate::template::{Plugin, State};
use crate::training::StrategyBuilder;

/// Avalanche's `MASPlugin`, and with [`builder`](Self::builder) its strategy `MAS`: from the second
/// experience on, `lambda_reg·Σ Ω·(θ - θ*)²` is added to the loss. `Ω` is the mean over the
/// experience's mini-batches of the absolute gradient of `mean_i ‖output_i‖²`, without labels; over
/// the experiences, `Ω = alpha·Ω + (1 - alpha)·Ω_new`.
///
/// Avalanche takes these gradients in training mode, which applies dropout and moves the running
/// statistics of batch normalisations; here they are taken as in evaluation.
#[derive(Clone, Debug)]
pub struct Mas {
    lambda_reg: f32,
    alpha: f32,
    /// None before the first experience has ended, then one.
    anchor: Option<Anchor>,
    /// The parameters that there were then.
    known: Vec<String>,
    pull: Pull,
}

impl Default for Mas {
    /// Avalanche's defaults: `lambda_reg` 1, `alpha` 0.5.
    fn default() -> Self {
        Mas::new(1.0, 0.5)
    }
}

impl Mas {
    /// MAS with this weight of the penalty and this share of the earlier importance.
    pub fn new(lambda_reg: f32, alpha: f32) -> Self {
        Mas {
            lambda_reg,
            alpha,
            anchor: None,
            known: Vec::new(),
            pull: Pull::default(),
        }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("mas"), tape, model, sgd)
    }

    /// The importance of each parameter, as a flat vector.
    pub fn importance(&self) -> Option<&Flat> {
        self.anchor.as_ref().map(|anchor| &anchor.importance)
    }
}

/// `mean_i ‖output_i‖²`
fn squared_norm(s: &mut State, output: Var) -> Var {
    let shape = s.tape.shape(output);
    let zeros = vec![0.0; shape.len()];
    let zeros = s.tape.input(&shape.dims()[..shape.rank()], &zeros);
    let mean = s.tape.mse(output, zeros);
    s.tape
        .scale(mean, (shape.len() / shape.dim(0).max(1)) as f32)
}

impl Plugin for Mas {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        at_least_zero("lambda-reg", self.lambda_reg)?;
        at_least_zero("alpha", self.alpha)
    }

    fn before_backward(&mut self, s: &mut State) -> Result<()> {
        let anchor = self.anchor.as_mut_slice();
        self.pull.add(s, self.lambda_reg, anchor);
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        let Some(experience) = s.experience.clone() else {
            return Ok(());
        };
        let mut anchor = Anchor::here(&s.tape);
        let (omega, mut batches) = (&mut anchor.importance.values, 0);
        s.for_each_gradient(experience.dataset(), squared_norm, |gradient| {
            omega
                .iter_mut()
                .zip(gradient)
                .for_each(|(o, g)| *o += g.abs());
            batches += 1;
        });
        omega.iter_mut().for_each(|o| *o /= batches.max(1) as f32);
        if let Some(last) = &mut self.anchor {
            last.fit(&s.tape);
            for (name, range) in s.tape.parameter_ranges() {
                // A parameter that is new has no earlier importance to be mixed with.
                if self.known.contains(&name) {
                    for i in range {
                        let old = last.importance.values[i];
                        omega[i] = self.alpha * old + (1.0 - self.alpha) * omega[i];
                    }
                }
            }
        }
        self.anchor = Some(anchor);
        let ranges = s.tape.parameter_ranges().into_iter();
        self.known = ranges.map(|(name, _)| name).collect();
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        if let Some(anchor) = &self.anchor {
            anchor.save(out.child("anchor"));
        }
        out.put("anchors", &usize::from(self.anchor.is_some()));
        out.put("known", &self.known);
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.known = from.get("known")?;
        self.anchor = (from.get::<usize>("anchors")? > 0)
            .then(|| Anchor::load(from.at("anchor")))
            .transpose()?;
        Ok(())
    }
}
