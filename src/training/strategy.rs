//! The loops of training and evaluation, with every callback in Avalanche's order.

use super::loader::Shuffled;
use super::plugin::call;
use super::{EvalResult, Event, ExperienceEval, LossTerms, Method, Plugin, State};
use crate::benchmarks::{Experience, Stream};
use crate::data::{ClassificationDataset, Group};
use crate::error::{Error, Result};
use crate::tape::{Mode, Tape};

/// Experiences to train on: one, a stream, or a slice of either.
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
    state: State,
    method: Box<dyn Method>,
    plugins: Vec<Box<dyn Plugin>>,
    loader: Shuffled,
}

impl Strategy {
    pub(super) fn new(
        state: State,
        method: Box<dyn Method>,
        plugins: Vec<Box<dyn Plugin>>,
    ) -> Self {
        Strategy {
            state,
            method,
            plugins,
            loader: Shuffled::default(),
        }
    }

    /// Everything under Avalanche's names: clock, experience, mini-batch, buffer, model.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, to be changed between calls: learning rate, epochs, weights.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The name of the method.
    pub fn name(&self) -> &'static str {
        self.method.name()
    }

    /// Trains on one experience or on several, one after the other (joint training: together).
    ///
    /// # Errors
    /// [`Error::Config`] when a label does not fit the model, [`Error::NonFinite`] when the loss
    /// is no longer a number, [`Error::Device`] when memory runs out, and what plugins return.
    pub fn train(&mut self, experiences: &(impl Experiences + ?Sized)) -> Result<()> {
        let mut list = experiences.list();
        let result = Tape::guard(|| self.train_list(&mut list));
        self.state.is_training = false;
        self.leave();
        result
    }

    fn train_list(&mut self, list: &mut Vec<Experience>) -> Result<()> {
        self.state.is_training = true;
        self.fire(Event::BeforeTraining)?;
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
        for experience in list.iter() {
            self.train_experience(experience)?;
        }
        self.fire(Event::AfterTraining)
    }

    fn train_experience(&mut self, experience: &Experience) -> Result<()> {
        self.state.experience = Some(experience.clone());
        self.state.stop = false;
        self.method.before_experience(&mut self.state);
        self.fire(Event::BeforeTrainDatasetAdaptation)?;
        self.state.adapted_dataset = Some(self.method.train_dataset(experience));
        self.fire(Event::AfterTrainDatasetAdaptation)?;
        let dataset = self.adapted();
        self.check_labels(&dataset)?;
        self.state.iterations_per_epoch = dataset.len().div_ceil(self.state.train_mb_size);
        self.state.clock.start_experience();
        self.fire(Event::BeforeTrainingExp)?;
        for _ in 0..self.state.train_epochs {
            self.state.clock.start_epoch();
            self.fire(Event::BeforeTrainingEpoch)?;
            if self.state.stop {
                break;
            }
            self.loader
                .start(dataset.len(), self.state.tape.generator());
            while !self.state.stop && self.train_iteration(&dataset)? {}
            self.fire(Event::AfterTrainingEpoch)?;
            self.state.clock.train_exp_epochs += 1;
        }
        self.method.after_experience(&mut self.state)?;
        self.fire(Event::AfterTrainingExp)?;
        self.state.clock.train_exp_counter += 1;
        Ok(())
    }

    /// One iteration; false at the end of the epoch.
    fn train_iteration(&mut self, dataset: &ClassificationDataset) -> Result<bool> {
        let batch = self.loader.batch(self.state.train_mb_size);
        if batch.is_empty() {
            return Ok(false);
        }
        self.state.clear_batch();
        self.state
            .append(dataset, Group::Train, batch.iter().map(|&i| i as usize));
        self.fire(Event::BeforeTrainingIteration)?;
        self.fire(Event::BeforeForward)?;
        self.method.add_replay(&mut self.state);
        let logits = self.state.forward(Mode::Train);
        self.fire(Event::AfterForward)?;
        let loss = self.method.loss(&mut self.state, logits);
        let [_, current, from_logits, replay] = self.state.tape.loss_terms(loss);
        self.state.loss_var = Some(loss);
        self.fire(Event::BeforeBackward)?;
        let loss = self.state.loss_var.unwrap_or(loss);
        let total = self.state.tape.item(loss);
        self.state.loss = LossTerms {
            total,
            current,
            logits: from_logits,
            replay,
        };
        if !total.is_finite() {
            return Err(self.diverged(total));
        }
        self.state.tape.backward(loss);
        self.fire(Event::AfterBackward)?;
        self.fire(Event::BeforeUpdate)?;
        self.state.optimizer.step(&mut self.state.tape);
        self.fire(Event::AfterUpdate)?;
        self.fire(Event::AfterTrainingIteration)?;
        self.state.clock.tick_iteration();
        Ok(true)
    }

    fn diverged(&self, loss: f32) -> Error {
        let clock = &self.state.clock;
        let experience = self
            .state
            .experience
            .as_ref()
            .map_or(0, Experience::current_experience);
        Error::NonFinite(format!(
            "the loss is {loss} in experience {experience}, iteration {}: expected a finite number; \
             lower the learning rate (now {}) or check the data",
            clock.train_exp_iterations, self.state.optimizer.lr
        ))
    }

    /// Evaluates on the experiences given: accuracy and loss of each. The model, the clock's
    /// training counters and the state of training are left as they were.
    ///
    /// # Errors
    /// As for [`train`](Self::train).
    pub fn eval(&mut self, experiences: &(impl Experiences + ?Sized)) -> Result<EvalResult> {
        let list = experiences.list();
        let was_training = std::mem::replace(&mut self.state.is_training, false);
        let result = Tape::guard(|| self.eval_list(&list));
        self.state.is_training = was_training;
        self.leave();
        result
    }

    fn eval_list(&mut self, list: &[Experience]) -> Result<EvalResult> {
        self.fire(Event::BeforeEval)?;
        let mut result = EvalResult::default();
        for experience in list {
            self.state.experience = Some(experience.clone());
            self.fire(Event::BeforeEvalDatasetAdaptation)?;
            self.state.adapted_dataset = Some(experience.dataset().clone());
            self.fire(Event::AfterEvalDatasetAdaptation)?;
            let dataset = self.adapted();
            self.check_labels(&dataset)?;
            self.fire(Event::BeforeEvalExp)?;
            result
                .experiences
                .push(self.eval_experience(experience, &dataset)?);
            self.fire(Event::AfterEvalExp)?;
        }
        self.fire(Event::AfterEval)?;
        Ok(result)
    }

    fn eval_experience(
        &mut self,
        experience: &Experience,
        dataset: &ClassificationDataset,
    ) -> Result<ExperienceEval> {
        // The seed that PyTorch's loader draws for its workers.
        self.state.tape.generator().random_i64();
        let classes = experience.classes_in_this_experience();
        let n = dataset.len();
        let (mut correct, mut correct_task, mut loss_sum) = (0, 0, 0.0);
        for start in (0..n).step_by(self.state.eval_mb_size) {
            let end = n.min(start + self.state.eval_mb_size);
            self.state.clear_batch();
            self.state.append(dataset, Group::Eval, start..end);
            self.fire(Event::BeforeEvalIteration)?;
            self.fire(Event::BeforeEvalForward)?;
            let logits = self.state.forward(Mode::Eval);
            self.fire(Event::AfterEvalForward)?;
            let loss = self.state.tape.cross_entropy(logits, &self.state.mb_y);
            let total = self.state.tape.item(loss);
            self.state.loss = LossTerms {
                total,
                current: total,
                ..LossTerms::default()
            };
            self.fire(Event::AfterEvalIteration)?;
            self.state.clock.total_iterations += 1;
            loss_sum += f64::from(total) * (end - start) as f64;
            let width = self.state.tape.shape(logits).dim(1);
            for (row, &label) in self
                .state
                .logits()
                .chunks_exact(width)
                .zip(&self.state.mb_y)
            {
                correct += usize::from(argmax(row, 0..width as u32) == Some(label));
                correct_task += usize::from(argmax(row, classes.iter().copied()) == Some(label));
            }
        }
        Ok(ExperienceEval {
            experience: experience.current_experience(),
            samples: n,
            correct,
            correct_task,
            loss: loss_sum / n.max(1) as f64,
        })
    }

    fn adapted(&self) -> ClassificationDataset {
        self.state
            .adapted_dataset
            .clone()
            .expect("set before the callback that may replace it")
    }

    fn check_labels(&self, dataset: &ClassificationDataset) -> Result<()> {
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

    fn fire(&mut self, event: Event) -> Result<()> {
        self.plugins
            .iter_mut()
            .try_for_each(|plugin| call(plugin.as_mut(), event, &mut self.state))
    }

    /// Outside of the loops there is no experience and no mini-batch.
    fn leave(&mut self) {
        self.state.experience = None;
        self.state.adapted_dataset = None;
        self.state.clear_batch();
    }
}

/// The column of the largest value among `columns`, the first if several are equal.
fn argmax(row: &[f32], columns: impl Iterator<Item = u32>) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for column in columns {
        let Some(&value) = row.get(column as usize) else {
            continue;
        };
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((column, value));
        }
    }
    best.map(|(column, _)| column)
}
