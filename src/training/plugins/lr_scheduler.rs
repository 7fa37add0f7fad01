//! Learning rates that follow a schedule.

mod schedule;

use schedule::Seen;
pub use schedule::{Plateau, Schedule};

use crate::benchmarks::Experience;
use crate::error::Result;
use crate::snapshot::Snapshot;
use crate::template::{Plugin, State};

/// When a schedule takes a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StepGranularity {
    /// After each epoch.
    #[default]
    Epoch,
    /// After each iteration.
    Iteration,
}

/// The loss that a [`Plateau`] watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchedulerMetric {
    /// The mean training loss since the last step, over samples.
    TrainLoss,
    /// The mean loss of the periodic evaluation, over the samples of all its streams. Ask for one
    /// with `eval_every`; it takes the place of the granularity.
    ValLoss,
}

/// Avalanche's `LRSchedulerPlugin`: steps a [`Schedule`] after each epoch or iteration, and starts
/// both the schedule and the learning rate anew after each experience, unless told otherwise.
///
/// ```
/// use unforget::prelude::*;
/// use unforget::training::{LrScheduler, Schedule};
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Mlp::new(&mut tape, &[784, 10]);
/// let schedule = Schedule::Step { step_size: 1, gamma: 0.5 };
/// let strategy = Der::builder(tape, model, Sgd::new(0.1))
///     .train_epochs(3) // with 0.1, 0.05 and 0.025, in every experience
///     .plugin(LrScheduler::new(schedule))
///     .build()?;
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LrScheduler {
    schedule: Schedule,
    reset_scheduler: bool,
    reset_lr: bool,
    metric: SchedulerMetric,
    step_granularity: StepGranularity,
    first_epoch_only: bool,
    first_exp_only: bool,
    base_lr: Option<f32>,
    /// The learning rate in f64, as PyTorch counts it.
    lr: f64,
    steps: u64,
    loss_sum: f64,
    samples: f64,
    seen: Seen,
    training: bool,
    just_validated: bool,
    iterated: bool,
}

impl LrScheduler {
    /// Steps `schedule` after each epoch. A [`Plateau`] watches the training loss.
    pub fn new(schedule: Schedule) -> Self {
        LrScheduler {
            schedule,
            reset_scheduler: true,
            reset_lr: true,
            metric: SchedulerMetric::TrainLoss,
            step_granularity: StepGranularity::default(),
            first_epoch_only: false,
            first_exp_only: false,
            base_lr: None,
            lr: 0.0,
            steps: 0,
            loss_sum: 0.0,
            samples: 0.0,
            seen: Seen::default(),
            training: false,
            just_validated: false,
            iterated: false,
        }
    }

    /// Whether the schedule starts anew after each experience (default).
    pub fn reset_scheduler(self, reset_scheduler: bool) -> Self {
        LrScheduler {
            reset_scheduler,
            ..self
        }
    }

    /// Whether the learning rate is put back after each experience (default).
    pub fn reset_lr(self, reset_lr: bool) -> Self {
        LrScheduler { reset_lr, ..self }
    }

    /// What a [`Plateau`] watches (default: the training loss). Other schedules watch nothing.
    pub fn metric(self, metric: SchedulerMetric) -> Self {
        LrScheduler { metric, ..self }
    }

    /// Whether a step is taken after each epoch (default) or after each iteration.
    pub fn step_granularity(self, step_granularity: StepGranularity) -> Self {
        LrScheduler {
            step_granularity,
            ..self
        }
    }

    /// Takes steps only in the first epoch of each experience.
    pub fn first_epoch_only(self, first_epoch_only: bool) -> Self {
        LrScheduler {
            first_epoch_only,
            ..self
        }
    }

    /// Takes steps only in the first experience.
    pub fn first_exp_only(self, first_exp_only: bool) -> Self {
        LrScheduler {
            first_exp_only,
            ..self
        }
    }

