//! What a run writes while it goes on: the lines of `metrics.jsonl`, the terminal's progress bar
//! and lines, and the plugin that ends a run on Ctrl-C.

mod console;
mod interrupt;
mod metrics;

pub use console::{Console, Progress, matrix_text, percent};
pub use interrupt::StopOnInterrupt;
pub use metrics::{Evaluation, Iteration, IterationLog, MetricsFile};
