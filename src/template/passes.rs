//! What plugins and methods do besides the step itself: penalties, forward passes with other
//! weights, passes over other samples.

use super::State;
use crate::data::{ClassificationDataset, Group};
use crate::tape::{Mode, Var, Weights};

/// What plugins have added to the loss outside of the tape, in the current iteration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Penalty {
    value: f64,
    /// Empty if there is none.
    gradient: Vec<f32>,
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
        let (model, n) = (&self.model, self.mb_y.len());
        let ([c, h, w], x) = (self.shape, &self.mb_x);
        self.tape.with_weights(weights, |tape| {
            tape.no_grad(|tape| {
                let x = tape.input(&[n, c, h, w], x);
                model.forward(tape, x)
            })
        })
    }

    /// Runs `work` with an empty mini-batch and puts the present one back. The step on the tape is
    /// over afterwards, so this is for the points outside of one: before the forward pass, or after
    /// the step of the optimizer.
    pub(crate) fn aside<T>(&mut self, work: impl FnOnce(&mut State) -> T) -> T {
        let x = std::mem::take(&mut self.mb_x);
        let y = std::mem::take(&mut self.mb_y);
        let tasks = std::mem::take(&mut self.mb_task_id);
        let stored = std::mem::take(&mut self.mb_logits_stored);
        let (loss, rows, shape) = (self.loss, self.replay_rows, self.shape);
        self.clear_batch();
        let result = work(self);
        self.clear_batch();
        (self.mb_x, self.mb_y, self.mb_task_id) = (x, y, tasks);
        self.mb_logits_stored = stored;
        (self.loss, self.replay_rows, self.shape) = (loss, rows, shape);
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
