//! The outcomes of an evaluation on a device with memory of its own.

use super::{Tape, Var};

impl Tape {
    /// Notes the outcome of a mini-batch on the device: see `Graph::note_outcome`.
    #[track_caller]
    pub(crate) fn note_outcome(&mut self, logits: Var, loss: Var, classes: &[u32]) -> bool {
        on!(self, g => g.note_outcome(logits, loss, classes))
    }

    /// What was noted since the last time: see `Graph::take_outcomes`.
    pub(crate) fn take_outcomes(&mut self, out: &mut Vec<f32>) {
        on!(self, g => g.take_outcomes(out));
    }

    /// Whether `v` belongs to the running step.
    pub(crate) fn is_live(&self, v: Var) -> bool {
        on!(self, g => g.is_live(v))
    }
}
