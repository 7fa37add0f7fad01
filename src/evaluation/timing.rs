//! Over which stretch of the loop a metric runs, and means over such a stretch.

use serde::{Deserialize, Serialize};

use super::{Metric, metric_name};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// The stretch of the loop that a metric is taken over (the flags of Avalanche's helper functions,
/// such as `accuracy_metrics(epoch=True)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// Each training mini-batch.
    Minibatch,
    /// Each training epoch.
    Epoch,
    /// Each training epoch, with a value after every iteration.
    EpochRunning,
    /// Each evaluated experience.
    Experience,
    /// Each call of `eval`.
    Stream,
    /// Each call of `eval`, over the experiences trained on so far.
    TrainedExperience,
}

impl At {
    /// Whether the stretch begins at `event`.
    pub fn begins(self, event: Event) -> bool {
        event
            == match self {
                At::Minibatch => Event::BeforeTrainingIteration,
                At::Epoch | At::EpochRunning => Event::BeforeTrainingEpoch,
                At::Experience => Event::BeforeEvalExp,
                At::Stream | At::TrainedExperience => Event::BeforeEval,
            }
    }

    /// Whether a mini-batch counts that ends with `event`.
    pub fn counts(self, event: Event, s: &State) -> bool {
        match self {
            At::Minibatch | At::Epoch | At::EpochRunning => event == Event::AfterTrainingIteration,
            At::Experience | At::Stream => event == Event::AfterEvalIteration,
            At::TrainedExperience => {
                let id = s.experience.as_ref().map_or(0, |e| e.current_experience());
                event == Event::AfterEvalIteration && id < s.clock.train_exp_counter.max(1) as usize
            }
        }
    }

    /// Whether the value is emitted at `event`.
    pub fn emits(self, event: Event) -> bool {
        event
            == match self {
                At::Minibatch | At::EpochRunning => Event::AfterTrainingIteration,
                At::Epoch => Event::AfterTrainingEpoch,
                At::Experience => Event::AfterEvalExp,
                At::Stream | At::TrainedExperience => Event::AfterEval,
            }
    }

    /// Whether the value is one experience's own.
    pub fn of_experience(self) -> bool {
        self == At::Experience
    }
}

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

    /// The mean so far.
    pub fn value(&self) -> f64 {
        if self.weight == 0.0 {
            0.0
        } else {
            self.sum / self.weight
        }
    }
}

/// A metric that is a mean over mini-batches: `measure` gives a mini-batch's value and weight.
pub struct MeanMetric {
    name: String,
    at: At,
    measure: fn(&State) -> (f64, f64),
    mean: Mean,
}

impl MeanMetric {
    /// The metric called `name`.
    pub fn new(name: &str, at: At, measure: fn(&State) -> (f64, f64)) -> Self {
        MeanMetric {
            name: name.to_string(),
            at,
            measure,
            mean: Mean::default(),
        }
    }
}

impl Metric for MeanMetric {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        if self.at.begins(event) {
            self.mean = Mean::default();
        }
        if self.at.counts(event, s) {
            let (value, weight) = (self.measure)(s);
            self.mean.add(value, weight);
        }
        if self.at.emits(event) {
            out.push(MetricValue {
                name: metric_name(&self.name, s, self.at.of_experience()),
                value: MetricData::Scalar(self.mean.value()),
                x: s.clock.train_iterations,
            });
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("mean", &self.mean);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.mean = from.get("mean")?;
        Ok(())
    }
}
