//! What a run writes while it goes on.
//!
//! The loggers of an [`EvaluationPlugin`](crate::evaluation::EvaluationPlugin), each under Avalanche's
//! name: [`TextLogger`], [`InteractiveLogger`], [`CsvLogger`], [`TensorBoardLogger`];
//! and [`JsonLinesLogger`]. [`every()`] thins the metrics of mini-batches. Besides, what the command line adds: the lines of `metrics.jsonl` and its
//! own progress bar.
//!
//! Where the loggers differ from Avalanche's on purpose:
//!
//! - `InteractiveLogger` also prints the line with which the training on an experience starts.
//! - Bars are drawn only on a terminal and vanish when they are full.
//! - The time in the line `[TextLogger] Resuming from checkpoint.` is in UTC.
//! - `CSVLogger` is [`CsvLogger`], has a third file, continues its files in a resumed run, and writes
//!   the headers with the first event rather than when it is made.
//! - Tensors are printed in PyTorch's layout, but never with powers of ten, shortened or with
//!   their type; whole numbers never carry a point.
//! - A metric over a whole stream whose experiences have different task labels has no part with a
//!   task in its name (see [`metric_name`](crate::evaluation::metric_name)).

mod bar;
mod calendar;
mod console;
mod csv;
mod every;
mod file;
mod interactive;
mod json;
mod metrics;
mod tensorboard;
mod text;

pub(crate) use calendar::{now, utc};
pub use console::{Console, ProgressBars, matrix_text, percent};
pub use csv::CsvLogger;
pub use every::every;
pub use interactive::{InteractiveLogger, default_evaluator};
pub use json::JsonLinesLogger;
pub use metrics::{Evaluation, Iteration, IterationLog, MetricsFile};
pub use tensorboard::TensorBoardLogger;
pub use text::TextLogger;
