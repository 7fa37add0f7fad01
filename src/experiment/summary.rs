//! What a run comes to.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::evaluation::AccuracyMatrix;
use crate::logging::{Console, Evaluation, MetricsFile, matrix_text, percent};
use crate::training::EvalResult;

/// The last line of `metrics.jsonl`. Accuracies are fractions; what a run did not get as far as
/// measuring, or what has no meaning for it, is `None`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Mean class-incremental accuracy over the test experiences at the end.
    pub accuracy: Option<f64>,
    /// Mean task-incremental accuracy over the test experiences at the end.
    pub accuracy_task: Option<f64>,
    /// Class-incremental accuracy over all test samples at the end, as Avalanche's
    /// `Top1_Acc_Stream`; differs from `accuracy` where experiences differ in size.
    pub accuracy_stream: Option<f64>,
    /// Mean over the evaluations of the accuracy on the experiences seen until then.
    pub accuracy_incremental: Option<f64>,
    /// Accuracy right after learning an experience minus accuracy at the end (Avalanche).
    pub forgetting: Option<f64>,
    /// Best accuracy on an experience minus accuracy at the end (Chaudhry et al. 2018).
    pub forgetting_max: Option<f64>,
    /// Minus `forgetting`.
    pub backward_transfer: Option<f64>,
    /// Training samples of the experiences (replayed ones not counted) a second of training.
    pub samples_per_second: Option<f64>,
    /// Seconds spent training, without the evaluations.
    pub seconds: f64,
    /// Training steps.
    pub steps: u64,
    /// The seed of weights, order and buffer.
    pub seed: u64,
    /// The seed of the benchmark.
    pub benchmark_seed: u64,
    /// The version of this program.
    pub version: &'static str,
    /// Whether the user ended the run early.
    pub interrupted: bool,
}

impl Summary {
    /// The figures for people, with their names.
    pub fn figures(&self) -> Vec<(String, String)> {
        let rate = self
            .samples_per_second
            .map_or_else(|| "-".into(), |r| format!("{r:.0}"));
        [
            (
                "average accuracy, class-incremental",
                percent(self.accuracy),
            ),
            (
                "average accuracy, task-incremental",
                percent(self.accuracy_task),
            ),
            (
                "average incremental accuracy",
                percent(self.accuracy_incremental),
            ),
            ("forgetting", percent(self.forgetting)),
            ("backward transfer", percent(self.backward_transfer)),
            ("samples/s", rate),
            ("seconds of training", format!("{:.2}", self.seconds)),
            ("steps", self.steps.to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }
}

/// The evaluations of a run so far.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Scores {
    pub class: AccuracyMatrix,
    pub task: AccuracyMatrix,
    pub stream: Option<f64>,
}

impl Scores {
    /// Takes in the evaluation after experience `after`, and writes it to `file`.
    pub fn add(&mut self, after: usize, result: &EvalResult, file: &mut MetricsFile) -> Result<()> {
        for exp in &result.experiences {
            file.evaluation(Evaluation {
                after_experience: after,
                experience: exp.experience,
                accuracy: share(exp.correct, exp.samples),
                accuracy_task: share(exp.correct_task, exp.samples),
                loss: Some(exp.loss),
            })?;
        }
        // An experience without test samples counts as not known at all.
        let row = |of: fn(&crate::training::ExperienceEval) -> usize| {
            let accuracy = result
                .experiences
                .iter()
                .map(|e| share(of(e), e.samples).unwrap_or(0.0));
            accuracy.collect::<Vec<_>>()
        };
        self.class.push(row(|e| e.correct));
        self.task.push(row(|e| e.correct_task));
        self.stream = stream(result, |e| e.correct);
        Ok(())
    }

    /// Prints the matrix and the figures.
    pub fn print(&self, summary: &Summary, console: Console) {
        if !self.class.rows().is_empty() {
            console.line("\naccuracy (class-incremental) in per cent");
            console.line(matrix_text(self.class.rows()));
            console.line("");
        }
        for (name, value) in summary.figures() {
            console.line(format_args!("{name:<36} {value:>10}"));
        }
    }
}

/// `part` of `whole`; `None` of nothing.
pub(super) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The share of all samples of the stream that `correct` counts.
pub(super) fn stream(
    result: &EvalResult,
    correct: impl Fn(&crate::training::ExperienceEval) -> usize,
) -> Option<f64> {
    let part = result.experiences.iter().map(correct).sum();
    share(part, result.experiences.iter().map(|e| e.samples).sum())
}
