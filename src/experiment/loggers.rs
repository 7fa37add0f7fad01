//! What a run measures for its loggers, and the loggers.

use std::fs;

use crate::evaluation::{
    At, EvaluationPlugin, accuracy_matrix_metrics, confusion_matrix_metrics, forgetting_metrics,
    loss_metrics, loss_term_metrics,
};
use crate::logging::{CsvLogger, TensorBoardLogger, TextLogger, every};
use crate::{Error, Result};

use super::config::{Config, LoggerName};
use super::folder::RunFolder;

/// The loggers of the configuration, with accuracy, loss and forgetting of epochs, experiences and
/// streams; and what the files for curves and pictures show best: the loss and its terms in every
/// `log_every`-th step, the accuracy matrix and the confusion matrix.
pub(super) fn evaluator(config: &Config, folder: &RunFolder) -> Result<EvaluationPlugin> {
    if config.loggers.contains(&LoggerName::Nothing) {
        return Ok(EvaluationPlugin::new().collect_all(false));
    }
    let mut evaluator = EvaluationPlugin::default()
        .collect_all(false)
        .metrics(forgetting_metrics(&[At::Experience, At::Stream]))
        .metrics(accuracy_matrix_metrics());
    let curves = [LoggerName::Csv, LoggerName::TensorBoard];
    if config.loggers.iter().any(|name| curves.contains(name)) {
        let steps = config.log_every as u64;
        evaluator = evaluator
            .metrics(every(steps, loss_metrics(&[At::Minibatch])))
            .metrics(every(steps, loss_term_metrics(&[At::Minibatch])))
            .metrics(confusion_matrix_metrics());
    }
    for name in &config.loggers {
        evaluator = match name {
            LoggerName::Csv => evaluator.logger(CsvLogger::new(folder.path())?),
            LoggerName::TensorBoard => evaluator.logger(tensorboard(folder)?),
            LoggerName::Text => evaluator.logger(TextLogger::file(folder.log())?),
            LoggerName::Nothing => evaluator,
        };
    }
    Ok(evaluator)
}

/// TensorBoard shows all files of a folder as one run, so those of a run that was cut before its first
/// checkpoint, and now begins again, must go.
fn tensorboard(folder: &RunFolder) -> Result<TensorBoardLogger> {
    let events = folder.tensorboard();
    if events.exists() && !folder.checkpoint().exists() {
        fs::remove_dir_all(&events).map_err(|e| Error::io("remove the folder", &events, e))?;
    }
    TensorBoardLogger::new(events)
}
