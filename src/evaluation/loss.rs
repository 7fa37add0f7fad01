//! The loss and its terms.

use super::{At, MeanMetric, Metric};
use crate::template::{LossTerms, State};

/// Avalanche's `loss_metrics`: the mean over samples, `Σ(loss·n)/Σn`; in training of the whole loss
/// with replay and penalties (rows of replay count as samples), in evaluation of the criterion.
///
/// Names: `Loss_MB`, `Loss_Epoch`, `RunningLoss_Epoch`, `Loss_Exp`, `Loss_Stream`,
/// `Loss_On_Trained_Experiences` (the last is not in Avalanche).
pub fn loss_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| mean_over_samples(at.named("", "Loss"), at, |loss| loss.total))
        .collect()
}

/// The terms of the loss of Dark Experience Replay, each with its weight: `Current` the criterion of
/// the current data, `Logits` `alpha` times the squared error of the replayed logits, `Replay`
/// `beta` times the criterion of the replayed labels. They add up to the value of [`loss_metrics`],
/// but for penalties that plugins add. Not in Avalanche.
///
/// Names: `Loss_Current_Epoch`, `Loss_Logits_Epoch`, `Loss_Replay_Epoch`; per mini-batch with `_MB`,
/// running `RunningLoss_Current_Epoch` and so on. In evaluation there is only the first term.
pub fn loss_term_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    let terms: [(&str, Term); 3] = [
        ("Loss_Current", |loss| loss.current),
        ("Loss_Logits", |loss| loss.logits),
        ("Loss_Replay", |loss| loss.replay),
    ];
    (at.iter())
        .flat_map(|&at| terms.map(|(base, term)| mean_over_samples(at.named("", base), at, term)))
        .collect()
}

/// One of the terms.
type Term = fn(&LossTerms) -> f32;

fn mean_over_samples(name: String, at: At, term: Term) -> Box<dyn Metric> {
    let measure = move |s: &State| (f64::from(term(&s.loss())), s.mb_y.len() as f64);
    Box::new(MeanMetric::new(name, at, measure).of_outcomes())
}
