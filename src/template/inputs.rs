//! Inputs and outputs of the model for a mini-batch, on the host and on a device with memory of its own.
//!
//! There the rows of a mini-batch are not made on the host: the device has the pixels and is told where
//! each row comes from. Nor are the logits copied back until somebody looks at them. The CPU makes rows too,
//! in the place where the step wants them, which saves a copy; but rows that loader workers have gathered
//! ahead, and those that are worth several threads, it takes as they are.

use std::ops::Range;
use std::sync::OnceLock;

use super::State;
use crate::data::{Group, gather_rows, row_key};
use crate::pixels::{Cutout, PixelRow, PixelRowRef};
use crate::rng::CounterKey;
use crate::tape::{Tape, Var};

/// The last rows of a mini-batch, made by the device; none if the host makes all.
#[derive(Default)]
pub(crate) struct PixelBatch {
    /// Those of this mini-batch, and behind them some of earlier ones: most of what a row refers to is in the
    /// next row in its place again.
    made: Vec<PixelRow>,
    len: usize,
    /// All rows on the host, once they are asked for.
    written: OnceLock<Vec<f32>>,
}

impl PixelBatch {
    /// Drops all rows, and what is kept of earlier ones.
    pub fn clear(&mut self) {
        self.made.clear();
        self.truncate(0);
    }

    /// Drops the rows from `n` on.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
        self.written.take();
    }

    fn rows(&self) -> &[PixelRow] {
        &self.made[..self.len]
    }

    fn rows_mut(&mut self) -> &mut [PixelRow] {
        self.written.take();
        &mut self.made[..self.len]
    }

    /// Appends `n` rows, with keys as [`gather_rows`](crate::data::gather_rows) has them. If one of them
    /// needs the host, appends none and returns false.
    pub fn extend<'a>(
        &mut self,
        n: usize,
        group: Group,
        key: CounterKey,
        row: impl Fn(usize, Option<CounterKey>) -> Option<PixelRowRef<'a>>,
    ) -> bool {
        self.written.take();
        for r in 0..n {
            let Some(row) = row(r, row_key(group, key, r)) else {
                return false;
            };
            match self.made.get_mut(self.len + r) {
                Some(old) => row.replace(old),
                None => self.made.push(row.to_row()),
            }
        }
        self.len += n;
        true
    }

    /// All rows of the mini-batch, which begins with `values`.
    fn values<'a>(&'a self, values: &'a [f32], shape: [usize; 3]) -> &'a [f32] {
        if self.rows().is_empty() {
            return values;
        }
        let len = self.len * shape.iter().product::<usize>();
        self.written
            .get_or_init(|| [values, &PixelRow::write_all(self.rows(), len)].concat())
    }
}

/// What the model sees of a mini-batch: images of `shape`, first those that are numbers, then those that are
/// rows of pixels.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub values: &'a [f32],
    pub pixels: &'a PixelBatch,
    pub shape: [usize; 3],
}

/// The inputs of a state, whose other fields stay free to be changed.
macro_rules! inputs {
    ($state:ident) => {
        $crate::template::inputs::Inputs {
            values: &$state.mb_x,
            pixels: &$state.mb_pixels,
            shape: $state.shape,
        }
    };
}
pub(super) use inputs;

impl Inputs<'_> {
    /// The images `rows` as an input of the running step.
    #[track_caller]
    pub fn on(self, tape: &mut Tape, rows: Range<usize>) -> Var {
        let [c, h, w] = self.shape;
        let dims = [rows.len(), c, h, w];
        let size = c * h * w;
        let made = self.pixels.rows();
        if made.is_empty() {
            return tape.input(&dims, &self.values[rows.start * size..rows.end * size]);
        }
        let host = self.values.len() / size.max(1);
        let values = &self.values[rows.start.min(host) * size..rows.end.min(host) * size];
        let made = &made[rows.start.saturating_sub(host)..rows.end.saturating_sub(host)];
        tape.pixels(&dims, values, made)
    }
}

/// The logits of the mini-batch on the host: those that are there, or else a copy of `output`.
pub(super) fn logits<'a>(
    here: &'a [f32],
    fetched: &'a OnceLock<Vec<f32>>,
    tape: &Tape,
    output: Option<Var>,
) -> &'a [f32] {
    let Some(output) = output.filter(|_| here.is_empty()) else {
        return here;
    };
    fetched.get_or_init(|| {
        let mut values = Vec::new();
        tape.copy_into(output, &mut values);
        values
    })
}

impl State {
    /// The numbers of [`mb_x`](Self::mb_x).
    pub(super) fn input_values(&self) -> &[f32] {
        self.mb_pixels.values(&self.mb_x, self.shape)
    }

    /// Makes on the host what was left to the device, because rows come that the device cannot make.
    pub(super) fn write_pixels(&mut self) {
        if !self.mb_pixels.rows().is_empty() {
            self.mb_x = self.input_values().to_vec();
            self.mb_pixels.clear();
        }
    }

