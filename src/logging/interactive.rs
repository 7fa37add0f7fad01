//! The text log with a progress bar, and the evaluator that has both.

use std::io::IsTerminal;

use super::bar::Bar;
use super::text::TextLogger;
use crate::Result;
use crate::evaluation::{EvaluationPlugin, Logger};
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricValue, State};

/// Avalanche's `InteractiveLogger`: a [`TextLogger`] on standard output with a progress bar for each
/// training epoch and each evaluated experience.
///
/// The bar is drawn on standard error, only if both are terminals, and vanishes when it
/// is full. An evaluation in the middle of an epoch (`PevalMode::Iteration`) leaves the epoch's
/// bar in place and has none of its own.
///
/// Avalanche's own leaves out the line `-- Starting training on experience ...`; it is here.
pub struct InteractiveLogger {
    text: TextLogger,
    bar: Option<Bar>,
    draws: bool,
    in_epoch: bool,
}

impl Default for InteractiveLogger {
    fn default() -> Self {
        InteractiveLogger::new()
    }
}

impl InteractiveLogger {
    /// Text on standard output, a bar on standard error.
    pub fn new() -> Self {
        InteractiveLogger {
            text: TextLogger::named("InteractiveLogger"),
            bar: None,
            draws: std::io::stderr().is_terminal() && std::io::stdout().is_terminal(),
            in_epoch: false,
        }
    }

    /// The same without the bar.
    pub fn without_bar(self) -> Self {
        InteractiveLogger {
            draws: false,
            ..self
        }
    }

    fn begin(&mut self, name: String, length: usize) {
        if self.draws && self.bar.is_none() {
            self.bar = Some(Bar::new(name, length as u64));
        }
    }

    fn step(&mut self) {
        if let Some(bar) = &mut self.bar {
            bar.step(String::new);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.end();
        }
    }
}

impl Logger for InteractiveLogger {
    fn on(&mut self, event: Event, s: &State, values: &[MetricValue]) -> Result<()> {
        let id = s.experience.as_ref().map_or(0, |e| e.current_experience());
        match event {
            Event::AfterTrainingEpoch => {
                self.in_epoch = false;
                self.end();
            }
            Event::AfterEvalExp if !self.in_epoch => self.end(),
            Event::AfterTrainingIteration => self.step(),
            Event::AfterEvalIteration if !self.in_epoch => self.step(),
            _ => {}
        }
        match &self.bar {
            Some(bar) if TextLogger::prints(event) => {
                let text = &mut self.text;
                bar.suspend(|| text.on(event, s, values))?;
            }
            _ => self.text.on(event, s, values)?,
        }
        match event {
            Event::BeforeTrainingEpoch => {
                self.in_epoch = true;
                let epoch = s.clock.train_exp_epochs + 1;
                let name = format!("train {id}, epoch {epoch}/{}", s.train_epochs);
                self.begin(name, s.iterations_per_epoch);
            }
            Event::BeforeEvalExp => {
                let samples = s.adapted_dataset.as_ref().map_or(0, |d| d.len());
                self.begin(
                    format!("eval {id}"),
                    samples.div_ceil(s.eval_mb_size.max(1)),
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        self.text.save(out);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.text.load(from)
    }
}

/// Avalanche's `default_evaluator`: accuracy and loss of epochs, experiences and streams, shown by
/// an [`InteractiveLogger`]. (A strategy that is given no evaluator has the same metrics and prints
/// nothing.)
///
/// ```
/// use unforget::prelude::*;
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Mlp::new(&mut tape, &[784, 10]);
/// let strategy = Der::builder(tape, model, Sgd::new(0.03))
///     .evaluator(default_evaluator())
///     .build()?;
/// # Ok::<(), unforget::Error>(())
/// ```
pub fn default_evaluator() -> EvaluationPlugin {
    EvaluationPlugin::default().logger(InteractiveLogger::new())
}
