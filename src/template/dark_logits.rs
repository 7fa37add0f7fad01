//! The logits that Dark Experience Replay stores.

use std::collections::BTreeMap;

use super::State;
use crate::data::{ClassificationDataset, Group};
use crate::error::{Error, Result};
use crate::tape::Mode;

impl State {
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
        let (n, size) = (dataset.len(), self.train_mb_size);
        let batches = n.div_ceil(size);
        let mut ahead = self.gather_ahead(dataset, Group::Eval, batches)?;
        for start in (0..n).step_by(size) {
            self.clear_batch();
            self.append_in_order(dataset, start, size, ahead.as_mut());
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
