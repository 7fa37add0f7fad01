//! Everything that plugins and methods may look at and change.

use super::inputs::{PixelBatch, inputs, logits};
use super::loader::Endless;
use super::passes::Penalty;
use super::{Clock, Criterion, LoaderOptions, MetricData};
use crate::benchmarks::Experience;
use crate::data::{ClassificationDataset, Group};
use crate::error::{Error, Result};
use crate::nn::{Adaptation, Module};
use crate::optim::Sgd;
use crate::replay::Buffer;
use crate::rng::{CounterKey, Purpose};
use crate::snapshot::Snapshot;
use crate::tape::{LossRows, Mode, Tape, Var};
use ndarray::{ArrayView2, ArrayView4};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::OnceLock;

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

/// Which rows of a mini-batch each term of the loss of Dark Experience Replay is a mean of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct DarkRows {
    /// The cross-entropy of the current data.
    pub current: Range<usize>,
    /// The mean squared error of the stored logits.
    pub logits: Range<usize>,
    /// The cross-entropy of the replayed labels.
    pub labels: Range<usize>,
}

/// The state of a strategy, under Avalanche's names.
///
/// A mini-batch holds `n` samples; after the forward pass of a training iteration with replay the
/// first [`replay_rows`](Self::replay_rows) of them come from the buffer (in the paper's methods the
/// last).
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
    /// How many rows of the mini-batch come from the replay buffer.
    pub replay_rows: usize,
    /// True from the start of `train` to its end.
    pub is_training: bool,
    /// Stored logits of the replay rows, row after row (Avalanche's `batch_logits`); NaN where a unit
    /// was masked when the sample was stored.
    pub mb_logits_stored: Vec<f32>,
    /// How wide each of these rows is: a head may have grown since.
    pub mb_logit_widths: Vec<u32>,
    pub(crate) mb_x: Vec<f32>,
    /// In the place of `mb_x`, if the device makes the rows.
    pub(crate) mb_pixels: PixelBatch,
    pub(crate) shape: [usize; 3],
    pub(crate) stop: bool,
    pub(crate) evaluation_requested: bool,
    pub(super) penalty: Penalty,
    /// The samples of the adapted data set that were put into the mini-batch.
    pub(crate) mb_samples: Vec<u32>,
    /// Sizes of the groups of rows that batch normalisation treats apart; none: all together.
    pub(crate) mb_groups: Vec<usize>,
    /// The logits; empty if they are on the device until somebody looks at them.
    pub(super) host_logits: Vec<f32>,
    /// What somebody looked at.
    pub(super) fetched_logits: OnceLock<Vec<f32>>,
    /// Whether somebody looked in the step before: who does will look again.
    reads_logits: bool,
    /// The loss that the terms were noted of, with its value.
    pub(super) noted_loss: Option<(Var, f32)>,
    /// The samples being gathered.
    picked: Vec<usize>,
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
            mb_pixels: PixelBatch::default(),
            shape: [0; 3],
            stop: false,
            evaluation_requested: false,
            penalty: Penalty::default(),
            mb_samples: Vec::new(),
            mb_groups: Vec::new(),
            host_logits: Vec::new(),
            fetched_logits: OnceLock::new(),
            reads_logits: false,
            noted_loss: None,
            picked: Vec::new(),
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

    /// Forgets the momentum of every parameter, as `train(..., reset_optimizer_state=True)` does in
    /// Avalanche. Otherwise it is carried on from experience to experience.
    pub fn reset_optimizer_state(&mut self) {
        self.tape.reset_momentum();
    }

    /// The opposite of [`is_training`](Self::is_training).
    pub fn is_eval(&self) -> bool {
        !self.is_training
    }

    /// Inputs of the mini-batch as the model sees them, `[n, C, H, W]`.
    pub fn mb_x(&self) -> ArrayView4<'_, f32> {
        let [c, h, w] = self.shape;
        ArrayView4::from_shape((self.mb_y.len(), c, h, w), self.input_values())
            .expect("whole samples")
    }

    /// Logits of the mini-batch, `[n, classes]`; `None` before the forward pass.
    pub fn mb_logits(&self) -> Option<ArrayView2<'_, f32>> {
        let shape = self.tape.shape(self.mb_output?);
        let (dims, logits) = ((shape.dim(0), shape.dim(1)), self.logits());
        (logits.len() == shape.len())
            .then(|| ArrayView2::from_shape(dims, logits).expect("whole rows"))
    }

    pub(crate) fn clear_batch(&mut self) {
        self.mb_x.clear();
        self.mb_pixels.clear();
        self.mb_y.clear();
        self.mb_task_id.clear();
        self.mb_logits_stored.clear();
        self.mb_logit_widths.clear();
        self.mb_samples.clear();
        self.mb_groups.clear();
        self.replay_rows = 0;
        self.penalty.clear();
        self.mb_output = None;
        self.loss_var = None;
        self.noted_loss = None;
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
        let key = self.augmentation_key();
        self.picked.clear();
        self.picked.extend(samples);
        let row = |r: usize, key| dataset.pixel_row(self.picked[r], group, key);
        let by_device = self.tape.has_own_memory() && self.mb_x.is_empty();
        if !(by_device && (self.mb_pixels).extend(self.picked.len(), group, key, row)) {
            self.write_pixels();
            let start = self.mb_x.len();
            self.mb_x.resize(start + self.picked.len() * size, 0.0);
            dataset.gather(&self.picked, group, key, &mut self.mb_x[start..]);
        }
        for &i in &self.picked {
            self.mb_y.push(dataset.target(i));
            self.mb_task_id.push(dataset.task_label(i));
            self.mb_samples.push(i as u32);
        }
    }

    /// The address of the random numbers that vary the next row of the mini-batch: seed of the run,
    /// training iteration, row in the order in which the rows were gathered.
    pub(super) fn augmentation_key(&mut self) -> CounterKey {
        CounterKey {
            seed: self.tape.generator().seed(),
            purpose: Purpose::Augmentation,
            step: self.clock.train_iterations,
            sample: self.mb_y.len() as u32,
        }
    }

    /// Puts up to `count` samples of the buffer in front of the mini-batch.
    pub(crate) fn prepend_replay(&mut self, loader: &mut Endless, count: usize) {
        let stored = self.storage_policy.as_ref().map_or(0, Buffer::len);
        if stored == 0 {
            return;
        }
        let batch = loader.batch(stored, count.min(stored), self.tape.generator());
        self.append_items(batch, true);
        self.rotate_inputs(batch.len());
        self.mb_y.rotate_right(batch.len());
        self.mb_task_id.rotate_right(batch.len());
    }

    /// Appends the samples `slots` of the buffer to the mini-batch, with their stored logits if
    /// `logits`.
    pub(super) fn append_items(&mut self, slots: &[u32], logits: bool) {
        if !self.append_item_inputs(slots) {
            self.write_pixels();
            self.gather_items(slots);
        }
        let Some(buffer) = &self.storage_policy else {
            return;
        };
        let item = |row: usize| buffer.item(slots[row] as usize);
        for row in 0..slots.len() {
            let item = item(row);
            self.mb_y.push(item.target);
            self.mb_task_id.push(item.task_label);
            if logits {
                self.mb_logits_stored.extend_from_slice(&item.logits);
                self.mb_logit_widths.push(item.logits.len() as u32);
            }
        }
        self.replay_rows += slots.len();
    }

    /// Runs the model on the mini-batch in a new step of the tape.
    pub(crate) fn forward(&mut self, mode: Mode) -> Var {
        self.tape.begin(mode);
        self.tape.set_groups(&self.mb_groups);
        let x = inputs!(self).on(&mut self.tape, 0..self.mb_y.len());
        let (tape, tasks) = (&mut self.tape, &self.mb_task_id);
        let logits = self.model.forward_tasks(tape, x, tasks);
        self.mb_output = Some(logits);
        self.reads_logits = self.fetched_logits.take().is_some();
        match self.tape.has_own_memory() {
            true => self.host_logits.clear(),
            false => self.tape.copy_into(logits, &mut self.host_logits),
        }
        logits
    }

    /// Puts other numbers in the place of the model's output for the mini-batch, in an evaluation.
    pub(crate) fn replace_output(&mut self, values: &[f32], width: usize) -> Var {
        let output = self.tape.input(&[self.mb_y.len(), width], values);
        self.mb_output = Some(output);
        self.host_logits.clear();
        self.host_logits.extend_from_slice(values);
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

    /// Records the loss of Dark Experience Replay over the mini-batch:
    /// `criterion(current) + alpha·MSE(logits, stored logits) + beta·criterion(labels)`, each over
    /// its rows; the stored logits are those of the rows of the second term. Without replayed rows it
    /// is the criterion of the current ones alone. A term of weight 0 is not evaluated.
    pub(crate) fn dark_loss(&mut self, logits: Var, rows: &DarkRows, alpha: f32, beta: f32) -> Var {
        let width = self.tape.shape(logits).dim(1);
        // A mean over the rows and over the columns that are compared.
        let alpha_row = f64::from(alpha) / rows.logits.len().max(1) as f64;
        let alpha_each = |columns: usize| alpha_row / columns.max(1) as f64;
        let Some(criterion) = &self.criterion else {
            let new_each = 1.0 / rows.current.len().max(1) as f64;
            let beta_each = f64::from(beta) / rows.labels.len().max(1) as f64;
            let targets = LossRows {
                labels: &self.mb_y,
                current: rows.current.clone(),
                targets: &self.mb_logits_stored,
                first_target: rows.logits.start,
                widths: &self.mb_logit_widths,
            };
            let each = |range: &Range<usize>, row, weight| {
                if range.contains(&row) { weight } else { 0.0 }
            };
            let mut compared = targets.compared(width);
            let loss = self.tape.row_loss(logits, &targets, |row| {
                let ce = each(&rows.current, row, new_each) + each(&rows.labels, row, beta_each);
                if !rows.logits.contains(&row) {
                    return (ce, 0.0);
                }
                (ce, alpha_each(compared.next().unwrap_or(width)))
            });
            drop(compared);
            self.note_terms(loss);
            return loss;
        };
        let tape = &mut self.tape;
        let part = tape.slice(logits, rows.current.clone());
        let current = criterion.loss(tape, part, &self.mb_y[rows.current.clone()]);
        let mut terms = LossTerms {
            current: tape.item(current),
            ..LossTerms::default()
        };
        let mut loss = current;
        if alpha != 0.0 && !rows.logits.is_empty() {
            let targets = LossRows {
                labels: &self.mb_y[rows.logits.clone()],
                current: 0..0,
                targets: &self.mb_logits_stored,
                first_target: 0,
                widths: &self.mb_logit_widths,
            };
            let part = tape.slice(logits, rows.logits.clone());
            let mut compared = targets.compared(width);
            let term = tape.row_loss(part, &targets, |_| {
                (0.0, alpha_each(compared.next().unwrap_or(width)))
            });
            terms.logits = tape.item(term);
            loss = tape.add(loss, term);
        }
        if beta != 0.0 && !rows.labels.is_empty() {
            let part = tape.slice(logits, rows.labels.clone());
            let term = criterion.loss(tape, part, &self.mb_y[rows.labels.clone()]);
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
        self.noted_loss = Some((loss, total));
        if self.reads_logits {
            // Now they cost no more waiting; after the backward pass they would.
            self.logits();
        }
    }

    /// The logits that [`forward`](Self::forward) computed, row after row.
    pub(crate) fn logits(&self) -> &[f32] {
        let (here, fetched) = (&self.host_logits, &self.fetched_logits);
        logits(here, fetched, &self.tape, self.mb_output)
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
            out.extend_from_slice(self.logits());
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
