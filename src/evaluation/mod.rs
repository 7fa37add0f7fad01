//! What is measured: metrics that listen to the loop and publish values under Avalanche's names, and
//! the accuracy matrix from which the summary figures of continual learning follow.

mod accuracy;
mod accuracy_matrix;
mod at;
mod calibration;
mod class_accuracy;
mod confusion;
mod cumulative;
mod forgetting;
mod labels;
mod loss;
mod matrix;
mod mean;
mod metric;
mod name;
mod plugin;
mod record;
mod scores;
mod transfer;

pub use accuracy::{accuracy_metrics, argmax, task_incremental_accuracy_metrics, topk_acc_metrics};
pub use accuracy_matrix::{accuracy_matrix_metrics, average_incremental_accuracy_metrics};
use at::only;
pub use at::{At, Now, Span};
pub use calibration::calibration_metrics;
pub use class_accuracy::{ClassAccuracy, amca_metrics, class_accuracy_metrics};
pub use confusion::{ConfusionMatrix, Normalize, confusion_matrix_metrics};
pub use cumulative::cumulative_metrics;
pub use forgetting::{
    bwt_metrics, forgetting_metrics, mammoth_forgetting_metrics, max_forgetting_metrics,
};
pub use labels::{buffer_metrics, labels_repartition_metrics};
pub use loss::{loss_metrics, loss_term_metrics};
pub use matrix::AccuracyMatrix;
pub use mean::{Mean, MeanMetric};
pub use metric::{Logger, Metric};
use name::emit;
pub use name::{metric_name, stream_metric_name};
pub use plugin::EvaluationPlugin;
pub use scores::mean_scores_metrics;
pub use transfer::forward_transfer_metrics;
