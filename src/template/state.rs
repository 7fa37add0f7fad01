//! Everything that plugins and methods may look at and change.

use super::loader::Endless;
use super::passes::Penalty;
use super::{Clock, Criterion, LoaderOptions, MetricData};
use crate::benchmarks::Experience;
use crate::data::{ClassificationDataset, Group};
use crate::error::{Error, Result};
use crate::nn::{Adaptation, Module};
use crate::optim::Sgd;
use crate::replay::Buffer;
use crate::snapshot::Snapshot;
use crate::tape::{DerLoss, LossRows, Mode, Tape, Var};
use ndarray::{ArrayView2, ArrayView4};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The loss of a mini-batch and its terms, each with its weight: the terms add up to the total, but
/// for what plugins add to it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LossTerms {
    /// What was differentiated.
    pub total: f32,
    /// Cross-entropy of the current data.
    pub current: f32,
    /// `alpha` times the mean squared error of the replayed logits.
    pub logits: f32,
    /// `beta` times the cross-entropy of the replayed labels.
    pub replay: f32,
}

/// What the model was told of an experience.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    classes: Vec<u32>,
    task_label: u32,
    training: bool,
}

impl Seen {
    fn adapt(&self, model: &mut dyn Module, tape: &mut Tape) {
        let adaptation = Adaptation {
            classes: &self.classes,
            task_label: self.task_label,
            training: self.training,
        };
        model.adapt(tape, &adaptation);
    }
}

/// The part of the state that a snapshot keeps besides tape and buffer.
#[derive(Serialize, Deserialize)]
struct Kept {
    optimizer: Sgd,
    loader: LoaderOptions,
    train_epochs: usize,
    train_mb_size: usize,
    eval_mb_size: usize,
    clock: Clock,
    last_metrics: BTreeMap<String, MetricData>,
    loss: LossTerms,
    stop: bool,
    evaluation_requested: bool,
    seen: Vec<Seen>,
}

/// The state of a strategy, under Avalanche's names.
///
/// A mini-batch holds `n` samples; after the forward pass of a training iteration with replay the
/// first [`replay_rows`](Self::replay_rows) of them come from the buffer.
pub struct State {
    /// The engine, with the model's parameters and the run's generator.
    pub tape: Tape,
    /// The model.
    pub model: Box<dyn Module>,
    /// The optimizer; may be changed at any time.
    pub optimizer: Sgd,
    /// The loss of labels; `None` is the mean cross-entropy, fused with the rest of the loss.
    pub criterion: Option<Box<dyn Criterion>>,
    /// How training data is gone through; read at the start of each experience.
    pub loader: LoaderOptions,
    /// Epochs per experience; read at the start of each.
    pub train_epochs: usize,
    /// Samples of current data in a mini-batch.
    pub train_mb_size: usize,
    /// Samples in a mini-batch of evaluation.
    pub eval_mb_size: usize,
    /// The counters.
    pub clock: Clock,
    /// The current experience; `None` outside of the loops.
    pub experience: Option<Experience>,
    /// The data iterated over in the current experience.
    pub adapted_dataset: Option<ClassificationDataset>,
    /// Mini-batches in an epoch of the current experience.
    pub iterations_per_epoch: usize,
    /// What the running call of `eval` goes through; empty outside of it.
    pub current_eval_stream: Vec<Experience>,
    /// The last value of every metric, by name (Avalanche's `last_metric_results`).
    pub last_metrics: BTreeMap<String, MetricData>,
    /// The replay buffer, if the method has one (Avalanche's `storage_policy`).
    pub storage_policy: Option<Buffer>,
    /// The loss of the last mini-batch.
    pub loss: LossTerms,
    /// The loss on the tape, between `before_backward` and the next mini-batch.
    pub loss_var: Option<Var>,
    /// The logits on the tape, from `after_forward` to the next mini-batch.
    pub mb_output: Option<Var>,
    /// Labels of the mini-batch.
    pub mb_y: Vec<u32>,
    /// Task labels of the mini-batch.
    pub mb_task_id: Vec<u32>,
    /// How many rows of the mini-batch come from the replay buffer; they are the first.
    pub replay_rows: usize,
    /// True from the start of `train` to its end.
    pub is_training: bool,
    /// Stored logits of the replay rows, row after row (Avalanche's `batch_logits`); NaN where a unit
    /// was masked when the sample was stored.
    pub mb_logits_stored: Vec<f32>,
    /// How wide each of these rows is: a head may have grown since.
    pub mb_logit_widths: Vec<u32>,
    pub(crate) mb_x: Vec<f32>,
    pub(crate) shape: [usize; 3],
    pub(crate) stop: bool,
    pub(crate) evaluation_requested: bool,
    pub(super) penalty: Penalty,
    scratch: Vec<f32>,
    /// The different experiences that the model was adapted to, in order.
    seen: Vec<Seen>,
}

