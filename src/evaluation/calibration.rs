//! Whether the model is as sure as it is right.

use serde::{Deserialize, Serialize};

use super::accuracy::for_each_row;
use super::name::{emit, metric_name};
use super::{At, Metric, Span, argmax};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Bins of confidence.
const BINS: usize = 15;

/// The expected calibration error (Guo et al. 2017): `Σ_b n_b/n · |accuracy_b - confidence_b|` over
/// 15 bins of equal width, bin `b` holding the samples whose confidence, the largest probability of
/// the softmax, lies in `(b/15, (b+1)/15]`; 0 of nothing. Not in Avalanche.
///
/// Names: `ECE_Exp`, `ECE_Stream`, `ECE_On_Trained_Experiences`, `ECE_Epoch`, `RunningECE_Epoch`,
/// `ECE_MB`.
pub fn calibration_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    let metric = |&at: &At| Calibration {
        name: at.named("", "ECE"),
        span: Span::new(at),
        bins: [Bin::default(); BINS],
    };
    (at.iter())
        .map(|at| Box::new(metric(at)) as Box<dyn Metric>)
        .collect()
}

#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Bin {
    samples: f64,
    correct: f64,
    confidence: f64,
}

struct Calibration {
    name: String,
    span: Span,
    bins: [Bin; BINS],
}

impl Calibration {
    fn add(&mut self, row: &[f32], label: u32) {
        let Some(guess) = argmax(row, 0..row.len() as u32) else {
            return;
        };
        let largest = f64::from(row[guess as usize]);
        let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
        let confidence = 1.0 / sum;
        // NaN, of logits that are no numbers, falls into the first bin and stays in its sum.
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut self.bins[bin];
        bin.samples += 1.0;
        bin.correct += f64::from(u8::from(guess == label));
        bin.confidence += confidence;
    }

    fn value(&self) -> f64 {
        let n: f64 = self.bins.iter().map(|bin| bin.samples).sum();
        let gaps = self
            .bins
            .iter()
            .map(|bin| (bin.correct - bin.confidence).abs());
        gaps.sum::<f64>() / n.max(1.0)
    }
}

impl Metric for Calibration {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            self.bins = [Bin::default(); BINS];
        }
        if now.counts {
            for_each_row(s, |row, label| self.add(row, label));
        }
        if now.emits {
            let name = metric_name(&self.name, s, self.span.at().of_experience());
            emit(out, s, name, MetricData::Scalar(self.value()));
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("bins", &self.bins);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.bins = from.get("bins")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        Calibration {
            name: String::new(),
            span: Span::new(At::Stream),
            bins: [Bin::default(); BINS],
        }
    }

    /// Logits of two classes that give the first the probability `p`.
    fn row(p: f64) -> [f32; 2] {
        [(p / (1.0 - p)).ln() as f32, 0.0]
    }

    #[test]
    fn the_gaps_of_the_bins_are_weighted_by_their_samples() {
        let mut metric = calibration();
        assert_eq!(metric.value(), 0.0);
        // One bin: sure to 0.9, right three times of four.
        for label in [0, 0, 0, 1] {
            metric.add(&row(0.9), label);
        }
        // Another bin: sure to 0.6, never right.
        metric.add(&row(0.6), 1);
        let wanted = (4.0 * (0.9 - 0.75) + 0.6) / 5.0;
        let close = (metric.value() - wanted).abs() <= 1e-7;
        assert!(close, "{} is not {wanted}", metric.value());
    }

    #[test]
    fn gaps_in_one_bin_cancel() {
        let mut metric = calibration();
        metric.add(&row(0.61), 0);
        metric.add(&row(0.65), 1);
        let wanted = (2.0 * 0.63 - 1.0) / 2.0;
        let close = (metric.value() - wanted).abs() <= 1e-7;
        assert!(close, "{} is not {wanted}", metric.value());
    }

    #[test]
    fn certainty_lies_in_the_last_bin_and_nan_does_not_panic() {
        let mut metric = calibration();
        metric.add(&[200.0, -200.0], 0);
        assert_eq!((metric.bins[BINS - 1].samples, metric.value()), (1.0, 0.0));
        metric.add(&[f32::NAN, 0.0], 0);
        assert!(metric.value().is_nan());
    }
}
