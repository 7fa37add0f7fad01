//! What later training did to earlier experiences.

use super::name::{emit, metric_name, stream_metric_name};
use super::record::{Record, Row};
use super::{At, Mean, Metric, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// How an experience's present accuracy is compared with its past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Definition {
    /// After its own training, minus now.
    Forgetting,
    /// Now, minus after its own training.
    Transfer,
    /// The best after any earlier training, minus now.
    Max,
    /// The best since its own training, now included, minus now.
    Mammoth,
}

/// Avalanche's `forgetting_metrics`: with `a(i,k)` the accuracy on experience `k` at the last
/// evaluation made while `i` was the experience trained on last, and `t` the last of all,
/// `ExperienceForgetting` of `k` is `a(k,k) - a(t,k)`, emitted for every evaluated `k != t` that was
/// evaluated after its own training; `StreamForgetting` is the mean of these over the experiences
/// evaluated in one call of `eval`, 0 if there are none.
///
/// Names: `ExperienceForgetting/eval_phase/test_stream/Task000/Exp000` ([`At::Experience`]) and
/// `StreamForgetting/eval_phase/test_stream`, without a task ([`At::Stream`]).
///
/// After training on a piece of an online stream ([`split_online_stream`](crate::benchmarks::split_online_stream)),
/// the experience trained on last is the one that it is a piece of; Avalanche compares the pieces' ids with
/// those of the test stream, which mean something else.
///
/// Streams are told apart by their names; in Avalanche evaluating train and test stream in one run
/// mixes their accuracies.
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn forgetting_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    metrics("forgetting_metrics", at, Definition::Forgetting)
}

/// Avalanche's `bwt_metrics`, backward transfer: minus forgetting (see [`forgetting_metrics`]), as
/// `ExperienceBWT` and `StreamBWT`.
///
/// # Panics
/// For other stretches than [`At::Experience`] and [`At::Stream`].
#[track_caller]
pub fn bwt_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    metrics("bwt_metrics", at, Definition::Transfer)
}

/// Forgetting from the best accuracy after any earlier training (Chaudhry et al. 2018, §3):
/// `max_{i before t} a(i,k) - a(t,k)` with `a` as in [`forgetting_metrics`], for every evaluated `k`
/// trained on before `t`. Negative when the last training helped. Not in Avalanche.
///
/// Names: `ExperienceMaxForgetting/...` and `StreamMaxForgetting/...`.
///
/// # Panics
/// For other stretches than [`At::Experience`] and [`At::Stream`].
#[track_caller]
pub fn max_forgetting_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    metrics("max_forgetting_metrics", at, Definition::Max)
}

/// Forgetting as Mammoth (the code of the DER paper) computes it: as [`max_forgetting_metrics`], but
/// the best is taken since the experience's own training and includes the present, so it is never
/// negative. Not in Avalanche.
///
/// Names: `ExperienceMammothForgetting/...` and `StreamMammothForgetting/...`.
///
/// # Panics
/// For other stretches than [`At::Experience`] and [`At::Stream`].
#[track_caller]
pub fn mammoth_forgetting_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    metrics("mammoth_forgetting_metrics", at, Definition::Mammoth)
}

#[track_caller]
fn metrics(function: &str, at: &[At], definition: Definition) -> Vec<Box<dyn Metric>> {
    only(function, at, &[At::Experience, At::Stream]);
    vec![Box::new(Forgetting {
        definition,
        experience: at.contains(&At::Experience),
        stream: at.contains(&At::Stream),
        record: Record::default(),
    })]
}

struct Forgetting {
    definition: Definition,
    experience: bool,
    stream: bool,
    record: Record,
}

impl Forgetting {
    fn name(&self, level: &str) -> String {
        let base = match self.definition {
            Definition::Forgetting => "Forgetting",
            Definition::Transfer => "BWT",
            Definition::Max => "MaxForgetting",
            Definition::Mammoth => "MammothForgetting",
        };
        format!("{level}{base}")
    }

