//! Which labels the model saw, and which the replay buffer holds.

use std::collections::BTreeMap;

use super::name::{emit, experience_part, stream_metric_name};
use super::{At, Metric, Span, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `labels_repartition_metrics`: how many samples of each label the model saw, replayed
/// ones included, over each epoch ([`At::Epoch`]), evaluated experience ([`At::Experience`]) or
/// evaluated stream ([`At::Stream`]). 0 is emitted for a label that was met before and does not occur.
///
/// Names: `Repartition/train_phase/train_stream/Task_000/7`: phase, stream, task, label. Avalanche's
/// value is one dictionary from labels to the counts so far, and a picture of it; here the label
/// stands in the name and the history lies in [`get_all_metrics`](super::EvaluationPlugin::get_all_metrics).
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn labels_repartition_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    only(
        "labels_repartition_metrics",
        at,
        &[At::Epoch, At::Experience, At::Stream],
    );
    (at.iter())
        .map(|&at| {
            Box::new(Repartition {
                span: Span::new(at),
                counts: BTreeMap::new(),
            }) as Box<dyn Metric>
        })
        .collect()
}

struct Repartition {
    span: Span,
    /// By task and label.
    counts: BTreeMap<u32, BTreeMap<u32, i64>>,
}

impl Metric for Repartition {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            let counts = self.counts.values_mut().flat_map(BTreeMap::values_mut);
            counts.for_each(|count| *count = 0);
        }
        if now.counts {
            for (&task, &label) in s.mb_task_id.iter().zip(&s.mb_y) {
                let labels = self.counts.entry(task).or_default();
                *labels.entry(label).or_default() += 1;
            }
        }
        if now.emits {
            let stem = stream_metric_name("Repartition", s);
            for (task, labels) in &self.counts {
                for (label, &count) in labels {
                    let name = format!("{stem}/Task_{task:03}/{label}");
                    emit(out, s, name, MetricData::Integer(count));
                }
            }
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("counts", &self.counts);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.counts = from.get("counts")?;
        Ok(())
    }
}

/// The replay buffer after each training experience: the number of stored samples by class. Not in
/// Avalanche. Emits nothing for a method without a buffer.
///
/// Names: `Buffer/train_phase/train_stream/Exp001/7`: experience and class.
pub fn buffer_metrics() -> Vec<Box<dyn Metric>> {
    vec![Box::new(BufferComposition)]
}

struct BufferComposition;

impl Metric for BufferComposition {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let (Event::AfterTrainingExp, Some(buffer), Some(experience)) =
            (event, &s.storage_policy, &s.experience)
        else {
            return;
        };
        let part = experience_part(experience.current_experience());
        let stem = stream_metric_name("Buffer", s);
        for (class, count) in buffer.counts_per_class() {
            let count = MetricData::Integer(count as i64);
            emit(out, s, format!("{stem}{part}/{class}"), count);
        }
    }
}
