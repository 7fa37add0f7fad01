//! What plugins and methods do besides the step itself: penalties, forward passes with other
//! weights, passes over other samples.

use std::ops::Range;

use super::State;
use super::inputs::{Inputs, inputs};
use crate::data::{ClassificationDataset, Group};
use crate::nn::Module;
use crate::tape::{Mode, Tape, Var, Weights};

/// What plugins have added to the loss outside of the tape, in the current iteration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Penalty {
    value: f64,
    /// Empty if there is none.
    gradient: Vec<f32>,
}

/// The model's output for some rows of a mini-batch, within the running step.
#[track_caller]
fn forward_rows(
    tape: &mut Tape,
    model: &dyn Module,
    inputs: Inputs<'_>,
    tasks: &[u32],
    rows: Range<usize>,
) -> Var {
    let x = inputs.on(tape, rows.clone());
    model.forward_tasks(tape, x, &tasks[rows])
}

impl Penalty {
    pub fn clear(&mut self) {
        self.value = 0.0;
        self.gradient.clear();
    }
}

impl State {
    /// Adds a term that depends on the parameters alone to the loss of this iteration: its value, and
    /// its gradient as a flat vector (see [`Tape::parameters_flat`](crate::tape::Tape::parameters_flat)).
    /// Call it in `before_backward`. The gradient is added to that of the loss on the tape before
    /// `after_backward`, so projections and clipping see both.
    ///
    /// # Panics
    /// If `gradient` has another length than the parameters.
    #[track_caller]
    pub fn add_penalty(&mut self, value: f64, gradient: &[f32]) {
        assert_eq!(
            gradient.len(),
            self.tape.parameter_count(),
            "add_penalty: a gradient has one number for each number of the parameters"
        );
        self.penalty.value += value;
        let sum = &mut self.penalty.gradient;
        if sum.is_empty() {
            sum.extend_from_slice(gradient);
        } else {
            sum.iter_mut().zip(gradient).for_each(|(s, g)| *s += g);
        }
    }

    /// The sum of the penalties of this iteration.
    pub(crate) fn penalty(&self) -> f32 {
        self.penalty.value as f32
    }

    /// Adds the gradients of the penalties to those of the tape, once.
    pub(crate) fn apply_penalty(&mut self) {
        if !self.penalty.gradient.is_empty() {
            self.tape.add_gradients(&self.penalty.gradient);
        }
        self.penalty.clear();
    }

    /// The model's output for the mini-batch with other weights, as in evaluation, within the
    /// running step: what a teacher says. No gradient flows through it.
    ///
    /// # Panics
    /// If the weights are of another model.
    #[track_caller]
    pub fn forward_with(&mut self, weights: &Weights) -> Var {
        let (model, rows, tasks) = (&self.model, 0..self.mb_y.len(), &self.mb_task_id);
        let inputs = inputs!(self);
        self.tape.with_weights(weights, |tape| {
            tape.no_grad(|tape| forward_rows(tape, model, inputs, tasks, rows))
        })
    }

    /// The model's output for the mini-batch as if all of it were of one task, within the running
    /// step: first with its own weights, with a gradient, and then as
    /// [`forward_with`](Self::forward_with) has it.
    pub(crate) fn forward_task(&mut self, task: u32, weights: &Weights) -> (Var, Var) {
        let own = std::mem::take(&mut self.mb_task_id);
        self.mb_task_id.resize(own.len(), task);
        let (rows, tasks) = (0..own.len(), &self.mb_task_id);
        let (model, inputs) = (&self.model, inputs!(self));
        let now = forward_rows(&mut self.tape, model, inputs, tasks, rows);
        let then = self.forward_with(weights);
        self.mb_task_id = own;
        (now, then)
    }

    /// Appends samples to the mini-batch that are not of the data trained on, so that no method takes
    /// them for such.
    pub(crate) fn append_beside(
        &mut self,
        dataset: &ClassificationDataset,
        samples: impl Iterator<Item = usize>,
    ) {
        let own = self.mb_samples.len();
        self.append(dataset, Group::Train, samples);
        self.mb_samples.truncate(own);
    }

    /// The logits of other samples, as in evaluation, within the running step, with the width of a
    /// row; with other weights if some are given.
    pub(crate) fn logits_beside(
        &mut self,
        dataset: &ClassificationDataset,
        samples: &[usize],
        weights: Option<&Weights>,
    ) -> (Vec<f32>, usize) {
        let n = self.mb_y.len();
        self.append_beside(dataset, samples.iter().copied());
        let (model, rows, tasks) = (&self.model, n..self.mb_y.len(), &self.mb_task_id);
        let inputs = inputs!(self);
        let run = |tape: &mut Tape| forward_rows(tape, model, inputs, tasks, rows.clone());
        let logits = match weights {
            Some(weights) => (self.tape).with_weights(weights, |tape| tape.no_grad(run)),
            None => self.tape.no_grad(run),
        };
        self.truncate(n);
        let mut values = Vec::new();
        self.tape.copy_into(logits, &mut values);
        (values, self.tape.shape(logits).dim(1))
    }

