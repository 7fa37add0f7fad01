//! The names of metrics.

use crate::benchmarks::Experience;
use crate::template::State;

/// A name in Avalanche's scheme,
/// `{name}/{train|eval}_phase/{stream}_stream/Task{label:03}/Exp{id:03}`, of the current experience.
/// The part with the experience is there only with `experience`.
///
/// Avalanche labels a metric of a whole stream with the task of the experience evaluated last, even
/// if the stream has several; here such a metric has no part with a task.
pub fn metric_name(name: &str, s: &State, experience: bool) -> String {
    let phase = if s.is_training { "train" } else { "eval" };
    let Some(current) = &s.experience else {
        return format!("{name}/{phase}_phase");
    };
    let mut out = format!("{name}/{phase}_phase/{}_stream", current.stream_name());
    let one_task = |e: &Experience| e.task_label() == current.task_label();
    if experience || s.is_training || s.current_eval_stream.iter().all(one_task) {
        out.push_str(&format!("/Task{:03}", current.task_label()));
    }
    if experience {
        out.push_str(&format!("/Exp{:03}", current.current_experience()));
    }
    out
}
