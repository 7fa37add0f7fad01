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
            Box::new(MeanMetric::new(name, at, accuracy)) as Box<dyn Metric>
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
            Box::new(MeanMetric::new(name, at, task_incremental)) as Box<dyn Metric>
        })
        .collect()
}

/// The accuracy of the mini-batch, and its size.
pub(super) fn accuracy(s: &State) -> (f64, f64) {
    share(s, 0, is_correct)
}

/// Whether the label's logit is the first of the largest.
pub(super) fn is_correct(row: &[f32], label: u32) -> bool {
    argmax(row, 0..row.len() as u32) == Some(label)
}

fn task_incremental(s: &State) -> (f64, f64) {
    let classes = (s.experience.as_ref()).map_or(&[][..], |e| e.classes_in_this_experience());
    share(s, s.replay_rows, |row, label| {
        argmax(row, classes.iter().copied()) == Some(label)
    })
}

/// The share of the mini-batch's rows from row `first` on for which `hit` holds, and their number.
fn share(s: &State, first: usize, hit: impl Fn(&[f32], u32) -> bool) -> (f64, f64) {
    let (mut hits, mut n) = (0usize, 0usize);
    for_each_row(s, |row, label| {
        hits += usize::from(n >= first && hit(row, label));
        n += 1;
    });
    let n = n.saturating_sub(first) as f64;
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

/// The column of the largest value among `columns`, the first if several are equal; `None` of none.
pub fn argmax(row: &[f32], columns: impl Iterator<Item = u32>) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for column in columns {
        let Some(&value) = row.get(column as usize) else {
            continue;
        };
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((column, value));
        }
    }
    best.map(|(column, _)| column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_column_is_the_largest() {
        let row = [1.0, 3.0, 3.0, 0.0];
        assert_eq!(argmax(&row, 0..4), Some(1));
        assert_eq!(argmax(&row, [3, 2].into_iter()), Some(2));
        assert_eq!(argmax(&row, std::iter::empty()), None);
    }
}
