//! What training does to experiences that are still to come.

use super::name::{emit, metric_name, stream_metric_name};
use super::record::{Record, Row};
use super::{At, Mean, Metric, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `forward_transfer_metrics`: the accuracy on experience `k` after training on `k - 1`,
/// minus its accuracy before any training (Lopez-Paz & Ranzato 2017).
///
/// Names: `ExperienceForwardTransfer/eval_phase/test_stream/Task000/Exp001`, emitted while `k - 1`
/// is the experience trained on last ([`At::Experience`]), and
/// `StreamForwardTransfer/eval_phase/test_stream`, the mean over all evaluated experiences that
/// have a value by now, 0 if there are none ([`At::Stream`]).
///
/// Needs one evaluation before the first training: `eval_every`, or a call of `eval`. Avalanche
/// asserts `eval_every > -1`, and fails later if that evaluation left out experiences; here an
/// experience without a first accuracy has no value, and a run without any gets one warning.
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn forward_transfer_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    only(
        "forward_transfer_metrics",
        at,
        &[At::Experience, At::Stream],
    );
    vec![Box::new(ForwardTransfer {
        experience: at.contains(&At::Experience),
        stream: at.contains(&At::Stream),
        warned: false,
        record: Record::default(),
    })]
}

struct ForwardTransfer {
    experience: bool,
    stream: bool,
    warned: bool,
    record: Record,
}

fn value(rows: &[Row], k: usize) -> Option<f64> {
    let before = Some(k.checked_sub(1)?);
    let first = rows.first().filter(|row| row.trained.is_none())?;
    let prepared = rows.iter().rev().filter(|row| row.trained == before);
    let accuracy = prepared.filter_map(|row| row.accuracies.get(&k)).next()?;
    Some(accuracy - first.accuracies.get(&k)?)
}

impl Metric for ForwardTransfer {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        self.record.on(event, s);
        if event == Event::AfterEvalExp && self.experience {
            let id = s.experience.as_ref().map_or(0, |e| e.current_experience());
            let due = self
                .record
                .trained()
                .is_some_and(|trained| trained + 1 == id);
            if let Some(value) = value(self.record.rows(s), id).filter(|_| due) {
                let name = metric_name("ExperienceForwardTransfer", s, true);
                emit(out, s, name, MetricData::Scalar(value));
            }
        }
        if event == Event::AfterEval {
            let rows = self.record.rows(s);
            if !self.warned && rows.first().is_some_and(|row| row.trained.is_some()) {
                self.warned = true;
                log::warn!(
                    "forward transfer needs an evaluation before the first training: set eval_every"
                );
            }
            if self.stream {
                let values = self.record.evaluated().filter_map(|k| value(rows, k));
                let value = values.collect::<Mean>().value();
                let name = stream_metric_name("StreamForwardTransfer", s);
                emit(out, s, name, MetricData::Scalar(value));
            }
        }
    }

    fn is_of_outcomes(&self) -> bool {
        true
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("record", &self.record);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.record = from.get("record")?;
        Ok(())
    }
}
