//! The loop of training, with every callback in Avalanche's order.

use super::periodic::{PeriodicEval, Streams};
use super::resume::{Keeper, Resume};
use super::{EvalResult, Method, PevalMode};
use crate::benchmarks::{Experience, Stream};
use crate::data::{ClassificationDataset, Group};
use crate::error::{Error, Result};
use crate::evaluation::EvaluationPlugin;
use crate::tape::{Mode, Tape};
use crate::template::{Event, Plugin, Position, Prefetch, State, TaskBalanced, call};

/// Experiences to train on or to evaluate: one, a stream, or a slice of either.
pub trait Experiences {
    /// The experiences, in order.
    fn list(&self) -> Vec<Experience>;
}

impl Experiences for Experience {
    fn list(&self) -> Vec<Experience> {
        vec![self.clone()]
    }
}

impl Experiences for Stream {
    fn list(&self) -> Vec<Experience> {
        self.iter().cloned().collect()
    }
}

impl Experiences for [Experience] {
    fn list(&self) -> Vec<Experience> {
        self.to_vec()
    }
}

/// A continual-learning strategy: Avalanche's `SupervisedTemplate` with a [`Method`].
pub struct Strategy {
    pub(super) state: State,
    pub(super) method: Box<dyn Method>,
    pub(super) plugins: Vec<Box<dyn Plugin>>,
    pub(super) evaluator: EvaluationPlugin,
    pub(super) periodic: PeriodicEval,
    pub(super) loader: TaskBalanced,
    /// What gathers mini-batches ahead, within an experience.
    pub(super) ahead: Option<Prefetch>,
    /// Every experience trained on so far, the running one included.
    pub(super) trained: Vec<Experience>,
    /// In the middle of an experience: its position in the list given to `train`.
    pub(super) within: Option<usize>,
    pub(super) resume: Option<Resume>,
    pub(super) keeper: Option<Box<dyn Keeper>>,
}

impl Strategy {
    /// Everything under Avalanche's names: clock, experience, mini-batch, buffer, model.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, to be changed between calls: learning rate, epochs, weights.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The metrics and loggers, with the values collected so far.
    pub fn evaluator(&self) -> &EvaluationPlugin {
        &self.evaluator
    }

    /// The same, to be switched off or on.
    pub fn evaluator_mut(&mut self) -> &mut EvaluationPlugin {
        &mut self.evaluator
    }

