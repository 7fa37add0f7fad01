//! The names of metrics.

use crate::benchmarks::Experience;
use crate::template::{MetricData, MetricValue, State};

/// A name in Avalanche's scheme,
/// `{name}/{train|eval}_phase/{stream}_stream/Task{label:03}/Exp{id:03}`, of the current experience.
/// The part with the experience is there only with `experience`.
///
/// Avalanche labels a metric of a whole stream with the task of the experience evaluated last, even
/// if the stream has several; here such a metric has no part with a task.
pub fn metric_name(name: &str, s: &State, experience: bool) -> String {
    let mut out = stream_metric_name(name, s);
    let Some(current) = &s.experience else {
        return out;
    };
    let one_task = |e: &Experience| e.task_label() == current.task_label();
    // In training there is no such stream, and the experience's own task counts.
    if experience || s.current_eval_stream.iter().all(one_task) {
        out.push_str(&format!("/Task{:03}", current.task_label()));
    }
    if experience {
        out.push_str(&experience_part(current.current_experience()));
    }
    out
}

/// A name without task and experience, `{name}/{train|eval}_phase/{stream}_stream`: of metrics that
/// Avalanche does not divide by tasks, such as forgetting.
pub fn stream_metric_name(name: &str, s: &State) -> String {
    let phase = if s.is_training { "train" } else { "eval" };
    match &s.experience {
        None => format!("{name}/{phase}_phase"),
        Some(current) => format!("{name}/{phase}_phase/{}_stream", current.stream_name()),
    }
}

/// The part of a name that says the experience.
pub(super) fn experience_part(id: usize) -> String {
    format!("/Exp{id:03}")
}

/// Adds a value, dated with the training iterations done.
pub(super) fn emit(out: &mut Vec<MetricValue>, s: &State, name: String, value: MetricData) {
    let x = s.clock.train_iterations;
    out.push(MetricValue { name, value, x });
}
