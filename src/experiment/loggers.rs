//! What a run measures for its loggers, and the loggers.

use std::fs;

use crate::evaluation::{At, EvaluationPlugin, loss_metrics};
use crate::logging::{CsvLogger, TensorBoardLogger, TextLogger, every};
use crate::{Error, Result};

use super::config::{Config, LoggerName};
use super::folder::RunFolder;

/// Accuracy and loss of epochs, experiences and streams, with the loggers of the configuration. The
/// loss of every `log_every`-th step goes into the files that show curves.
pub(super) fn evaluator(config: &Config, folder: &RunFolder) -> Result<EvaluationPlugin> {
    let mut evaluator = EvaluationPlugin::default().collect_all(false);
    let curves = [LoggerName::Csv, LoggerName::TensorBoard];
    if config.loggers.iter().any(|name| curves.contains(name)) {
        evaluator = evaluator.metrics(every(
            config.log_every as u64,
            loss_metrics(&[At::Minibatch]),
        ));
    }
    for name in &config.loggers {
        evaluator = match name {
            LoggerName::Csv => evaluator.logger(CsvLogger::new(folder.path())?),
            LoggerName::TensorBoard => {
                let events = folder.tensorboard();
                // TensorBoard shows all files of a folder as one run, so those of a run that was
                // cut before its first checkpoint must go.
                if events.exists() && !folder.checkpoint().exists() {
                    fs::remove_dir_all(&events)
                        .map_err(|e| Error::io("remove the folder", &events, e))?;
                }
                evaluator.logger(TensorBoardLogger::new(events)?)
            }
            LoggerName::Text => evaluator.logger(TextLogger::file(folder.log())?),
            LoggerName::Nothing => evaluator,
        };
    }
    Ok(evaluator)
}