    /// The criterion of other samples within the running step, with its gradient. They do not become
    /// part of the mini-batch.
    pub(crate) fn criterion_beside(
        &mut self,
        dataset: &ClassificationDataset,
        samples: &[usize],
    ) -> Var {
        let n = self.mb_y.len();
        self.append_beside(dataset, samples.iter().copied());
        let (rows, tasks, inputs) = (n..self.mb_y.len(), &self.mb_task_id, inputs!(self));
        let logits = forward_rows(&mut self.tape, &self.model, inputs, tasks, rows);
        let labels = &self.mb_y[n..];
        let loss = match &self.criterion {
            None => self.tape.cross_entropy(logits, labels),
            Some(criterion) => criterion.loss(&mut self.tape, logits, labels),
        };
        self.truncate(n);
        loss
    }

    /// Drops the rows of the mini-batch from `n` on.
    fn truncate(&mut self, n: usize) {
        let size = self.shape.iter().product::<usize>();
        let of_host = self.mb_x.len() / size.max(1);
        self.mb_x.truncate(n * size);
        self.mb_pixels.truncate(n.saturating_sub(of_host));
        self.mb_y.truncate(n);
        self.mb_task_id.truncate(n);
    }

    /// The features of the mini-batch within the running step, with the width of a row.
    pub(crate) fn mini_batch_features(&mut self) -> (Vec<f32>, usize) {
        let backbone = self.model.backbone().expect("checked by the builder");
        let x = inputs!(self).on(&mut self.tape, 0..self.mb_y.len());
        let features = backbone.features(&mut self.tape, x);
        let mut values = Vec::new();
        self.tape.copy_into(features, &mut values);
        (values, self.tape.shape(features).dim(1))
    }

    /// The features of all samples of `dataset`, or of their mirror images, in order and as in
    /// evaluation, with the width of a row.
    pub(crate) fn features(
        &mut self,
        dataset: &ClassificationDataset,
        mirrored: bool,
    ) -> (Vec<f32>, usize) {
        let (n, batch) = (dataset.len(), self.eval_mb_size);
        self.aside(|s| {
            let (mut out, mut width) = (Vec::new(), 1);
            for start in (0..n).step_by(batch) {
                s.clear_batch();
                s.append(dataset, Group::Eval, start..n.min(start + batch));
                if mirrored {
                    s.mirror_inputs();
                }
                s.tape.begin(Mode::Eval);
                let (features, size) = s.mini_batch_features();
                out.extend_from_slice(&features);
                width = size;
            }
            (out, width)
        })
    }

    /// Runs `work` with an empty mini-batch and puts the present one back. The step on the tape is
    /// over afterwards, so this is for the points outside of one: before the forward pass, or after
    /// the step of the optimizer.
    pub(crate) fn aside<T>(&mut self, work: impl FnOnce(&mut State) -> T) -> T {
        let x = std::mem::take(&mut self.mb_x);
        let pixels = std::mem::take(&mut self.mb_pixels);
        let y = std::mem::take(&mut self.mb_y);
        let tasks = std::mem::take(&mut self.mb_task_id);
        let stored = std::mem::take(&mut self.mb_logits_stored);
        let widths = std::mem::take(&mut self.mb_logit_widths);
        let samples = std::mem::take(&mut self.mb_samples);
        let groups = std::mem::take(&mut self.mb_groups);
        let (loss, rows, shape) = (self.loss(), self.replay_rows, self.shape);
        self.clear_batch();
        let result = work(self);
        self.clear_batch();
        (self.mb_x, self.mb_y, self.mb_task_id) = (x, y, tasks);
        self.mb_pixels = pixels;
        (self.mb_logits_stored, self.mb_logit_widths) = (stored, widths);
        (self.mb_samples, self.mb_groups) = (samples, groups);
        self.set_loss(loss);
        (self.replay_rows, self.shape) = (rows, shape);
        result
    }

    /// Calls `each` with the gradient of `loss` over each mini-batch of `dataset`, in order and in
    /// evaluation mode; the running statistics stay as they are. Draws the seed that PyTorch's loader
    /// draws for its workers.
    pub(crate) fn for_each_gradient(
        &mut self,
        dataset: &ClassificationDataset,
        loss: impl Fn(&mut State, Var) -> Var,
        mut each: impl FnMut(&[f32]),
    ) {
        self.tape.generator().random_i64();
        let (n, size) = (dataset.len(), self.train_mb_size);
        self.aside(|s| {
            let mut gradient = Vec::new();
            for start in (0..n).step_by(size) {
                s.clear_batch();
                s.append(dataset, Group::Train, start..n.min(start + size));
                let logits = s.forward(Mode::EvalWithGrad);
                let loss = loss(s, logits);
                s.tape.backward(loss);
                s.tape.gradients(&mut gradient);
                each(&gradient);
            }
        });
    }
}
