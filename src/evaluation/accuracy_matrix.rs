//! The accuracy matrix as it grows, and the average incremental accuracy.

use ndarray::ArrayD;

use super::name::{emit, stream_metric_name};
use super::record::{Record, Row};
use super::{Mean, Metric};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `accuracy_matrix_metrics`: after every evaluation the square matrix of all accuracies
/// so far, row `i` after the `i`-th training, column `k` experience `k`; 0 where there is none.
///
/// Name: `EvalStream/Acc_Matrix`.
///
/// A row belongs to one experience trained on; in Avalanche to one call of `train`, so that a whole
/// stream trained in one call has one row. An evaluation before any training emits nothing (in
/// Avalanche it fails, or counts as the first row if it was periodic), and streams of different
/// names do not overwrite each other's rows.
pub fn accuracy_matrix_metrics() -> Vec<Box<dyn Metric>> {
    vec![Box::new(FromRecord {
        value: |rows, s, out| {
            if let Some(matrix) = matrix(rows) {
                let name = "EvalStream/Acc_Matrix".to_string();
                emit(out, s, name, MetricData::Tensor(matrix));
            }
        },
        record: Record::default(),
    })]
}

/// The mean over the trainings so far of the mean accuracy on the experiences trained on until then
/// (Rebuffi et al. 2017, §4), from the last evaluation after each training; see
/// [`AccuracyMatrix`](super::AccuracyMatrix). Not in Avalanche.
///
/// Name: `AverageIncrementalAccuracy/eval_phase/test_stream`.
pub fn average_incremental_accuracy_metrics() -> Vec<Box<dyn Metric>> {
    vec![Box::new(FromRecord {
        value: |rows, s, out| {
            if let Some(value) = average_incremental_accuracy(rows) {
                let name = stream_metric_name("AverageIncrementalAccuracy", s);
                emit(out, s, name, MetricData::Scalar(value));
            }
        },
        record: Record::default(),
    })]
}

/// A metric that says something about the record after every evaluation.
struct FromRecord {
    value: fn(&[Row], &State, &mut Vec<MetricValue>),
    record: Record,
}

fn matrix(rows: &[Row]) -> Option<ArrayD<f64>> {
    let trained = || rows.iter().filter(|row| row.trainings > 0);
    let columns = trained().filter_map(|row| row.accuracies.last_key_value());
    let n = (columns.map(|(id, _)| id + 1))
        .chain(trained().map(|row| row.trainings))
        .max()?;
    let mut matrix = ArrayD::zeros(vec![n, n]);
    for row in trained() {
        for (&id, &accuracy) in &row.accuracies {
            matrix[[row.trainings - 1, id]] = accuracy;
        }
    }
    Some(matrix)
}

fn average_incremental_accuracy(rows: &[Row]) -> Option<f64> {
    let values = rows.iter().filter_map(|row| {
        let known = row
            .accuracies
            .iter()
            .filter(|(id, _)| row.seen.contains(id));
        known.map(|(_, &accuracy)| accuracy).collect::<Mean>().get()
    });
    values.collect::<Mean>().get()
}

impl Metric for FromRecord {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        self.record.on(event, s);
        if event == Event::AfterEval {
            (self.value)(self.record.rows(s), s, out);
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
