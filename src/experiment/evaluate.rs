//! Measuring a saved model.

use std::path::Path;

use crate::checkpoint::load_model;
use crate::logging::{Console, percent};
use crate::training::EvalResult;
use crate::{Error, Result};

use super::build;
use super::config::Config;
use super::summary::{share, stream};

/// Loads the weights in the file `model` into the configured network, evaluates it on the test
/// stream of the configured benchmark and prints a line for each experience.
///
/// # Errors
/// [`Error::StateDict`] if the weights belong to another network, and those of
/// [`train`](super::train) for configuration and data.
pub fn evaluate(config: &Config, model: &Path) -> Result<EvalResult> {
    let config = config.clone().resolve()?;
    let state = load_model(model)?;
    build::in_pool(&config, || {
        let benchmark = build::benchmark(&config)?;
        let mut strategy = build::strategy(&config, &benchmark)?.build()?;
        // Heads that grow get the shape that training gave them.
        for experience in benchmark.train_stream() {
            strategy.state_mut().adapt_model(experience);
        }
        strategy
            .state_mut()
            .tape
            .load_state_dict(&state)
            .map_err(|e| {
                Error::StateDict(format!(
                    "{} does not fit --model {}: {e}",
                    model.display(),
                    config.model.name()
                ))
            })?;
        let result = strategy.eval(benchmark.test_stream())?;
        print(
            &result,
            Console {
                quiet: config.quiet,
            },
        );
        Ok(result)
    })
}

fn print(result: &EvalResult, console: Console) {
    console.line("experience  samples    accuracy  accuracy (task)      loss");
    for e in &result.experiences {
        console.line(format_args!(
            "{:>10} {:>8} {:>11} {:>16} {:>9.4}",
            e.experience,
            e.samples,
            percent(share(e.correct, e.samples)),
            percent(share(e.correct_task, e.samples)),
            e.loss
        ));
    }
    let samples: usize = result.experiences.iter().map(|e| e.samples).sum();
    console.line(format_args!(
        "{:>10} {samples:>8} {:>11} {:>16}",
        "all",
        percent(stream(result, |e| e.correct)),
        percent(stream(result, |e| e.correct_task)),
    ));
}
