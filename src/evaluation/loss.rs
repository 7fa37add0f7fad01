//! The loss.

use super::{At, MeanMetric, Metric};

/// Avalanche's `loss_metrics`: the mean over samples; in training of the whole loss with replay and
/// penalties (rows of replay count as samples), in evaluation of the criterion.
///
/// Names: `Loss_MB`, `Loss_Epoch`, `RunningLoss_Epoch`, `Loss_Exp`, `Loss_Stream`,
/// `Loss_On_Trained_Experiences`.
pub fn loss_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| {
            let name = match at {
                At::Minibatch => "Loss_MB",
                At::Epoch => "Loss_Epoch",
                At::EpochRunning => "RunningLoss_Epoch",
                At::Experience => "Loss_Exp",
                At::Stream => "Loss_Stream",
                At::TrainedExperience => "Loss_On_Trained_Experiences",
            };
            let metric =
                MeanMetric::new(name, at, |s| (f64::from(s.loss.total), s.mb_y.len() as f64));
            Box::new(metric) as Box<dyn Metric>
        })
        .collect()
}
