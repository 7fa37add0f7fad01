//! What is measured: metrics that listen to the loop and publish values under Avalanche's names, and
//! the accuracy matrix from which the summary figures of continual learning follow.
//!
//! An [`EvaluationPlugin`] calls every [`Metric`] at every point of the loop. Each function below
//! gives the metrics of one of Avalanche's helpers; where those have flags (`epoch=True`), these take
//! a list of [`At`]. A metric never touches the run: with and without it the same seed gives the same
//! weights. None allocates in a training iteration unless it emits there, and all of them
//! are saved in checkpoints, so that a resumed run emits what an uninterrupted one does.
//!
//! | metrics | names (before `/eval_phase/test_stream/...`) |
//! |---|---|
//! | [`accuracy_metrics`] | `Top1_Acc_Stream`, `Accuracy_On_Trained_Experiences` |
//! | [`topk_acc_metrics`] | `Topk_3_Acc_Stream` |
//! | [`class_accuracy_metrics`], [`ClassAccuracy`] | `Top1_ClassAcc_Stream`, the class at the end |
//! | [`amca_metrics`] | `Top1_AMCA_Stream` |
//! | [`loss_metrics`] | `Loss_Epoch` |
//! | [`forgetting_metrics`], [`bwt_metrics`] | `StreamForgetting`, `ExperienceForgetting`, `StreamBWT` |
//! | [`forward_transfer_metrics`] | `StreamForwardTransfer`, `ExperienceForwardTransfer` |
//! | [`cumulative_metrics`] | `CumulativeAccuracy`, `CumulativeForgetting` |
//! | [`accuracy_matrix_metrics`] | `EvalStream/Acc_Matrix` |
//! | [`confusion_matrix_metrics`], [`ConfusionMatrix`] | `ConfusionMatrix_Stream` |
//! | [`mean_scores_metrics`] | `MeanScores` |
//! | [`labels_repartition_metrics`] | `Repartition` |
//! | [`images_samples_metrics`], [`ImagesSamples`] | `images` |
//! | [`WeightCheckpoint`] | `WeightCheckpoint` |
//! | [`timing_metrics`], [`cpu_usage_metrics`] | `Time_Epoch`, `CPUUsage_Epoch` |
//! | [`ram_usage_metrics`], [`gpu_usage_metrics`] | `MaxRAMUsage_Epoch`, `MaxGPU0Usage_Epoch` |
//! | [`disk_usage_metrics`], [`mac_metrics`] | `DiskUsage_Epoch`, `MAC_Epoch` |
//! | not in Avalanche: | |
//! | [`task_incremental_accuracy_metrics`] | `Top1_TaskIL_Acc_Stream` |
//! | [`average_incremental_accuracy_metrics`] | `AverageIncrementalAccuracy` |
//! | [`max_forgetting_metrics`] | `StreamMaxForgetting` (Chaudhry et al. 2018) |
//! | [`mammoth_forgetting_metrics`] | `StreamMammothForgetting` (the DER authors' code) |
//! | [`loss_term_metrics`] | `Loss_Current_Epoch`, `Loss_Logits_Epoch`, `Loss_Replay_Epoch` |
//! | [`buffer_metrics`] | `Buffer`, the class at the end |
//! | [`calibration_metrics`] | `ECE_Stream` |
//!
//! # Where we differ from Avalanche on purpose
//!
//! Names and values are compared with a recording of Avalanche's own (`tests/library/golden_metrics.rs`).
//! What differs, each with its reason at the item:
//!
//! | | Avalanche 0.6 | here |
//! |---|---|---|
//! | a metric over several tasks | has the task of the experience evaluated last in its name | has no task in its name |
//! | top-k over several tasks | one value for each task | the same, and one over all |
//! | forgetting and transfer on online streams | compare the ids of pieces with those of the test stream | know what the pieces are of |
//! | top-k running in an epoch | `Topk_3_Acc_Epoch`, as the value of the epoch | `Topk_3_RunningAcc_Epoch` |
//! | accuracy of a class without samples | 0 if it was ever met | not emitted, unless [`ClassAccuracy::every_class_met`] |
//! | AMCA | classes and streams not evaluated count as 0 | they do not count |
//! | forgetting, transfer, cumulative | train and test stream in one run are mixed | each stream for itself |
//! | forward transfer | fails without `eval_every` | needs any evaluation before training; warns |
//! | cumulative forgetting | from the first evaluation during the training | from the last one after it |
//! | cumulative accuracy without samples | 0 | not emitted |
//! | rows of the accuracy matrix | one for each call of `train` | one for each experience trained on |
//! | the matrix before any training | fails, or is the first row | not emitted |
//! | collected matrices | are all the last one | each as it was |
//! | picture of the confusion matrix | under the same name | `.../image` |
//! | mean scores in evaluation | pile up over a call of `train` | of one call of `eval` |
//! | label counts | one dictionary with its history | one number for each label |
//! | histories of scores and labels as pictures | drawn by the metric | left to the loggers |
//! | running time | time of the first iteration over their number | mean iteration |
//! | memory in a short stretch | 0 | read at both ends too |
//! | GPU without a driver | wrong or missing values | the function returns `None` |
//! | disk usage | of the working directory by default | of the paths told |
//! | MAC of a convolution | without the input channels | with them; the other as `MAC_Avalanche` |
//! | image samples | draw from the generator of the run | draw from one of their own |
//! | weight checkpoints | a pickled module | a safetensors file |
//! | periodic evaluation by experience | `eval_every` has no influence | after every `eval_every`-th |
//! | `stop_training` | in the last epoch, skips the next experience | concerns the current one |

mod accuracy;
mod accuracy_matrix;
mod at;
mod calibration;
mod class_accuracy;
mod confusion;
mod cpu;
mod cumulative;
mod disk;
mod forgetting;
mod images;
mod labels;
mod loss;
mod macs;
mod matrix;
mod mean;
mod metric;
mod name;
mod peak;
mod plugin;
mod process;
mod record;
mod scores;
mod timing;
mod top_k;
mod transfer;
mod weights;

pub use crate::tape::argmax;
pub use accuracy::{accuracy_metrics, task_incremental_accuracy_metrics};
pub use accuracy_matrix::{accuracy_matrix_metrics, average_incremental_accuracy_metrics};
use at::only;
pub use at::{At, Now, Span};
pub use calibration::calibration_metrics;
pub use class_accuracy::{ClassAccuracy, amca_metrics, class_accuracy_metrics};
pub use confusion::{ConfusionMatrix, Normalize, confusion_matrix_metrics};
pub use cpu::cpu_usage_metrics;
pub use cumulative::cumulative_metrics;
pub use disk::disk_usage_metrics;
pub use forgetting::{
    bwt_metrics, forgetting_metrics, mammoth_forgetting_metrics, max_forgetting_metrics,
};
pub use images::{ImagesSamples, images_samples_metrics};
pub use labels::{buffer_metrics, labels_repartition_metrics};
pub use loss::{loss_metrics, loss_term_metrics};
pub use macs::mac_metrics;
pub use matrix::AccuracyMatrix;
pub use mean::{Mean, MeanMetric};
pub use metric::{Logger, Metric};
use name::emit;
pub use name::{metric_name, stream_metric_name};
pub use peak::{gpu_usage_metrics, ram_usage_metrics};
pub use plugin::EvaluationPlugin;
pub use scores::mean_scores_metrics;
pub use timing::timing_metrics;
pub use top_k::topk_acc_metrics;
pub use transfer::forward_transfer_metrics;
pub use weights::WeightCheckpoint;
