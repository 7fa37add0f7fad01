//! Accuracies over samples: the largest logit, the largest among a task's classes.

use super::{At, MeanMetric, Metric};
use crate::template::State;

/// Avalanche's `accuracy_metrics`: correct predictions over samples, 0 to 1, pooled over samples
/// (so the accuracy of a stream is not the mean of its experiences' accuracies). A prediction is
/// the first of the largest logits. During training replayed rows count too.
///
/// Names: `Top1_Acc_MB`, `Top1_Acc_Epoch`, `Top1_RunningAcc_Epoch`, `Top1_Acc_Exp`,
/// `Top1_Acc_Stream`, `Accuracy_On_Trained_Experiences`.
pub fn accuracy_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| {
            let name = match at {
                At::TrainedExperience => "Accuracy_On_Trained_Experiences".to_string(),
                _ => at.named("Top1_", "Acc"),
            };
            Box::new(MeanMetric::new(name, at, accuracy).of_outcomes()) as Box<dyn Metric>
        })
        .collect()
}

/// Task-incremental accuracy of a class-incremental run: only the logits of the classes of the
/// current experience compete, as if the task were told. In training, replayed rows, which belong
/// to other experiences, do not count. Not in Avalanche; Mammoth prints it as `Task-IL`.
///
/// Names: `Top1_TaskIL_Acc_Exp`, `Top1_TaskIL_Acc_Stream`,
/// `Top1_TaskIL_Acc_On_Trained_Experiences`, `Top1_TaskIL_Acc_Epoch`,
/// `Top1_TaskIL_RunningAcc_Epoch`, `Top1_TaskIL_Acc_MB`.
pub fn task_incremental_accuracy_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| {
            let name = at.named("Top1_TaskIL_", "Acc");
            Box::new(MeanMetric::new(name, at, task_incremental).of_outcomes()) as Box<dyn Metric>
        })
        .collect()
}

/// The accuracy of the mini-batch, and its size.
pub(super) fn accuracy(s: &State) -> (f64, f64) {
    share(s, 0, s.predictions())
}

fn task_incremental(s: &State) -> (f64, f64) {
    share(s, s.replay_rows, s.task_predictions())
}

/// The share of the mini-batch's rows from row `first` on that are predicted rightly, and their number.
fn share(s: &State, first: usize, predictions: impl Iterator<Item = Option<u32>>) -> (f64, f64) {
    let (mut hits, mut n) = (0usize, 0usize);
    for (guess, &label) in predictions.zip(&s.mb_y).skip(first) {
        hits += usize::from(guess == Some(label));
        n += 1;
    }
    let n = n as f64;
    (hits as f64 / n.max(1.0), n)
}

/// Calls `visit` with the logits and the label of every row of the mini-batch.
pub(super) fn for_each_row(s: &State, mut visit: impl FnMut(&[f32], u32)) {
    let Some(logits) = s.mb_logits() else {
        return;
    };
    for (row, &label) in logits.rows().into_iter().zip(&s.mb_y) {
        visit(row.to_slice().expect("rows lie one after the other"), label);
    }
}
