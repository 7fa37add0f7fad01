//! How high the model scores the true class, apart for new and old classes.

use serde::{Deserialize, Serialize};

use super::accuracy::for_each_row;
use super::name::{emit, stream_metric_name};
use super::{Mean, Metric};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `mean_scores_metrics`: the mean logit of the true class, over samples of the classes
/// of the current training experience (`new`) and over all others (`old`), and the difference. It
/// shows the bias towards what was learned last.
///
/// Names: `MeanScores/train_phase/train_stream/new_classes`, `.../old_classes`,
/// `.../new_old_diff`, over the last epoch of each experience with replayed rows (`on_train`), and
/// the same with `eval_phase/test_stream` over each call of `eval` (`on_eval`). A part without
/// samples is not emitted.
///
/// In Avalanche the scores of all evaluations within one call of `train` pile up; here each call of
/// `eval` starts anew. The picture of the history is left to the loggers.
pub fn mean_scores_metrics(on_train: bool, on_eval: bool) -> Vec<Box<dyn Metric>> {
    let wanted = [(false, on_eval), (true, on_train)].into_iter();
    let metric = |(train, _)| MeanScores {
        train,
        scores: Scores::default(),
    };
    (wanted.filter(|(_, wanted)| *wanted))
        .map(|part| Box::new(metric(part)) as Box<dyn Metric>)
        .collect()
}

struct MeanScores {
    train: bool,
    scores: Scores,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Scores {
    new_classes: Vec<u32>,
    new: Mean,
    old: Mean,
}

impl Metric for MeanScores {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        if event == Event::BeforeTrainingExp {
            let classes = s
                .experience
                .iter()
                .flat_map(|e| e.classes_in_this_experience());
            self.scores.new_classes = classes.copied().collect();
        }
        let last_epoch = s.clock.train_exp_epochs + 1 == s.train_epochs as u64;
        let (begins, counts, emits) = match self.train {
            true => (
                event == Event::BeforeTrainingEpoch,
                event == Event::AfterTrainingIteration && last_epoch,
                event == Event::AfterTrainingEpoch && last_epoch,
            ),
            false => (
                event == Event::BeforeEval,
                event == Event::AfterEvalIteration,
                event == Event::AfterEval,
            ),
        };
        let Scores {
            new_classes,
            new,
            old,
        } = &mut self.scores;
        if begins {
            (*new, *old) = (Mean::default(), Mean::default());
        }
        if counts {
            for_each_row(s, |row, label| {
                let part = match new_classes.contains(&label) {
                    true => &mut *new,
                    false => &mut *old,
                };
                if let Some(&score) = row.get(label as usize) {
                    part.add(f64::from(score), 1.0);
                }
            });
        }
        if emits {
            let stem = stream_metric_name("MeanScores", s);
            let diff = new.get().zip(old.get()).map(|(new, old)| new - old);
            for (part, value) in [
                ("new_classes", new.get()),
                ("old_classes", old.get()),
                ("new_old_diff", diff),
            ] {
                if let Some(value) = value {
                    emit(out, s, format!("{stem}/{part}"), MetricData::Scalar(value));
                }
            }
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("scores", &self.scores);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.scores = from.get("scores")?;
        Ok(())
    }
}