    /// The loss watched, if one is.
    fn watched(&self) -> Option<SchedulerMetric> {
        matches!(self.schedule, Schedule::Plateau(_)).then_some(self.metric)
    }

    fn watch(&mut self, s: &State) {
        let n = s.mb_y.len() as f64;
        self.loss_sum += f64::from(s.loss().total) * n;
        self.samples += n;
    }

    fn forget_loss(&mut self) {
        (self.loss_sum, self.samples) = (0.0, 0.0);
    }

    fn step(&mut self, s: &mut State) {
        let late_exp = self.first_exp_only && s.clock.train_exp_counter > 0;
        let late_epoch = self.first_epoch_only && s.clock.train_exp_epochs > 0;
        if !late_exp && !late_epoch {
            self.steps += 1;
            // Somebody else may have set another rate.
            if self.lr as f32 != s.optimizer.lr {
                self.lr = f64::from(s.optimizer.lr);
            }
            let loss = self.loss_sum / self.samples.max(1.0);
            let base = f64::from(self.base_lr.unwrap_or(s.optimizer.lr));
            self.lr = self
                .schedule
                .step(&mut self.seen, self.steps, self.lr, base, loss);
            s.optimizer.lr = self.lr as f32;
        }
        self.forget_loss();
    }

    fn step_if(&mut self, granularity: StepGranularity, s: &mut State) {
        let waits = self.watched() == Some(SchedulerMetric::ValLoss);
        if self.step_granularity == granularity && !waits {
            self.step(s);
        }
    }
}

impl Plugin for LrScheduler {
    fn before_training(&mut self, s: &mut State) -> Result<()> {
        self.schedule.validate()?;
        self.base_lr.get_or_insert(s.optimizer.lr);
        self.training = true;
        Ok(())
    }

    fn before_training_exp(&mut self, _: &mut State) -> Result<()> {
        self.iterated = false;
        Ok(())
    }

    fn before_training_iteration(&mut self, _: &mut State) -> Result<()> {
        self.just_validated = false;
        Ok(())
    }

    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.iterated = true;
        if self.watched() == Some(SchedulerMetric::TrainLoss) {
            self.watch(s);
        }
        self.step_if(StepGranularity::Iteration, s);
        Ok(())
    }

    fn after_training_epoch(&mut self, s: &mut State) -> Result<()> {
        self.step_if(StepGranularity::Epoch, s);
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        if let (true, Some(base)) = (self.reset_lr, self.base_lr) {
            (s.optimizer.lr, self.lr) = (base, f64::from(base));
        }
        if self.reset_scheduler {
            self.steps = 0;
            self.seen = Seen::default();
        }
        Ok(())
    }

    fn after_training(&mut self, _: &mut State) -> Result<()> {
        self.training = false;
        Ok(())
    }

    fn after_eval_iteration(&mut self, s: &mut State) -> Result<()> {
        if self.training && self.watched() == Some(SchedulerMetric::ValLoss) {
            self.watch(s);
        }
        Ok(())
    }

    fn after_eval(&mut self, s: &mut State) -> Result<()> {
        if self.training && self.watched() == Some(SchedulerMetric::ValLoss) {
            // An evaluation before the first iteration, or a second one without an iteration in
            // between, tells nothing new.
            if self.iterated && !self.just_validated {
                self.step(s);
            }
            self.forget_loss();
        }
        self.just_validated = true;
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("base_lr", &self.base_lr);
        out.put(
            "position",
            &(self.lr, self.steps, self.loss_sum, self.samples),
        );
        out.put(
            "phase",
            &(self.training, self.just_validated, self.iterated),
        );
        out.put("plateau", &self.seen);
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.base_lr = from.get("base_lr")?;
        (self.lr, self.steps, self.loss_sum, self.samples) = from.get("position")?;
        (self.training, self.just_validated, self.iterated) = from.get("phase")?;
        self.seen = from.get("plateau")?;
        Ok(())
    }
}
