//! Accuracy within the classes known after each training, and what is lost of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::accuracy::for_each_row;
use super::name::{emit, experience_part, stream_metric_name};
use super::{Mean, Metric, argmax};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `CumulativeAccuracyPluginMetric` and `CumulativeForgettingPluginMetric` (Soutif-Cormerais
/// et al. 2021): for each experience `t` trained on, the accuracy over the evaluated samples whose
/// class was known after training on `t`, where only those classes compete; and how much lower it is
/// now than it was while `t` was the experience trained on last.
///
/// Names: `CumulativeAccuracy/eval_phase/test_stream/Exp{t:03}` and
/// `CumulativeForgetting/eval_phase/test_stream/Exp{t:03}`, after each call of `eval`.
///
/// Avalanche measures forgetting from the first evaluation after the training of `t` began, with
/// periodic evaluation thus after its first epoch, and calls a second evaluation after the same
/// training forgetting; here it is measured from the last evaluation before the next training.
/// Experiences without evaluated samples emit nothing (0 there), and streams are told apart by name.
pub fn cumulative_metrics() -> Vec<Box<dyn Metric>> {
    vec![Box::new(Cumulative::default())]
}

#[derive(Default)]
struct Cumulative {
    splits: BTreeMap<usize, Split>,
    trained: Option<usize>,
    classes: Vec<u32>,
}

/// An experience trained on: the classes known after it, the accuracy within them in the current
/// evaluation, and by stream the one it is compared with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Split {
    classes: Vec<u32>,
    mean: Mean,
    initial: BTreeMap<String, f64>,
}

impl Metric for Cumulative {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        if event == Event::BeforeEval {
            let splits = self.splits.values_mut();
            splits.for_each(|split| split.mean = Mean::default());
        }
        let Some(experience) = &s.experience else {
            return;
        };
        match event {
            Event::BeforeTrainingExp => {
                self.classes.extend(experience.classes_in_this_experience());
                self.classes.sort_unstable();
                self.classes.dedup();
                let id = experience.origin_id();
                self.trained = Some(id);
                self.splits.entry(id).or_default().classes = self.classes.clone();
            }
            Event::AfterEvalIteration => {
                for split in self.splits.values_mut() {
                    for_each_row(s, |row, label| {
                        if split.classes.binary_search(&label).is_ok() {
                            let guess = argmax(row, split.classes.iter().copied());
                            split
                                .mean
                                .add(f64::from(u8::from(guess == Some(label))), 1.0);
                        }
                    });
                }
            }
            Event::AfterEval => self.emit(s, experience.stream_name(), out),
            _ => {}
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("splits", &self.splits);
        out.put("trained", &self.trained);
        out.put("classes", &self.classes);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.splits = from.get("splits")?;
        self.trained = from.get("trained")?;
        self.classes = from.get("classes")?;
        Ok(())
    }
}

impl Cumulative {
    fn emit(&mut self, s: &State, stream: &str, out: &mut Vec<MetricValue>) {
        let accuracy = stream_metric_name("CumulativeAccuracy", s);
        let forgetting = stream_metric_name("CumulativeForgetting", s);
        for (&id, split) in &mut self.splits {
            let Some(value) = split.mean.get() else {
                continue;
            };
            let part = experience_part(id);
            emit(
                out,
                s,
                format!("{accuracy}{part}"),
                MetricData::Scalar(value),
            );
            if self.trained == Some(id) {
                split.initial.insert(stream.to_string(), value);
            } else if let Some(initial) = split.initial.get(stream) {
                let lost = MetricData::Scalar(initial - value);
                emit(out, s, format!("{forgetting}{part}"), lost);
            }
        }
    }
}
