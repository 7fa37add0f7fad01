//! What a run writes while it goes on: the lines of `metrics.jsonl`, the terminal's progress bar
//! and lines.

mod console;
mod metrics;

pub use console::{Console, ProgressBars, matrix_text, percent};
pub use metrics::{Evaluation, Iteration, IterationLog, MetricsFile};
