//! Elastic Weight Consolidation (Kirkpatrick et al., PNAS 2017).

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

/// What is kept of earlier experiences.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum EwcMode {
    /// A penalty of its own for each experience.
    #[default]
    Separate,
    /// One penalty, at the latest parameters: `F = decay_factor·F + F_new`.
    Online {
        /// How much of the earlier importance stays.
        decay_factor: f32,
    },
}

/// Avalanche's `EWCPlugin`, and with [`builder`](Self::builder) its strategy `EWC`: from the second
/// experience on, `ewc_lambda·Σ F·(θ - θ*)²` is added to the loss. The importance `F` of a parameter
/// is the mean over the experience's mini-batches of the squared gradient of the criterion, in
/// evaluation mode, taken after the experience; `θ*` are the parameters at that point.
///
/// In the mode `Online` only the latest importance is kept (Avalanche's `keep_importance_data` set
/// to true changes nothing but the memory used). The running statistics of batch normalisations
/// take no part and are left as they are.
///
/// ```
/// use unforget::prelude::*;
/// use unforget::training::{Ewc, EwcMode};
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Mlp::new(&mut tape, &[784, 100, 10]);
/// let ewc = Ewc::new(0.4).mode(EwcMode::Online { decay_factor: 0.9 });
/// let strategy = ewc.builder(tape, model, Sgd::new(0.03)).train_mb_size(10).build()?;
/// assert_eq!(strategy.name(), "ewc");
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ewc {
    ewc_lambda: f32,
    mode: EwcMode,
    anchors: Vec<Anchor>,
    pull: Pull,
}

impl Ewc {
    /// EWC with this weight of the penalty, in the mode [`EwcMode::Separate`].
    pub fn new(ewc_lambda: f32) -> Self {
        Ewc {
            ewc_lambda,
            mode: EwcMode::default(),
            anchors: Vec::new(),
            pull: Pull::default(),
        }
    }

    /// Sets the mode.
    pub fn mode(self, mode: EwcMode) -> Self {
        Ewc { mode, ..self }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("ewc"), tape, model, sgd)
    }

    /// The importance of each parameter, as a flat vector: one for each experience in the mode
    /// `Separate`, one in all in the mode `Online`.
    pub fn importances(&self) -> impl Iterator<Item = &Flat> {
        self.anchors.iter().map(|anchor| &anchor.importance)
    }
}

impl Plugin for Ewc {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        at_least_zero("ewc-lambda", self.ewc_lambda)?;
        match self.mode {
            EwcMode::Online { decay_factor } => at_least_zero("decay-factor", decay_factor),
            EwcMode::Separate => Ok(()),
        }
    }

    fn before_backward(&mut self, s: &mut State) -> Result<()> {
        self.pull.add(s, self.ewc_lambda, &mut self.anchors);
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        let Some(experience) = s.experience.clone() else {
            return Ok(());
        };
        let mut anchor = Anchor::here(&s.tape);
        let (fisher, mut batches) = (&mut anchor.importance.values, 0);
        let loss = |s: &mut State, logits| s.criterion_loss(logits);
        s.for_each_gradient(experience.dataset(), loss, |gradient| {
            fisher
                .iter_mut()
                .zip(gradient)
                .for_each(|(f, g)| *f += g * g);
            batches += 1;
        });
        fisher.iter_mut().for_each(|f| *f /= batches.max(1) as f32);
        if let (EwcMode::Online { decay_factor }, Some(last)) = (self.mode, self.anchors.last_mut())
        {
            last.fit(&s.tape);
            for (f, old) in fisher.iter_mut().zip(&last.importance.values) {
                *f += decay_factor * old;
            }
            self.anchors.clear();
        }
        self.anchors.push(anchor);
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("anchors", &self.anchors.len());
        for (i, anchor) in self.anchors.iter().enumerate() {
            anchor.save(out.child(&i.to_string()));
        }
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.anchors = (0..from.get("anchors")?)
            .map(|i: usize| Anchor::load(from.at(&i.to_string())))
            .collect::<Result<_>>()?;
        Ok(())
    }
}