    /// Whether the device rather than the host makes the next rows of the mini-batch, which are `costly` or not.
    pub(super) fn leaves_to_device(&self, costly: bool) -> bool {
        match self.tape.has_own_memory() {
            true => self.mb_x.is_empty(),
            false => self.tape.makes_rows() && !costly,
        }
    }

    /// Leaves the inputs of these samples of the buffer to the device; false if the host must make them.
    fn append_item_rows(&mut self, slots: &[u32], costly: bool) -> bool {
        let key = self.augmentation_key();
        let Some(buffer) = &self.storage_policy else {
            return true;
        };
        let row = |r: usize, key| {
            let item = buffer.item(slots[r] as usize);
            item.raw.pixel_row(&item.transforms.train, key)
        };
        self.leaves_to_device(costly)
            && (self.mb_pixels).extend(slots.len(), Group::Train, key, row)
    }

    /// Makes the inputs of these samples of the buffer, or leaves them to the device. If they are to come
    /// to the `front`, all rows are of one kind.
    pub(super) fn append_item_inputs(&mut self, slots: &[u32], front: bool) {
        let costly = self.storage_policy.as_ref().is_some_and(|buffer| {
            (slots.iter()).any(|&slot| buffer.item(slot as usize).transforms.train.is_costly())
        });
        let mixed = front && !self.mb_x.is_empty();
        if mixed || !self.append_item_rows(slots, costly) {
            self.write_pixels();
            self.gather_items(slots, costly);
        }
    }

    /// Makes the inputs of these samples of the buffer.
    fn gather_items(&mut self, slots: &[u32], costly: bool) {
        let key = self.augmentation_key();
        let Some(buffer) = &self.storage_policy else {
            return;
        };
        let item = |row: usize| buffer.item(slots[row] as usize);
        let size = self.shape.iter().product::<usize>();
        let start = self.mb_x.len();
        self.mb_x.resize(start + slots.len() * size, 0.0);
        let (rows, train) = (&mut self.mb_x[start..], Group::Train);
        gather_rows(slots.len(), costly, train, key, rows, |row, key, out| {
            item(row).write_sample(train, key, out);
        });
    }

    /// Puts the last `n` rows of the inputs first; all are of one kind.
    pub(super) fn rotate_inputs(&mut self, n: usize) {
        debug_assert!(self.mb_x.is_empty() || self.mb_pixels.rows().is_empty());
        if self.mb_pixels.rows().is_empty() {
            self.mb_x
                .rotate_right(n * self.shape.iter().product::<usize>());
        } else {
            self.mb_pixels.rows_mut().rotate_right(n);
        }
    }

    /// Mirrors all inputs left to right.
    pub(super) fn mirror_inputs(&mut self) {
        let [_, height, width] = self.shape;
        (self.mb_x.chunks_exact_mut(width.max(1))).for_each(<[f32]>::reverse);
        for row in self.mb_pixels.rows_mut() {
            // An image that nothing is cut out of is told as a single long row.
            if row.cutout.size == [1, height * width] {
                row.cutout = Cutout::whole([height, width]);
            }
            row.cutout.mirror();
        }
    }

    /// The value of a loss on the tape.
    pub(crate) fn loss_value(&self, loss: Var) -> f32 {
        match self.noted_loss {
            Some((noted, value)) if noted == loss => value,
            _ => self.tape.item(loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use std::sync::Arc;

    #[test]
    fn a_mini_batch_has_its_own_rows_and_none_of_an_earlier_one() {
        let pixels: Arc<[u8]> = (0..12).collect();
        let tables: Arc<[[f32; 256]]> = [std::array::from_fn(|byte| byte as f32)].into();
        let row = |first: usize| PixelRowRef {
            pixels: &pixels,
            first,
            map: None,
            tables: &tables,
            cutout: Cutout::whole([1, 2]),
        };
        let key = CounterKey {
            seed: 0,
            purpose: Purpose::Augmentation,
            step: 0,
            sample: 0,
        };
        let mut batch = PixelBatch::default();
        let append = |batch: &mut PixelBatch, rows: &[Option<usize>]| {
            let made = |r: usize, _| rows[r].map(&row);
            let all = batch.extend(rows.len(), Group::Train, key, made);
            (all, batch.values(&[], [1, 1, 2]).to_vec())
        };
        let (all, values) = append(&mut batch, &[Some(0), Some(2), Some(4)]);
        assert_eq!((all, values), (true, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        batch.truncate(0);
        let (all, values) = append(&mut batch, &[Some(8)]);
        assert_eq!((all, values), (true, vec![8.0, 9.0]));
        let (all, values) = append(&mut batch, &[Some(6), None]);
        assert_eq!(
            (all, values),
            (false, vec![8.0, 9.0]),
            "the host makes these"
        );
        let (all, values) = append(&mut batch, &[Some(10), Some(2)]);
        assert_eq!((all, values), (true, vec![8.0, 9.0, 10.0, 11.0, 2.0, 3.0]));
    }
}
