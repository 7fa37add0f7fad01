//! What a run measures for its loggers, and the loggers.

use crate::Result;
use crate::evaluation::{At, EvaluationPlugin, loss_metrics};
use crate::logging::{CsvLogger, TensorBoardLogger, TextLogger};

use super::config::{Config, LoggerName};
use super::folder::RunFolder;

/// Accuracy and loss of epochs, experiences and streams, with the loggers of the configuration. The
/// loss of every `log_every`-th step goes into the files that show curves.
pub(super) fn evaluator(config: &Config, folder: &RunFolder) -> Result<EvaluationPlugin> {
    let mut evaluator = EvaluationPlugin::default().collect_all(false);
    let every = config.log_every as u64;
    let curves = [LoggerName::Csv, LoggerName::TensorBoard];
    if config.loggers.iter().any(|name| curves.contains(name)) {
        evaluator = evaluator.metrics(loss_metrics(&[At::Minibatch]));
    }
    for name in &config.loggers {
        evaluator = match name {
            LoggerName::Csv => evaluator.logger(CsvLogger::new(folder.path())?.every(every)),
            LoggerName::TensorBoard => {
                evaluator.logger(TensorBoardLogger::new(folder.tensorboard())?.every(every))
            }
            LoggerName::Text => evaluator.logger(TextLogger::file(folder.log())?),
            LoggerName::Nothing => evaluator,
        };
    }
    Ok(evaluator)
}