    /// The value for experience `k` as of the last row, if it was evaluated then and has a past. An
    /// experience trained on again has none until the next training.
    fn value(&self, rows: &[Row], k: usize) -> Option<f64> {
        let (last, before) = rows.split_last()?;
        if last.trained == Some(k) {
            return None;
        }
        let now = *last.accuracies.get(&k)?;
        let own = before.iter().position(|row| row.trained == Some(k))?;
        let best = |rows: &[Row]| {
            let after_training = rows.iter().filter(|row| row.trained.is_some());
            after_training
                .filter_map(|row| row.accuracies.get(&k).copied())
                .reduce(f64::max)
        };
        match self.definition {
            Definition::Forgetting => Some(after_own(before, k)? - now),
            Definition::Transfer => Some(now - after_own(before, k)?),
            Definition::Max => Some(best(before)? - now),
            Definition::Mammoth => Some(best(&rows[own..])? - now),
        }
    }
}

/// The accuracy on `k` after the last training on it.
fn after_own(rows: &[Row], k: usize) -> Option<f64> {
    let own = rows.iter().rev().filter(|row| row.trained == Some(k));
    own.filter_map(|row| row.accuracies.get(&k).copied()).next()
}

impl Metric for Forgetting {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        self.record.on(event, s);
        if event == Event::AfterEvalExp && self.experience {
            let id = s.experience.as_ref().map_or(0, |e| e.current_experience());
            if let Some(value) = self.value(self.record.rows(s), id) {
                let name = metric_name(&self.name("Experience"), s, true);
                emit(out, s, name, MetricData::Scalar(value));
            }
        }
        if event == Event::AfterEval && self.stream {
            let rows = self.record.rows(s);
            let values = self.record.evaluated().filter_map(|k| self.value(rows, k));
            let value = values.collect::<Mean>().value();
            let name = stream_metric_name(&self.name("Stream"), s);
            emit(out, s, name, MetricData::Scalar(value));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows after the trainings of the given experiences, each with the accuracies of all.
    fn rows(given: &[(Option<usize>, &[f64])]) -> Vec<Row> {
        (given.iter().enumerate())
            .map(|(i, &(trained, accuracies))| Row {
                trained,
                trainings: i,
                seen: Default::default(),
                accuracies: accuracies.iter().copied().enumerate().collect(),
            })
            .collect()
    }

    fn values(rows: &[Row], k: usize) -> [Option<f64>; 4] {
        let definitions = [
            Definition::Forgetting,
            Definition::Transfer,
            Definition::Max,
            Definition::Mammoth,
        ];
        definitions.map(|definition| {
            let metric = Forgetting {
                definition,
                experience: true,
                stream: true,
                record: Record::default(),
            };
            metric.value(rows, k)
        })
    }

    #[test]
    fn each_definition_has_its_past() {
        // Experience 1 is best before any training, then before its own.
        let before = [
            (None, &[0.125, 1.0][..]),
            (Some(0), &[0.5, 0.875]),
            (Some(1), &[0.75, 0.5]),
            (Some(2), &[0.25, 0.625]),
        ];
        let rows = rows(&before);
        let lost = [Some(0.25), Some(-0.25), Some(0.5), Some(0.5)];
        assert_eq!(values(&rows, 0), lost);
        // Of the best since its own training the present may be it.
        let gained = [Some(-0.125), Some(0.125), Some(0.25), Some(0.0)];
        assert_eq!(values(&rows, 1), gained);
        assert_eq!(values(&rows[..3], 1), [None; 4], "trained on last");
        assert_eq!(values(&rows[..2], 1), [None; 4], "not trained on yet");
        assert_eq!(values(&rows, 2), [None; 4], "not evaluated");
    }

    #[test]
    fn an_experience_trained_on_again_is_measured_from_there() {
        let all = [
            (Some(0), &[1.0][..]),
            (Some(1), &[0.25]),
            (Some(0), &[0.75]),
            (Some(1), &[0.5]),
        ];
        let rows = rows(&all);
        assert_eq!(values(&rows[..3], 0), [None; 4]);
        let lost = [Some(0.25), Some(-0.25), Some(0.5), Some(0.5)];
        assert_eq!(values(&rows, 0), lost);
    }
}
