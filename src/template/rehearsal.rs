//! Replay as the paper has it: rows behind the current ones, and a buffer that is offered every
//! mini-batch.

use super::{State, inputs};
use crate::replay::{Buffer, Item};
use std::ops::Range;

/// The slots of the buffer that two draws took.
#[derive(Default)]
pub(crate) struct TwoDraws {
    first: Vec<u32>,
    second: Vec<u32>,
    /// Those in both.
    both: Vec<u32>,
    /// For each slot whether the second draw has it.
    in_second: Vec<bool>,
}

impl TwoDraws {
    /// Moves what both have, of a buffer of `stored` samples, to the end of the first and out of the
    /// second; returns how much that is.
    fn share(&mut self, stored: usize) -> usize {
        let marks = &mut self.in_second;
        marks.clear();
        marks.resize(stored, false);
        (self.second.iter()).for_each(|&slot| marks[slot as usize] = true);
        self.both.clear();
        self.first.retain(|&slot| {
            let shared = std::mem::take(&mut marks[slot as usize]);
            self.both.extend(shared.then_some(slot));
            !shared
        });
        self.second.retain(|&slot| marks[slot as usize]);
        self.first.extend(&self.both);
        self.both.len()
    }
}

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

    /// Two independent draws of up to `count` samples of the global reservoir, appended to the
    /// mini-batch, those of the first with their stored logits. Returns the rows of each draw. A sample
    /// in both is one row of both if [that is the same](Self::may_share_rows).
    pub(crate) fn append_two_draws(
        &mut self,
        count: usize,
        draws: &mut TwoDraws,
    ) -> [Range<usize>; 2] {
        let start = self.mb_y.len();
        let Some(Buffer::Global(buffer)) = &self.storage_policy else {
            return [start..start, start..start];
        };
        for draw in [&mut draws.first, &mut draws.second] {
            buffer.draw(count, self.tape.generator(), draw);
        }
        let drawn = |&slot: &u32| &buffer.items()[slot as usize];
        let first = draws.first.iter().map(drawn);
        let both = match self.may_share_rows(first) {
            true => draws.share(buffer.items().len()),
            false => 0,
        };
        self.append_items(&draws.first, true, false);
        let end = self.mb_y.len();
        self.append_items(&draws.second, false, false);
        [start..end, end - both..self.mb_y.len()]
    }

    /// Whether a sample of the buffer that a step needs twice may be one row of its mini-batch: neither
    /// the other rows nor chance may have a part in what the model makes of it. A GPU gets all rows: it
    /// repeats the step before at once if that had as many.
    fn may_share_rows<'a>(&self, mut samples: impl Iterator<Item = &'a Item>) -> bool {
        self.model.treats_rows_apart()
            && !self.tape.has_own_memory()
            && samples.all(|sample| !sample.transforms.train.is_random())
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