impl State {
    pub(crate) fn new(tape: Tape, model: Box<dyn Module>, optimizer: Sgd) -> Self {
        State {
            tape,
            model,
            optimizer,
            criterion: None,
            loader: LoaderOptions::default(),
            train_epochs: 1,
            train_mb_size: 1,
            eval_mb_size: 1,
            clock: Clock::default(),
            experience: None,
            adapted_dataset: None,
            iterations_per_epoch: 0,
            current_eval_stream: Vec::new(),
            last_metrics: BTreeMap::new(),
            storage_policy: None,
            loss: LossTerms::default(),
            loss_var: None,
            mb_output: None,
            mb_y: Vec::new(),
            mb_task_id: Vec::new(),
            replay_rows: 0,
            is_training: false,
            mb_logits_stored: Vec::new(),
            mb_logit_widths: Vec::new(),
            mb_x: Vec::new(),
            shape: [0; 3],
            stop: false,
            evaluation_requested: false,
            penalty: Penalty::default(),
            scratch: Vec::new(),
            seen: Vec::new(),
        }
    }

    pub(crate) fn save(&self, out: &mut Snapshot) {
        let kept = Kept {
            optimizer: self.optimizer,
            loader: self.loader,
            train_epochs: self.train_epochs,
            train_mb_size: self.train_mb_size,
            eval_mb_size: self.eval_mb_size,
            clock: self.clock,
            last_metrics: self.last_metrics.clone(),
            loss: self.loss,
            stop: self.stop,
            evaluation_requested: self.evaluation_requested,
            seen: self.seen.clone(),
        };
        out.put("kept", &kept);
    }

    /// Goes on from where [`save`](Self::save) was called; the tape is loaded here too, after the
    /// model has been given the shape that it had.
    pub(crate) fn load(&mut self, from: &Snapshot, tape: &Snapshot) -> Result<()> {
        let kept: Kept = from.get("kept")?;
        for seen in &kept.seen {
            seen.adapt(self.model.as_mut(), &mut self.tape);
        }
        self.tape.load(tape)?;
        self.seen = kept.seen;
        self.optimizer = kept.optimizer;
        self.loader = kept.loader;
        self.train_epochs = kept.train_epochs;
        self.train_mb_size = kept.train_mb_size;
        self.eval_mb_size = kept.eval_mb_size;
        self.clock = kept.clock;
        self.last_metrics = kept.last_metrics;
        self.loss = kept.loss;
        self.stop = kept.stop;
        self.evaluation_requested = kept.evaluation_requested;
        Ok(())
    }

    /// Asks the loop to end the current experience after this iteration. The epoch's and the
    /// experience's callbacks still run, and the buffer is still updated. Avalanche forgets to
    /// clear this flag when it is set in the last epoch and then skips the next experience; here
    /// it always concerns the current experience only.
    pub fn stop_training(&mut self) {
        self.stop = true;
    }

    /// Asks for a periodic evaluation at the end of this experience even if its last epoch was
    /// evaluated, because the model has changed since. Without periodic evaluation it does nothing.
    pub fn request_evaluation(&mut self) {
        self.evaluation_requested = true;
    }

    /// The opposite of [`is_training`](Self::is_training).
    pub fn is_eval(&self) -> bool {
        !self.is_training
    }

