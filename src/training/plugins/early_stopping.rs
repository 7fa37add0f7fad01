//! Early stopping.

use crate::benchmarks::Experience;
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;
use crate::tape::Weights;
use crate::template::{Plugin, State};
use crate::training::PevalMode;

/// Avalanche's `EarlyStoppingPlugin`: ends an experience when a metric of the periodic evaluation has
/// not improved for `patience` epochs (or iterations), and gives the model back the weights with
/// which it was best.
///
/// Ask for evaluations with `eval_every(1)` and pass the validation stream to
/// [`train_with`](crate::training::Strategy::train_with). The evaluation before training counts as
/// the first observation.
///
/// Better than in Avalanche: the result of the last epoch counts; the best weights come back even if
/// training ends by itself, and before a method looks at the model (DER stores logits of the best
/// one); the experience then ends with an evaluation of these weights. Where several metrics match
/// (one for each task), that of the current task is meant, and otherwise the mean of all.
///
/// ```
/// use unforget::prelude::*;
/// use unforget::training::EarlyStopping;
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Mlp::new(&mut tape, &[784, 10]);
/// let strategy = Der::builder(tape, model, Sgd::new(0.03))
///     .train_epochs(100)
///     .eval_every(1)
///     .plugin(EarlyStopping::new(3, "valid").metric("Loss_Stream").minimize())
///     .build()?;
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    patience: u64,
    val_stream_name: String,
    metric_name: String,
    minimize: bool,
    peval_mode: PevalMode,
    margin: f64,
    best: Option<Best>,
}

#[derive(Clone, Debug)]
struct Best {
    value: f64,
    step: u64,
    weights: Weights,
}

impl EarlyStopping {
    /// Stops after `patience` epochs without a better `Top1_Acc_Stream` on this stream (`valid` and
    /// `valid_stream` mean the same).
    pub fn new(patience: u64, val_stream_name: &str) -> Self {
        EarlyStopping {
            patience,
            val_stream_name: (val_stream_name.strip_suffix("_stream"))
                .unwrap_or(val_stream_name)
                .to_string(),
            metric_name: "Top1_Acc_Stream".to_string(),
            minimize: false,
            peval_mode: PevalMode::Epoch,
            margin: 0.0,
            best: None,
        }
    }

    /// The first part of the name of the metric to watch.
    pub fn metric(self, name: &str) -> Self {
        EarlyStopping {
            metric_name: name.to_string(),
            ..self
        }
    }

    /// Small values are good, as for a loss (Avalanche's `mode="min"`).
    pub fn minimize(self) -> Self {
        EarlyStopping {
            minimize: true,
            ..self
        }
    }

    /// What patience counts: epochs (default) or iterations, like the strategy's `peval_mode`.
    pub fn peval_mode(self, peval_mode: PevalMode) -> Self {
        EarlyStopping { peval_mode, ..self }
    }

    /// The least difference that counts as an improvement (default: any).
    pub fn margin(self, margin: f64) -> Self {
        EarlyStopping { margin, ..self }
    }

    /// The best value in the running experience, or in the last one.
    pub fn best(&self) -> Option<f64> {
        self.best.as_ref().map(|best| best.value)
    }

    /// The present value of the metric.
    fn value(&self, s: &State) -> Option<f64> {
        let stream = format!(
            "{}/eval_phase/{}_stream",
            self.metric_name, self.val_stream_name
        );
        let scalar = |name: &str| s.last_metrics.get(name)?.scalar();
        let task = s.experience.as_ref().map_or(0, Experience::task_label);
        let one = scalar(&stream).or_else(|| scalar(&format!("{stream}/Task{task:03}")));
        if one.is_some() {
            return one;
        }
        let inside = format!("{stream}/");
        let all: Vec<f64> = (s.last_metrics.range(inside.clone()..))
            .take_while(|(name, _)| name.starts_with(&inside))
            .filter_map(|(_, value)| value.scalar())
            .collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }

    fn steps(&self, s: &State) -> u64 {
        match self.peval_mode {
            PevalMode::Iteration => s.clock.train_exp_iterations,
            PevalMode::Epoch | PevalMode::Experience => s.clock.train_exp_epochs,
        }
    }

    /// Looks at the metric, and keeps the weights if it has never been better.
    fn observe(&mut self, s: &State) -> Result<()> {
        let step = self.steps(s);
        let Some(value) = self.value(s) else {
            if step == 0 {
                return Ok(()); // No evaluation has taken place yet.
            }
            let name = format!("early stopping on {}", self.metric_name);
            return Err(Error::config(
                name,
                format!(
                    "evaluations of the stream \"{}\" during training: set eval_every to 1 and pass \
                     the stream to train_with",
                    self.val_stream_name
                ),
                "none of this name",
            ));
        };
        let better = self.best.as_ref().is_none_or(|best| {
            let gain = value - best.value;
            let gain = if self.minimize { -gain } else { gain };
            gain > 0.0 && gain >= self.margin
        });
        if better {
            let weights = s.tape.weights();
            self.best = Some(Best {
                value,
                step,
                weights,
            });
        }
        Ok(())
    }

    fn stop_if_hopeless(&mut self, s: &mut State) -> Result<()> {
        self.observe(s)?;
        let waited = |best: &Best| self.steps(s) - best.step;
        if self.best.as_ref().map(waited) >= Some(self.patience) {
            s.stop_training();
        }
        Ok(())
    }
}

impl Plugin for EarlyStopping {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        if self.peval_mode == PevalMode::Experience {
            let found = "experience";
            return Err(Error::config(
                "early stopping",
                "epochs or iterations",
                found,
            ));
        }
        if self.patience == 0 {
            return Err(Error::config("patience", "at least 1", 0));
        }
        if self.margin >= 0.0 {
            return Ok(());
        }
        Err(Error::config(
            "margin",
            "a number of at least 0",
            self.margin,
        ))
    }

    fn before_training_exp(&mut self, _: &mut State) -> Result<()> {
        self.best = None;
        Ok(())
    }

    fn before_training_epoch(&mut self, s: &mut State) -> Result<()> {
        match self.peval_mode {
            PevalMode::Epoch => self.stop_if_hopeless(s),
            _ => Ok(()),
        }
    }

    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        match self.peval_mode {
            PevalMode::Iteration => self.stop_if_hopeless(s),
            _ => Ok(()),
        }
    }

    fn after_training_epochs(&mut self, s: &mut State) -> Result<()> {
        self.observe(s)?;
        let now = self.steps(s);
        if let Some(best) = self.best.as_ref().filter(|best| best.step < now) {
            s.tape.set_weights(&best.weights);
            s.request_evaluation();
        }
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put(
            "best",
            &self.best.as_ref().map(|best| (best.value, best.step)),
        );
        if let Some(best) = &self.best {
            best.weights.save(out, "weights");
        }
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.best = match from.get::<Option<(f64, u64)>>("best")? {
            None => None,
            Some((value, step)) => Some(Best {
                value,
                step,
                weights: Weights::load(from, "weights")?,
            }),
        };
        Ok(())
    }
}
