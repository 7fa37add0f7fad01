//! What is measured: metrics that listen to the loop and publish values under Avalanche's names, and
//! the accuracy matrix from which the summary figures of continual learning follow.

mod accuracy;
mod loss;
mod matrix;
mod metric;
mod name;
mod plugin;
mod timing;

pub use accuracy::{accuracy_metrics, argmax};
pub use loss::loss_metrics;
pub use matrix::AccuracyMatrix;
pub use metric::{Logger, Metric};
pub use name::metric_name;
pub use plugin::EvaluationPlugin;
pub use timing::{At, Mean, MeanMetric};
