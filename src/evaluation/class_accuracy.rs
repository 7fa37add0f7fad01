//! Accuracy by class, and its mean over classes and evaluations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::{emit, experience_part, stream_metric_name};
use super::{At, Mean, Metric, Span};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `class_accuracy_metrics` over the classes that occur; see [`ClassAccuracy`].
pub fn class_accuracy_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| Box::new(ClassAccuracy::new(at)) as Box<dyn Metric>)
        .collect()
}

/// Correct predictions over samples, class by class and task by task.
///
/// Names: `Top1_ClassAcc_MB`, `Top1_ClassAcc_Epoch`, `Top1_RunningClassAcc_Epoch`,
/// `Top1_ClassAcc_Exp`, `Top1_ClassAcc_Stream`, each followed by phase, stream, task, with
/// [`At::Experience`] the experience, and the class:
/// `Top1_ClassAcc_Stream/eval_phase/test_stream/Task000/7`.
///
/// Emitted for classes with at least one sample. Avalanche emits 0 for every class the metric has
/// met before; [`every_class_met`](Self::every_class_met) does the same.
pub struct ClassAccuracy {
    name: String,
    span: Span,
    every_class_met: bool,
    only: Option<Vec<u32>>,
    means: ClassMeans,
}

impl ClassAccuracy {
    /// The accuracy by class over `at`.
    pub fn new(at: At) -> Self {
        ClassAccuracy {
            name: at.named("Top1_", "ClassAcc"),
            span: Span::new(at),
            every_class_met: false,
            only: None,
            means: ClassMeans::default(),
        }
    }

    /// Emits these classes of task 0 only, 0 for one without samples (Avalanche's `classes`).
    pub fn classes(mut self, classes: &[u32]) -> Self {
        self.only = Some(classes.to_vec());
        self
    }

    /// Emits 0, as Avalanche does, for classes that the metric has met in earlier stretches and that
    /// have no sample in this one.
    pub fn every_class_met(mut self, every_class_met: bool) -> Self {
        self.every_class_met = every_class_met;
        self
    }
}

/// A mean for each class of each task; classes stay known when the means are cleared, so that a warm
/// one allocates nothing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct ClassMeans(BTreeMap<u32, BTreeMap<u32, Mean>>);

impl ClassMeans {
    fn clear(&mut self) {
        let means = self.0.values_mut().flat_map(BTreeMap::values_mut);
        means.for_each(|mean| *mean = Mean::default());
    }

    fn add_batch(&mut self, s: &State) {
        let mut tasks = s.mb_task_id.iter();
        for (guess, &label) in s.predictions().zip(&s.mb_y) {
            let task = tasks.next().copied().unwrap_or(0);
            let correct = f64::from(u8::from(guess == Some(label)));
            let classes = self.0.entry(task).or_default();
            classes.entry(label).or_default().add(correct, 1.0);
        }
    }
}

impl Metric for ClassAccuracy {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            self.means.clear();
            for &class in self.only.iter().flatten() {
                self.means.0.entry(0).or_default().entry(class).or_default();
            }
        }
        if now.counts {
            self.means.add_batch(s);
        }
        if !now.emits {
            return;
        }
        let stem = stream_metric_name(&self.name, s);
        let experience = match &s.experience {
            Some(e) if self.span.at().of_experience() => experience_part(e.current_experience()),
            _ => String::new(),
        };
        for (&task, classes) in &self.means.0 {
            for (&class, mean) in classes {
                let wanted = match &self.only {
                    Some(only) => task == 0 && only.contains(&class),
                    None => self.every_class_met || mean.get().is_some(),
                };
                if wanted {
                    let name = format!("{stem}/Task{task:03}{experience}/{class}");
                    emit(out, s, name, MetricData::Scalar(mean.value()));
                }
            }
        }
    }

    fn is_of_outcomes(&self) -> bool {
        true
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("means", &self.means);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.means = from.get("means")?;
        Ok(())
    }
}

/// Avalanche's `amca_metrics`, the average mean class accuracy: in each call of `eval` outside of
/// `train`, the mean over classes of the accuracy on the class; the value is the mean of these over
/// all such calls so far, by stream and task.
///
/// Name: `Top1_AMCA_Stream/test_stream/Task000` (no phase). `streams` says which streams are
/// followed, usually `["test"]`.
///
/// A class without samples in an evaluation is left out of that evaluation's mean, and a stream not
/// evaluated keeps its value; Avalanche counts both as 0.
pub fn amca_metrics(streams: &[&str]) -> Vec<Box<dyn Metric>> {
    vec![Box::new(Amca {
        streams: streams.iter().map(|s| s.to_string()).collect(),
        in_training: false,
        current: BTreeMap::new(),
        means: BTreeMap::new(),
    })]
}

struct Amca {
    streams: Vec<String>,
    in_training: bool,
    current: BTreeMap<String, ClassMeans>,
    means: BTreeMap<(String, u32), Mean>,
}

impl Metric for Amca {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        match event {
            Event::BeforeTraining => self.in_training = true,
            Event::AfterTraining => self.in_training = false,
            _ if self.in_training => {}
            Event::BeforeEval => self.current.clear(),
            Event::AfterEvalIteration => {
                let stream = s.experience.as_ref().map_or("", |e| e.stream_name());
                if !self.streams.iter().any(|name| name == stream) {
                    return;
                }
                if !self.current.contains_key(stream) {
                    self.current
                        .insert(stream.to_string(), ClassMeans::default());
                }
                if let Some(means) = self.current.get_mut(stream) {
                    means.add_batch(s);
                }
            }
            Event::AfterEval => {
                for (stream, means) in &self.current {
                    for (&task, classes) in &means.0 {
                        let now = classes.values().filter_map(Mean::get).collect::<Mean>();
                        let mean = self.means.entry((stream.clone(), task)).or_default();
                        mean.add(now.value(), 1.0);
                        let name = format!("Top1_AMCA_Stream/{stream}_stream/Task{task:03}");
                        emit(out, s, name, MetricData::Scalar(mean.value()));
                    }
                }
            }
            _ => {}
        }
    }

    fn is_of_outcomes(&self) -> bool {
        true
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("in_training", &self.in_training);
        out.put("current", &self.current);
        let means: Vec<_> = self.means.iter().collect();
        out.put("means", &means);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.in_training = from.get("in_training")?;
        self.current = from.get("current")?;
        let means: Vec<((String, u32), Mean)> = from.get("means")?;
        self.means = means.into_iter().collect();
        Ok(())
    }
}
