//! Synaptic Intelligence (Zenke, Poole and Ganguli, ICML 2017).

use super::anchor::{Anchor, Pull};
use super::{at_least_zero, named, preset};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::{Flat, Tape};
use crate::template::{Plugin, State};
use crate::training::StrategyBuilder;

/// The largest importance (Maltoni and Lomonaco, "Continuous learning in single-incremental-task
/// scenarios", 2019, whose variant Avalanche has).
const CLIP_TO: f32 = 0.001;

/// Avalanche's `SynapticIntelligencePlugin`, and with [`builder`](Self::builder) its strategy: adds
/// `si_lambda/2·Σ ω·(θ - θ*)²` to the loss. A parameter is important if moving it has lowered the
/// loss: over the iterations of an experience `w` collects `gradient·Δθ`, and after it
/// `ω_all += w / ((θ - θ*)² + eps)` and `ω` is `-ω_all`, limited to `[0, 0.001]`; `θ*` are the
/// parameters before the experience.
///
/// Avalanche limits `ω` from above only. A parameter that noise has moved a little against its gradient
/// then has a large negative importance, which pushes it away without bound. (On the CPU this never
/// shows, because Avalanche's copies of the parameters are views of the live ones there: nothing ever
/// moves, and the penalty is always zero.)
///
/// The gradient is that of the whole loss, penalty included, as the optimizer saw it. Parameters
/// that are frozen, excluded by name, or part of a batch normalisation take no part.
#[derive(Clone, Debug)]
pub struct SynapticIntelligence {
    si_lambda: Vec<f32>,
    eps: f32,
    excluded_parameters: Vec<String>,
    anchor: Option<Anchor>,
    trajectory: Flat,
    cum_trajectory: Flat,
    before: Vec<f32>,
    after: Vec<f32>,
    gradient: Vec<f32>,
    pull: Pull,
}

impl SynapticIntelligence {
    /// SI with this weight of the penalty.
    pub fn new(si_lambda: f32) -> Self {
        SynapticIntelligence {
            si_lambda: vec![si_lambda],
            eps: 1e-7,
            excluded_parameters: Vec::new(),
            anchor: None,
            trajectory: Flat::default(),
            cum_trajectory: Flat::default(),
            before: Vec::new(),
            after: Vec::new(),
            gradient: Vec::new(),
            pull: Pull::default(),
        }
    }

    /// A weight for each experience; the last one also holds for all that follow.
    pub fn si_lambdas(self, si_lambda: impl IntoIterator<Item = f32>) -> Self {
        let si_lambda = si_lambda.into_iter().collect();
        SynapticIntelligence { si_lambda, ..self }
    }

    /// Sets the damping (default 1e-7).
    pub fn eps(self, eps: f32) -> Self {
        SynapticIntelligence { eps, ..self }
    }

    /// Leaves out parameters: a name in full, the name of a layer for all that is in it, or the
    /// beginning of names followed by `*`.
    pub fn excluded_parameters<T: Into<String>>(self, names: impl IntoIterator<Item = T>) -> Self {
        let excluded_parameters = names.into_iter().map(Into::into).collect();
        SynapticIntelligence {
            excluded_parameters,
            ..self
        }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("si"), tape, model, sgd)
    }

    fn excludes(&self, name: &str) -> bool {
        self.excluded_parameters.iter().any(|pattern| {
            let inside = || {
                name.strip_prefix(pattern.as_str())
                    .is_some_and(|r| r.starts_with('.'))
            };
            match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern || inside(),
            }
        })
    }

    /// For each number of the parameters, whether it takes part.
    fn allowed(&self, tape: &Tape) -> Vec<bool> {
        let norms: Vec<String> = tape.batches().into_iter().map(|(name, _)| name).collect();
        let mut allowed = Vec::new();
        for (id, (name, range)) in tape.parameters().into_iter().zip(tape.parameter_ranges()) {
            let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
            let norm = norms.iter().any(|norm| norm == layer);
            let takes_part = tape.is_trainable(id) && !norm && !self.excludes(&name);
            allowed.resize(range.end, takes_part);
        }
        allowed
    }
}

impl Plugin for SynapticIntelligence {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        if self.si_lambda.is_empty() {
            return Err(crate::Error::config(
                "si-lambda",
                "at least one number",
                "none",
            ));
        }
        at_least_zero("eps", self.eps)?;
        (self.si_lambda.iter()).try_for_each(|&lambda| at_least_zero("si-lambda", lambda))
    }

    fn before_training_exp(&mut self, s: &mut State) -> Result<()> {
        let anchor = self.anchor.get_or_insert_with(|| Anchor::here(&s.tape));
        anchor.fit(&s.tape);
        s.tape.parameters_flat(&mut anchor.parameters.values);
        self.trajectory = Flat::zeros(&s.tape);
        self.cum_trajectory.fit(&s.tape);
        Ok(())
    }

    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if self.trajectory.values.len() != s.tape.parameter_count() {
            // An evaluation in between has made the model grow.
            self.trajectory.fit(&s.tape);
            self.cum_trajectory.fit(&s.tape);
        }
        s.tape.parameters_flat(&mut self.before);
        Ok(())
    }

    fn before_backward(&mut self, s: &mut State) -> Result<()> {
        let experience = s.clock.train_exp_counter as usize;
        let last = self.si_lambda.last();
        let lambda = self
            .si_lambda
            .get(experience)
            .or(last)
            .copied()
            .unwrap_or(0.0);
        self.pull.add(s, lambda / 2.0, self.anchor.as_mut_slice());
        Ok(())
    }

    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        s.tape.parameters_flat(&mut self.after);
        s.tape.gradients(&mut self.gradient);
        let moved = self.after.iter().zip(&self.before);
        let steps = self.gradient.iter().zip(moved);
        for (w, (g, (after, before))) in self.trajectory.values.iter_mut().zip(steps) {
            *w += g * (after - before);
        }
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        let allowed = self.allowed(&s.tape);
        let Some(anchor) = &mut self.anchor else {
            return Ok(());
        };
        anchor.fit(&s.tape);
        self.trajectory.fit(&s.tape);
        self.cum_trajectory.fit(&s.tape);
        s.tape.parameters_flat(&mut self.after);
        for i in (0..allowed.len()).filter(|&i| allowed[i]) {
            let moved = self.after[i] - anchor.parameters.values[i];
            let all = &mut self.cum_trajectory.values[i];
            *all += self.trajectory.values[i] / (moved * moved + self.eps);
            anchor.importance.values[i] = (-*all).clamp(0.0, CLIP_TO);
        }
        anchor.parameters.values.copy_from_slice(&self.after);
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("anchors", &usize::from(self.anchor.is_some()));
        if let Some(anchor) = &self.anchor {
            anchor.save(out.child("anchor"));
            self.trajectory.save(out, "trajectory");
            self.cum_trajectory.save(out, "cum_trajectory");
        }
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.anchor = None;
        if from.get::<usize>("anchors")? > 0 {
            self.anchor = Some(Anchor::load(from.at("anchor"))?);
            self.trajectory = Flat::load(from, "trajectory")?;
            self.cum_trajectory = Flat::load(from, "cum_trajectory")?;
        }
        Ok(())
    }
}
