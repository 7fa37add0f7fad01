//! Means over mini-batches.

use serde::{Deserialize, Serialize};

use super::{At, Metric, Span, emit, metric_name};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// A weighted mean under way; 0 of nothing, as in Avalanche.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// Takes in a value.
    pub fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    /// Takes in another mean.
    pub fn merge(&mut self, other: Mean) {
        self.sum += other.sum;
        self.weight += other.weight;
    }

    /// The mean so far.
    pub fn value(&self) -> f64 {
        self.get().unwrap_or(0.0)
    }

    /// The mean so far, or `None` of nothing.
    pub fn get(&self) -> Option<f64> {
        (self.weight != 0.0).then(|| self.sum / self.weight)
    }
}

impl FromIterator<f64> for Mean {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut mean = Mean::default();
        values.into_iter().for_each(|value| mean.add(value, 1.0));
        mean
    }
}

/// A mini-batch's value and weight.
type Measure = dyn Fn(&State) -> (f64, f64) + Send;

/// A metric that is a mean over mini-batches: `measure` gives a mini-batch's value and weight.
///
/// ```
/// use unforget::evaluation::{At, EvaluationPlugin, MeanMetric};
///
/// // The share of replayed rows in the mini-batches of an epoch.
/// let share = |s: &unforget::training::State| {
///     let n = s.mb_y.len() as f64;
///     (s.replay_rows as f64 / n, n)
/// };
/// let evaluator = EvaluationPlugin::new().metric(MeanMetric::new("Replay_Epoch", At::Epoch, share));
/// ```
pub struct MeanMetric {
    name: String,
    measure: Box<Measure>,
    of_outcomes: bool,
    span: Span,
    mean: Mean,
}

impl MeanMetric {
    /// The metric called `name`.
    pub fn new(
        name: impl Into<String>,
        at: At,
        measure: impl Fn(&State) -> (f64, f64) + Send + 'static,
    ) -> Self {
        MeanMetric {
            name: name.into(),
            measure: Box::new(measure),
            of_outcomes: false,
            span: Span::new(at),
            mean: Mean::default(),
        }
    }

    /// Says that `measure` looks at outcomes only: see [`Metric::is_of_outcomes`].
    pub fn of_outcomes(self) -> Self {
        MeanMetric {
            of_outcomes: true,
            ..self
        }
    }
}

impl Metric for MeanMetric {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            self.mean = Mean::default();
        }
        if now.counts {
            let (value, weight) = (self.measure)(s);
            self.mean.add(value, weight);
        }
        if now.emits {
            let name = metric_name(&self.name, s, self.span.at().of_experience());
            emit(out, s, name, MetricData::Scalar(self.mean.value()));
        }
    }

    fn is_of_outcomes(&self) -> bool {
        self.of_outcomes
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("mean", &self.mean);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.mean = from.get("mean")?;
        Ok(())
    }
}
