//! What became of a mini-batch: its loss, and which class the model takes each row for.
//!
//! On a device with memory of its own the outcomes of an evaluation stay there, and so does the host's part
//! of them here, until they are fetched all at once and shown one mini-batch after the other.

use super::{LossTerms, State};
use crate::tape::{Var, argmax};

/// A mini-batch whose outcome is on the device.
struct Held {
    rows: usize,
    /// Columns of its logits.
    width: usize,
}

/// Mini-batches of an evaluation whose outcomes are not known yet.
#[derive(Default)]
pub(super) struct Outcomes {
    held: Vec<Held>,
    /// Their labels and task labels, one after the other.
    labels: Vec<u32>,
    tasks: Vec<u32>,
    /// What was fetched: see `Tape::take_outcomes`.
    numbers: Vec<f32>,
    /// The mini-batch that the state shows, while it shows one: its width, and its first number and the end.
    shown: Option<(usize, [usize; 2])>,
}

impl Outcomes {
    fn forget(&mut self) {
        self.held.clear();
        self.labels.clear();
        self.tasks.clear();
        self.shown = None;
    }

    /// Both predictions of each row of the mini-batch that is shown.
    fn shown(&self) -> Option<&[f32]> {
        let (_, [first, end]) = self.shown?;
        Some(&self.numbers[first + 1..end])
    }
}

impl State {
    /// The loss of the last mini-batch. In an evaluation on a GPU it is fetched when somebody looks, and known
    /// until the next forward pass; then it is that of the last mini-batch that somebody looked at.
    pub fn loss(&self) -> LossTerms {
        let live = |v: &Var| self.tape.is_live(*v);
        match self.late_loss.filter(live) {
            None => self.loss,
            Some(loss) => *self.fetched_loss.get_or_init(|| self.terms_of(loss)),
        }
    }

    /// Notes the loss of the mini-batch, as a method does that computes its own.
    pub fn set_loss(&mut self, loss: LossTerms) {
        self.loss = loss;
        self.late_loss = None;
    }

    /// For each row of the mini-batch the class of its largest logit, the first of equals; no rows before the
    /// forward pass.
    pub fn predictions(&self) -> impl Iterator<Item = Option<u32>> {
        self.guesses(0, |row| argmax(row, 0..row.len() as u32))
    }

    /// As [`predictions`](Self::predictions), if only the classes of the current experience compete, as though
    /// the task were told.
    pub fn task_predictions(&self) -> impl Iterator<Item = Option<u32>> {
        let classes =
            (self.experience.as_ref()).map_or(&[][..], |e| e.classes_in_this_experience());
        self.guesses(1, |row| argmax(row, classes.iter().copied()))
    }

    /// Of how many classes the predictions are.
    pub(crate) fn prediction_width(&self) -> usize {
        match (self.outcomes.shown, self.mb_output) {
            (Some((width, _)), _) => width,
            (None, Some(output)) => self.tape.shape(output).dim(1),
            (None, None) => 0,
        }
    }

    fn guesses(
        &self,
        column: usize,
        of_logits: impl Fn(&[f32]) -> Option<u32>,
    ) -> impl Iterator<Item = Option<u32>> {
        let shown = self.outcomes.shown();
        let logits = match (shown, self.mb_output) {
            (None, Some(_)) => self.logits(),
            _ => &[],
        };
        let noted = shown.unwrap_or(&[]).chunks_exact(2).map(move |both| {
            let guess = both[column];
            (guess >= 0.0).then_some(guess as u32)
        });
        let width = self.prediction_width().max(1);
        noted.chain(logits.chunks_exact(width).map(of_logits))
    }

    /// Begins the evaluation of an experience.
    pub(crate) fn begin_outcomes(&mut self) {
        self.outcomes.forget();
        self.tape.take_outcomes(&mut self.outcomes.numbers);
    }

    /// Notes the outcome of a mini-batch of evaluation, whose logits are `logits`; on a device with memory of
    /// its own without waiting for it. True if what was noted there must be fetched now.
    pub(crate) fn note_outcome(&mut self, logits: Var) -> bool {
        if !self.tape.has_own_memory() {
            self.criterion_loss(logits);
            return false;
        }
        let loss = self.record_criterion(logits);
        (self.late_loss, self.fetched_loss) = (Some(loss), Default::default());
        let held = &mut self.outcomes;
        held.held.push(Held {
            rows: self.mb_y.len(),
            width: self.tape.shape(logits).dim(1),
        });
        held.labels.extend_from_slice(&self.mb_y);
        held.tasks.extend_from_slice(&self.mb_task_id);
        let classes =
            (self.experience.as_ref()).map_or(&[][..], |e| e.classes_in_this_experience());
        self.tape.note_outcome(logits, loss, classes)
    }

    /// Calls `show` with the state of each mini-batch whose outcome was noted, in order: as it was after the
    /// mini-batch, but for inputs and logits, which are gone. At the end it is as before.
    pub(crate) fn show_outcomes<E>(
        &mut self,
        mut show: impl FnMut(&mut State) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.outcomes.held.is_empty() {
            return Ok(());
        }
        self.tape.take_outcomes(&mut self.outcomes.numbers);
        let held = std::mem::take(&mut self.outcomes.held);
        let labels = std::mem::take(&mut self.outcomes.labels);
        let tasks = std::mem::take(&mut self.outcomes.tasks);
        let output = self.mb_output.take();
        let (mut row, mut number) = (0, 0);
        let result = held.into_iter().try_for_each(|Held { rows, width }| {
            let end = number + 1 + 2 * rows;
            let total = self.outcomes.numbers[number];
            self.outcomes.shown = Some((width, [number, end]));
            self.set_loss(LossTerms::of(total));
            self.mb_y.clear();
            self.mb_y.extend_from_slice(&labels[row..row + rows]);
            self.mb_task_id.clear();
            self.mb_task_id.extend_from_slice(&tasks[row..row + rows]);
            (row, number) = (row + rows, end);
            show(self)
        });
        self.outcomes.forget();
        self.mb_output = output;
        result
    }
}