    /// Inputs of the mini-batch as the model sees them, `[n, C, H, W]`.
    pub fn mb_x(&self) -> ArrayView4<'_, f32> {
        let [c, h, w] = self.shape;
        ArrayView4::from_shape((self.mb_y.len(), c, h, w), &self.mb_x).expect("whole samples")
    }

    /// Logits of the mini-batch, `[n, classes]`; `None` before the forward pass.
    pub fn mb_logits(&self) -> Option<ArrayView2<'_, f32>> {
        let shape = self.tape.shape(self.mb_output?);
        let dims = (shape.dim(0), shape.dim(1));
        (self.scratch.len() == shape.len())
            .then(|| ArrayView2::from_shape(dims, &self.scratch).expect("whole rows"))
    }

    pub(crate) fn clear_batch(&mut self) {
        self.mb_x.clear();
        self.mb_y.clear();
        self.mb_task_id.clear();
        self.mb_logits_stored.clear();
        self.mb_logit_widths.clear();
        self.replay_rows = 0;
        self.penalty.clear();
        self.mb_output = None;
        self.loss_var = None;
    }

    /// Appends samples of `dataset` to the mini-batch.
    pub(crate) fn append(
        &mut self,
        dataset: &ClassificationDataset,
        group: Group,
        samples: impl Iterator<Item = usize>,
    ) {
        self.shape = dataset.shape();
        let size = self.shape.iter().product::<usize>();
        for i in samples {
            let start = self.mb_x.len();
            self.mb_x.resize(start + size, 0.0);
            dataset.write_sample(i, group, &mut self.mb_x[start..]);
            self.mb_y.push(dataset.target(i));
            self.mb_task_id.push(dataset.task_label(i));
        }
    }

    /// Puts up to `count` samples of the buffer in front of the mini-batch.
    pub(crate) fn prepend_replay(&mut self, loader: &mut Endless, count: usize) {
        let Some(buffer) = &self.storage_policy else {
            return;
        };
        let count = count.min(buffer.len());
        let batch = loader.batch(buffer.len(), count, self.tape.generator());
        let size = self.shape.iter().product::<usize>();
        let current = self.mb_x.len();
        self.mb_x.resize(current + batch.len() * size, 0.0);
        for (row, &i) in batch.iter().enumerate() {
            let item = buffer.item(i as usize);
            let start = current + row * size;
            item.write_sample(Group::Train, &mut self.mb_x[start..start + size]);
            self.mb_y.push(item.target);
            self.mb_task_id.push(item.task_label);
            self.mb_logits_stored.extend_from_slice(&item.logits);
            self.mb_logit_widths.push(item.logits.len() as u32);
        }
        self.mb_x.rotate_right(batch.len() * size);
        self.mb_y.rotate_right(batch.len());
        self.mb_task_id.rotate_right(batch.len());
        self.replay_rows = batch.len();
    }

    /// Runs the model on the mini-batch in a new step of the tape.
    pub(crate) fn forward(&mut self, mode: Mode) -> Var {
        let [c, h, w] = self.shape;
        self.tape.begin(mode);
        let x = self.tape.input(&[self.mb_y.len(), c, h, w], &self.mb_x);
        let (tape, tasks) = (&mut self.tape, &self.mb_task_id);
        let logits = self.model.forward_tasks(tape, x, tasks);
        self.mb_output = Some(logits);
        self.tape.copy_into(logits, &mut self.scratch);
        logits
    }

    /// Puts other numbers in the place of the model's output for the mini-batch, in an evaluation.
    pub(crate) fn replace_output(&mut self, values: &[f32], width: usize) -> Var {
        let output = self.tape.input(&[self.mb_y.len(), width], values);
        self.mb_output = Some(output);
        self.scratch.clear();
        self.scratch.extend_from_slice(values);
        output
    }

    /// Records the criterion over all rows of the mini-batch, and notes it as the current loss.
    pub fn criterion_loss(&mut self, logits: Var) -> Var {
        match &self.criterion {
            None => {
                let loss = self.tape.cross_entropy(logits, &self.mb_y);
                self.note_terms(loss);
                loss
            }
            Some(criterion) => {
                let loss = criterion.loss(&mut self.tape, logits, &self.mb_y);
                let total = self.tape.item(loss);
                self.loss = LossTerms {
                    total,
                    current: total,
                    ..LossTerms::default()
                };
                loss
            }
        }
    }

    /// Records the loss of Dark Experience Replay over the mini-batch, replay rows first:
    /// `criterion(current) + alpha·MSE(logits, stored logits) + beta·criterion(replay)`. Without
    /// replay rows it is the criterion alone. A term of weight 0 is not evaluated.
    pub fn dark_loss(&mut self, logits: Var, alpha: f32, beta: f32) -> Var {
        let replay = self.replay_rows;
        let Some(criterion) = &self.criterion else {
            let loss = DerLoss {
                labels: &self.mb_y,
                targets: &self.mb_logits_stored,
                widths: &self.mb_logit_widths,
                replay,
                alpha,
                beta,
            };
            let loss = self.tape.der_loss(logits, &loss);
            self.note_terms(loss);
            return loss;
        };
        if replay == 0 {
            return self.criterion_loss(logits);
        }
        let tape = &mut self.tape;
        let (old, new) = self.mb_y.split_at(replay);
        let width = tape.shape(logits).dim(1);
        let rows = tape.slice(logits, replay..self.mb_y.len());
        let current = criterion.loss(tape, rows, new);
        let mut terms = LossTerms {
            current: tape.item(current),
            ..LossTerms::default()
        };
        let mut loss = current;
        let rows = tape.slice(logits, 0..replay);
        if alpha != 0.0 {
            let targets = LossRows {
                labels: old,
                current: 0..0,
                targets: &self.mb_logits_stored,
                first_target: 0,
                widths: &self.mb_logit_widths,
            };
            let mut compared = targets.compared(width);
            let term = tape.row_loss(rows, &targets, |_| {
                let columns = compared.next().unwrap_or(width).max(1);
                (0.0, f64::from(alpha) / (replay * columns) as f64)
            });
            terms.logits = tape.item(term);
            loss = tape.add(loss, term);
        }
        if beta != 0.0 {
            let term = criterion.loss(tape, rows, old);
            let term = tape.scale(term, beta);
            terms.replay = tape.item(term);
            loss = tape.add(loss, term);
        }
        terms.total = tape.item(loss);
        self.loss = terms;
        loss
    }

    fn note_terms(&mut self, loss: Var) {
        let [total, current, logits, replay] = self.tape.loss_terms(loss);
        self.loss = LossTerms {
            total,
            current,
            logits,
            replay,
        };
    }

    /// The logits that [`forward`](Self::forward) computed, row after row.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.scratch
    }

    /// Lets the model make room for what `experience` brings, task by task (Avalanche's
    /// `model_adaptation`). Parameters that change lose their momentum, all others keep theirs.
    pub(crate) fn adapt_model(&mut self, experience: &Experience) {
        let dataset = experience.dataset();
        let mut tasks: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut last = None;
        for i in 0..dataset.len() {
            let label = (dataset.task_label(i), dataset.target(i));
            // Data is mostly grouped by class.
            if last != Some(label) {
                tasks.entry(label.0).or_default().insert(label.1);
                last = Some(label);
            }
        }
        for (task_label, classes) in tasks {
            let seen = Seen {
                classes: classes.into_iter().collect(),
                task_label,
                training: self.is_training,
            };
            seen.adapt(self.model.as_mut(), &mut self.tape);
            if !self.seen.contains(&seen) {
                self.seen.push(seen);
            }
        }
    }

    /// The logits of every sample of `dataset`, in order, from the model in evaluation mode: what
    /// DER stores. Returns them row after row, with the width of a row; NaN where a logit means
    /// nothing, because its unit is masked or beyond the head of the sample's task.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if one of the others is not a number: the model has diverged.
    pub(crate) fn compute_dataset_logits(
        &mut self,
        dataset: &ClassificationDataset,
    ) -> Result<(Vec<f32>, usize)> {
        // The seed that PyTorch's loader draws for its workers.
        self.tape.generator().random_i64();
        let (mut out, mut width) = (Vec::new(), 0);
        let mut units: BTreeMap<u32, Option<Vec<bool>>> = BTreeMap::new();
        let n = dataset.len();
        for start in (0..n).step_by(self.train_mb_size) {
            self.clear_batch();
            let end = n.min(start + self.train_mb_size);
            self.append(dataset, Group::Eval, start..end);
            let logits = self.forward(Mode::Eval);
            width = self.tape.shape(logits).dim(1);
            out.extend_from_slice(&self.scratch);
            let rows = out[start * width..].chunks_exact_mut(width);
            for (row, &task) in rows.zip(&self.mb_task_id) {
                let units = (units.entry(task))
                    .or_insert_with(|| self.model.active_units(&self.tape, task));
                for (j, logit) in row.iter_mut().enumerate() {
                    let used = |units: &Vec<bool>| units.get(j) == Some(&true);
                    if !units.as_ref().is_none_or(used) {
                        *logit = f32::NAN;
                    } else if !logit.is_finite() {
                        return Err(Error::NonFinite(format!(
                            "a logit of a sample to be stored is {logit}: expected a finite number; \
                             lower the learning rate (now {})",
                            self.optimizer.lr
                        )));
                    }
                }
            }
        }
        self.clear_batch();
        Ok((out, width))
    }
}
