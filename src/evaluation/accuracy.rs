//! Top-1 accuracy.

use super::{At, MeanMetric, Metric};
use crate::template::State;

/// Avalanche's `accuracy_metrics`: correct predictions over samples, 0 to 1, pooled over samples.
/// A prediction is the first of the largest logits. During training replayed rows count too.
///
/// Names: `Top1_Acc_MB`, `Top1_Acc_Epoch`, `Top1_RunningAcc_Epoch`, `Top1_Acc_Exp`,
/// `Top1_Acc_Stream`, `Accuracy_On_Trained_Experiences`.
pub fn accuracy_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| {
            let name = match at {
                At::Minibatch => "Top1_Acc_MB",
                At::Epoch => "Top1_Acc_Epoch",
                At::EpochRunning => "Top1_RunningAcc_Epoch",
                At::Experience => "Top1_Acc_Exp",
                At::Stream => "Top1_Acc_Stream",
                At::TrainedExperience => "Accuracy_On_Trained_Experiences",
            };
            Box::new(MeanMetric::new(name, at, accuracy)) as Box<dyn Metric>
        })
        .collect()
}

/// The accuracy of the mini-batch, and its size.
fn accuracy(s: &State) -> (f64, f64) {
    let Some(logits) = s.mb_logits() else {
        return (0.0, 0.0);
    };
    let rows = logits.rows().into_iter().zip(&s.mb_y);
    let correct = rows
        .filter(|(row, label)| {
            let row = row.as_slice().expect("rows lie one after the other");
            argmax(row, 0..row.len() as u32) == Some(**label)
        })
        .count();
    let n = s.mb_y.len() as f64;
    (correct as f64 / n.max(1.0), n)
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
