//! Replay as the paper has it: rows behind the current ones, and a buffer that is offered every
//! mini-batch.

use super::{State, inputs};
use crate::replay::Buffer;
use std::ops::Range;

impl State {
    /// Draws up to `count` samples of the global reservoir, independently of all draws before, and
    /// appends them to the mini-batch, with their stored logits if `logits`. Returns their rows.
    pub(crate) fn append_draw(
        &mut self,
        count: usize,
        logits: bool,
        picked: &mut Vec<u32>,
    ) -> Range<usize> {
        let first = self.mb_y.len();
        let Some(Buffer::Global(buffer)) = &self.storage_policy else {
            return first..first;
        };
        buffer.draw(count, self.tape.generator(), picked);
        self.append_items(picked, logits, false);
        first..self.mb_y.len()
    }

    /// Offers the current samples, which are the first rows of the mini-batch, to the global
    /// reservoir, with the logits of this iteration's forward pass if `logits`.
    pub(crate) fn offer_current(&mut self, logits: bool) {
        let (Some(Buffer::Global(buffer)), Some(dataset)) =
            (&mut self.storage_policy, &self.adapted_dataset)
        else {
            return;
        };
        let rows = logits.then(|| {
            let (here, fetched) = (&self.host_logits, &self.fetched_logits);
            let values = inputs::logits(here, fetched, &self.tape, self.mb_output);
            (values, values.len() / self.mb_y.len().max(1))
        });
        buffer.update(dataset, &self.mb_samples, rows, self.tape.generator());
    }
}