    /// The name of the method.
    pub fn name(&self) -> &'static str {
        self.method.name()
    }

    /// How often the strategy is evaluated during training, and counted in what; `None`: never.
    pub fn eval_every(&self) -> (Option<usize>, PevalMode) {
        (self.periodic.every, self.periodic.mode)
    }

    /// Trains on one experience or on several, one after the other (joint training: together).
    /// Periodic evaluations, if there are any, run on these same experiences; see
    /// [`train_with`](Self::train_with).
    ///
    /// # Errors
    /// [`Error::Config`] when a label does not fit the model, [`Error::NonFinite`] when the loss
    /// is no longer a number, [`Error::Device`] when memory runs out, and what plugins return.
    pub fn train(&mut self, experiences: &(impl Experiences + ?Sized)) -> Result<()> {
        let list = experiences.list();
        let streams = Streams::new([list.clone()]);
        self.run(list, streams)
    }

    /// As [`train`](Self::train), with the streams for periodic evaluation (Avalanche's
    /// `eval_streams`): experiences of streams with the same name are evaluated in one call.
    ///
    /// ```
    /// use unforget::prelude::*;
    /// use unforget::training::PevalMode;
    ///
    /// let benchmark = SplitMnist::embedded().n_experiences(5).build()?;
    /// let mut tape = Tape::new(Device::Cpu)?;
    /// let model = Mlp::new(&mut tape, &[784, 10]);
    /// let mut strategy = Naive::builder(tape, model, Sgd::new(0.03))
    ///     .train_mb_size(64)
    ///     .eval_mb_size(250)
    ///     .eval_every(1)
    ///     .peval_mode(PevalMode::Experience)
    ///     .build()?;
    /// strategy.train_with(&benchmark.train_stream()[0], &[benchmark.test_stream()])?;
    /// let name = "Top1_Acc_Stream/eval_phase/test_stream/Task000";
    /// let (steps, _) = &strategy.evaluator().get_all_metrics()[name];
    /// assert_eq!(steps.len(), 2); // before training and after the experience
    /// # Ok::<(), unforget::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`train`](Self::train).
    pub fn train_with(
        &mut self,
        experiences: &(impl Experiences + ?Sized),
        eval_streams: &[&dyn Experiences],
    ) -> Result<()> {
        let streams = Streams::new(eval_streams.iter().map(|s| s.list()));
        self.run(experiences.list(), streams)
    }

    fn run(&mut self, mut list: Vec<Experience>, streams: Streams) -> Result<()> {
        self.periodic.streams = streams;
        let _awake = self.state.tape.stay_awake();
        let result = Tape::guard(|| self.train_list(&mut list));
        self.periodic.streams = Streams::default();
        (self.within, self.ahead) = (None, None);
        self.state.is_training = false;
        self.state.experience = None;
        self.state.adapted_dataset = None;
        self.state.clear_batch();
        result
    }

    fn train_list(&mut self, list: &mut Vec<Experience>) -> Result<()> {
        self.state.is_training = true;
        let resume = self.resume.take();
        if resume.is_none() {
            self.fire(Event::BeforeTraining)?;
            if self.periodic.every.is_some() {
                self.evaluate_periodically()?;
            }
        }
        if self.method.joins_experiences() && list.len() > 1 {
            let parts: Vec<_> = list.iter().map(|e| e.dataset().clone()).collect();
            let (id, name) = (
                list[0].current_experience(),
                list[0].stream_name().to_string(),
            );
            *list = vec![Experience::from_dataset(
                ClassificationDataset::concat(&parts),
                id,
                &name,
            )];
        }
        let first = resume.as_ref().map_or(0, |r| r.experience);
        let mut position = resume.map(|r| r.position);
        for (index, experience) in list.iter().enumerate().skip(first) {
            let dataset = match position.take() {
                Some(position) => self.enter_again(experience, position)?,
                None => self.enter(experience)?,
            };
            self.within = Some(index);
            self.train_epochs(&dataset)?;
            (self.within, self.ahead) = (None, None);
            self.finish_experience()?;
        }
        self.fire(Event::AfterTraining)
    }

    /// Everything before the first epoch of an experience.
    fn enter(&mut self, experience: &Experience) -> Result<ClassificationDataset> {
        self.state.experience = Some(experience.clone());
        self.trained.push(experience.clone());
        self.state.stop = false;
        self.method.before_experience(&mut self.state);
        self.fire(Event::BeforeTrainDatasetAdaptation)?;
        self.state.adapted_dataset = Some(self.method.train_dataset(experience));
        self.fire(Event::AfterTrainDatasetAdaptation)?;
        self.state.adapt_model(experience);
        let dataset = self.adapted();
        self.check_labels(&dataset)?;
        self.prepare_loader(experience, &dataset)?;
        self.state.clock.start_experience();
        self.periodic.epoch_evaluated = false;
        self.fire(Event::BeforeTrainingExp)?;
        self.start_epoch()?;
        Ok(dataset)
    }

    /// Back into an experience in the middle of which a snapshot was taken.
    fn enter_again(
        &mut self,
        experience: &Experience,
        position: Position,
    ) -> Result<ClassificationDataset> {
        let id = experience.current_experience();
        if self.trained.last().map(Experience::current_experience) != Some(id) {
            return Err(Error::Checkpoint(format!(
                "the checkpoint is not in the middle of experience {id}; train on the experiences \
                 that were being trained on"
            )));
        }
        self.state.experience = Some(experience.clone());
        self.state.adapted_dataset = Some(self.method.train_dataset(experience));
        for plugin in &mut self.plugins {
            let event = Event::AfterTrainDatasetAdaptation;
            call(plugin.as_mut(), event, &mut self.state)?;
        }
        let dataset = self.adapted();
        self.prepare_loader(experience, &dataset)?;
        self.loader.seek(position)?;
        Ok(dataset)
    }

    fn prepare_loader(
        &mut self,
        experience: &Experience,
        dataset: &ClassificationDataset,
    ) -> Result<()> {
        let (size, options) = (self.state.train_mb_size, self.state.loader);
        // Joint training has no order to keep, nor has data adapted to another length.
        let keeps_order =
            !self.method.joins_experiences() && dataset.len() == experience.dataset().len();
        match experience.batches().filter(|_| keeps_order) {
            Some(batches) => self.loader.prescribe(dataset.len(), batches),
            None => self.loader.prepare(dataset, size, options)?,
        }
        self.state.iterations_per_epoch = self.loader.len();
        let batches = self.loader.len();
        self.ahead = (self.state).gather_ahead(dataset, Group::Train, batches)?;
        Ok(())
    }

    /// Begins an epoch, if there is one to come.
    fn start_epoch(&mut self) -> Result<()> {
        if self.state.clock.train_exp_epochs < self.state.train_epochs as u64 {
            self.state.clock.start_epoch();
            self.fire(Event::BeforeTrainingEpoch)?;
            if !self.state.stop {
                self.loader.start(self.state.tape.generator());
            }
        }
        Ok(())
    }

    /// The rest of the epoch that has begun, and the epochs after it.
    fn train_epochs(&mut self, dataset: &ClassificationDataset) -> Result<()> {
        while self.state.clock.train_exp_epochs < self.state.train_epochs as u64 {
            if self.state.stop && self.state.clock.train_epoch_iterations == 0 {
                break;
            }
            while !self.state.stop && self.train_iteration(dataset)? {
                self.offer_snapshot()?;
            }
            self.fire(Event::AfterTrainingEpoch)?;
            if self.periodic.after_epoch(&self.state.clock) {
                self.evaluate_periodically()?;
            }
            self.state.clock.train_exp_epochs += 1;
            self.start_epoch()?;
        }
        Ok(())
    }

    /// Everything after the last epoch of an experience.
    fn finish_experience(&mut self) -> Result<()> {
        self.fire(Event::AfterTrainingEpochs)?;
        self.method.after_experience(&mut self.state)?;
        self.fire(Event::AfterTrainingExp)?;
        let requested = std::mem::take(&mut self.state.evaluation_requested);
        if self.periodic.after_experience(&self.state.clock, requested) {
            self.evaluate_periodically()?;
        }
        self.state.clock.train_exp_counter += 1;
        Ok(())
    }

    /// One iteration; false at the end of the epoch.
    fn train_iteration(&mut self, dataset: &ClassificationDataset) -> Result<bool> {
        if !self.loader.advance(self.state.tape.generator()) {
            return Ok(false);
        }
        self.state.clear_batch();
        let samples = self.loader.batch().iter().map(|&i| i as usize);
        let (ahead, loader) = (self.ahead.as_mut(), &self.loader);
        (self.state).append_ahead(dataset, Group::Train, samples, ahead, |k, samples| {
            loader.upcoming(k, samples)
        });
        self.fire(Event::BeforeTrainingIteration)?;
        self.fire(Event::BeforeForward)?;
        self.method.add_replay(&mut self.state);
        let logits = self.state.forward(Mode::Train);
        self.fire(Event::AfterForward)?;
        let loss = self.method.loss(&mut self.state, logits);
        self.state.loss_var = Some(loss);
        self.fire(Event::BeforeBackward)?;
        let loss = self.state.loss_var.unwrap_or(loss);
        let mut terms = self.state.loss();
        terms.total = self.state.loss_value(loss) + self.state.penalty();
        self.state.set_loss(terms);
        if !terms.total.is_finite() {
            return Err(self.diverged());
        }
        self.state.tape.backward(loss);
        self.state.apply_penalty();
        self.fire(Event::AfterBackward)?;
        self.fire(Event::BeforeUpdate)?;
        self.state.optimizer.step(&mut self.state.tape);
        self.method.after_iteration(&mut self.state);
        self.fire(Event::AfterUpdate)?;
        self.fire(Event::AfterTrainingIteration)?;
        if self.periodic.after_iteration(&self.state.clock) {
            self.evaluate_periodically()?;
        }
        self.state.clock.tick_iteration();
        Ok(true)
    }

    fn diverged(&self) -> Error {
        let clock = &self.state.clock;
        let experience = self
            .state
            .experience
            .as_ref()
            .map_or(0, Experience::current_experience);
        Error::NonFinite(format!(
            "the loss is {} in experience {experience}, iteration {}: expected a finite number; \
             lower the learning rate (now {}) or check the data",
            self.state.loss().total,
            clock.train_exp_iterations,
            self.state.optimizer.lr
        ))
    }

    /// Evaluates on the experiences given: accuracy and loss of each. The model, the clock's
    /// training counters and the state of training are left as they were.
    ///
    /// # Errors
    /// As for [`train`](Self::train).
    pub fn eval(&mut self, experiences: &(impl Experiences + ?Sized)) -> Result<EvalResult> {
        let list = experiences.list();
        let _awake = self.state.tape.stay_awake();
        Tape::guard(|| self.eval_list(list))
    }

    fn evaluate_periodically(&mut self) -> Result<()> {
        for list in self.periodic.streams.get() {
            self.eval_list(list)?;
        }
        Ok(())
    }

    pub(super) fn adapted(&self) -> ClassificationDataset {
        self.state
            .adapted_dataset
            .clone()
            .expect("set before the callback that may replace it")
    }

    pub(super) fn check_labels(&self, dataset: &ClassificationDataset) -> Result<()> {
        let largest = dataset.targets().iter().copied().max();
        match (largest, self.state.model.n_classes()) {
            (Some(label), Some(classes)) if label as usize >= classes => Err(Error::config(
                "model",
                format!("an output for every class, at least {}", label + 1),
                format!("{classes} outputs"),
            )),
            _ => Ok(()),
        }
    }

    /// Calls the plugins in the order in which they were added, then the evaluator.
    pub(super) fn fire(&mut self, event: Event) -> Result<()> {
        for plugin in &mut self.plugins {
            call(plugin.as_mut(), event, &mut self.state)?;
        }
        self.evaluator.on(event, &mut self.state)
    }
}
