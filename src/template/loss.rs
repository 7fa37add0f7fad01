//! The loss of a mini-batch: the criterion, and the terms of Dark Experience Replay.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::State;
use crate::tape::{LossRows, Var};

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

impl LossTerms {
    /// A loss of current data alone.
    pub(super) fn of(total: f32) -> Self {
        LossTerms {
            total,
            current: total,
            ..LossTerms::default()
        }
    }
}

impl State {
    /// Records the criterion over all rows of the mini-batch, and notes it as the current loss.
    pub fn criterion_loss(&mut self, logits: Var) -> Var {
        let loss = self.record_criterion(logits);
        match self.criterion {
            None => self.note_terms(loss),
            Some(_) => self.set_loss(LossTerms::of(self.tape.item(loss))),
        }
        loss
    }

    /// Records the criterion over all rows of the mini-batch.
    pub(super) fn record_criterion(&mut self, logits: Var) -> Var {
        match &self.criterion {
            None => self.tape.cross_entropy(logits, &self.mb_y),
            Some(criterion) => criterion.loss(&mut self.tape, logits, &self.mb_y),
        }
    }

    /// The value of the criterion on the tape.
    pub(super) fn terms_of(&self, loss: Var) -> LossTerms {
        LossTerms::of(self.tape.item(loss))
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
        self.set_loss(terms);
        loss
    }

    fn note_terms(&mut self, loss: Var) {
        let [total, current, logits, replay] = self.tape.loss_terms(loss);
        self.set_loss(LossTerms {
            total,
            current,
            logits,
            replay,
        });
        self.noted_loss = Some((loss, total));
        if self.reads_logits {
            // Now they cost no more waiting; after the backward pass they would.
            self.logits();
        }
    }
}
