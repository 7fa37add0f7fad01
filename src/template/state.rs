//! Everything that plugins and methods may look at and change.

use super::adaptation::Seen;
use super::inputs::{PixelBatch, inputs, logits};
use super::loader::Endless;
use super::outcomes::Outcomes;
use super::passes::Penalty;
use super::{Clock, Criterion, LoaderOptions, LossTerms, MetricData, Prefetch};
use crate::benchmarks::Experience;
use crate::data::{ClassificationDataset, Group};
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::Buffer;
use crate::rng::{CounterKey, Purpose};
use crate::snapshot::Snapshot;
use crate::tape::{Mode, Tape, Var};
use ndarray::{ArrayView2, ArrayView4};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::OnceLock;

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
    pub(super) reads_logits: bool,
    /// The loss of the last mini-batch, as far as it is known here.
    pub(super) loss: LossTerms,
    /// The loss of an evaluation that is on the device until somebody looks.
    pub(super) late_loss: Option<Var>,
    /// What somebody looked at.
    pub(super) fetched_loss: OnceLock<LossTerms>,
    pub(super) outcomes: Outcomes,
    /// The loss that the terms were noted of, with its value.
    pub(super) noted_loss: Option<(Var, f32)>,
    /// The samples being gathered.
    picked: Vec<usize>,
    /// The different experiences that the model was adapted to, in order.
    pub(super) seen: Vec<Seen>,
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
            loss: LossTerms::default(),
            late_loss: None,
            fetched_loss: OnceLock::new(),
            outcomes: Outcomes::default(),
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
            loss: self.loss(),
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
        self.loader = LoaderOptions {
            num_workers: self.loader.num_workers,
            prefetch_factor: self.loader.prefetch_factor,
            ..kept.loader
        };
        self.train_epochs = kept.train_epochs;
        self.train_mb_size = kept.train_mb_size;
        self.eval_mb_size = kept.eval_mb_size;
        self.clock = kept.clock;
        self.last_metrics = kept.last_metrics;
        self.set_loss(kept.loss);
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
        match self.tape.has_own_memory() {
            // The device keeps a copy of what somebody refers to.
            true => self.mb_pixels.clear(),
            false => self.mb_pixels.truncate(0),
        }
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
        self.append_ahead(dataset, group, samples, None, |_, _| false);
    }

    /// As [`append`](Self::append), from rows that were gathered ahead if there are workers;
    /// `upcoming` is told in [`Prefetch::take`].
    pub(crate) fn append_ahead(
        &mut self,
        dataset: &ClassificationDataset,
        group: Group,
        samples: impl Iterator<Item = usize>,
        ahead: Option<&mut Prefetch>,
        upcoming: impl Fn(usize, &mut Vec<usize>) -> bool,
    ) {
        self.shape = dataset.shape();
        let size = self.shape.iter().product::<usize>();
        let key = self.augmentation_key();
        self.picked.clear();
        self.picked.extend(samples);
        let row = |r: usize, key| dataset.pixel_row(self.picked[r], group, key);
        let workers = ahead.is_some() && !self.tape.has_own_memory();
        let device = !workers && self.leaves_to_device(dataset.is_costly(group));
        if !(device && (self.mb_pixels).extend(self.picked.len(), group, key, row)) {
            self.write_pixels();
            let rows = &mut self.mb_x;
            let start = rows.len();
            let gathered =
                start == 0 && ahead.is_some_and(|a| a.take(&self.picked, key, rows, upcoming));
            if !gathered {
                rows.resize(start + self.picked.len() * size, 0.0);
                dataset.gather(&self.picked, group, key, &mut rows[start..]);
            }
        }
        for &i in &self.picked {
            self.mb_y.push(dataset.target(i));
            self.mb_task_id.push(dataset.task_label(i));
            self.mb_samples.push(i as u32);
        }
    }

    /// Workers for a pass of `batches` mini-batches over `dataset`; none where the device makes rows of bytes in
    /// less time than it takes to hand them over, and perhaps multiplies the bytes as they are.
    ///
    /// # Errors
    /// As [`Prefetch::new`].
    pub(crate) fn gather_ahead(
        &self,
        dataset: &ClassificationDataset,
        group: Group,
        batches: usize,
    ) -> Result<Option<Prefetch>> {
        if self.tape.makes_rows() && dataset.is_looked_up(group) {
            return Ok(None);
        }
        Prefetch::new(dataset, group, batches, self.loader)
    }

    /// Appends up to `size` samples of `dataset` from `start` on, as in evaluation.
    pub(crate) fn append_in_order(
        &mut self,
        dataset: &ClassificationDataset,
        start: usize,
        size: usize,
        ahead: Option<&mut Prefetch>,
    ) {
        let n = dataset.len();
        let batch = |k: usize| n.min(start + k * size)..n.min(start + (k + 1) * size);
        self.append_ahead(dataset, Group::Eval, batch(0), ahead, |k, samples| {
            samples.extend(batch(k));
            !batch(k).is_empty()
        });
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
        self.append_items(batch, true, true);
        self.rotate_inputs(batch.len());
        self.mb_y.rotate_right(batch.len());
        self.mb_task_id.rotate_right(batch.len());
    }

    /// Appends the samples `slots` of the buffer to the mini-batch, with their stored logits if
    /// `logits`; they may be put to the `front` later.
    pub(super) fn append_items(&mut self, slots: &[u32], logits: bool, front: bool) {
        self.append_item_inputs(slots, front);
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

    /// The logits that [`forward`](Self::forward) computed, row after row.
    pub(crate) fn logits(&self) -> &[f32] {
        let (here, fetched) = (&self.host_logits, &self.fetched_logits);
        logits(here, fetched, &self.tape, self.mb_output)
    }
}
