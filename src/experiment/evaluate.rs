//! Measuring a saved model.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ndarray::{Array, Array1, Array2, Array4};

use crate::checkpoint::{load_model, save_model};
use crate::logging::{Console, percent};
use crate::training::{EvalResult, Plugin, State};
use crate::{Error, Result};

use super::build;
use super::config::Config;
use super::keep::lock;
use super::summary::{share, stream};

/// Loads the weights in the file `model` into the configured network, evaluates it on the test
/// stream of the configured benchmark and prints a line for each experience. With `logits`, it also
/// writes that safetensors file: `inputs` as the network sees them (`[n, C, H, W]`), `logits`
/// (`[n, classes]`) and `labels` (`[n]`), all in f32, in the order of the stream.
///
/// # Errors
/// [`Error::StateDict`] if the weights belong to another network, [`Error::Io`] if `logits` cannot
/// be written, and those of [`train`](super::train) for configuration and data.
pub fn evaluate(config: &Config, model: &Path, logits: Option<&Path>) -> Result<EvalResult> {
    let config = config.clone().resolve()?;
    let state = load_model(model)?;
    build::in_pool(&config, || {
        let benchmark = build::benchmark(&config)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut builder = build::strategy(&config, &benchmark)?;
        if logits.is_some() {
            builder = builder.plugin(KeepLogits(Arc::clone(&seen)));
        }
        let mut strategy = builder.build()?;
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
        if let Some(path) = logits {
            lock(&seen).write(path)?;
        }
        print(
            &result,
            Console {
                quiet: config.quiet,
            },
        );
        Ok(result)
    })
}

/// What went through the network.
#[derive(Default)]
struct Seen {
    inputs: Vec<f32>,
    logits: Vec<f32>,
    labels: Vec<f32>,
    shape: [usize; 3],
}

impl Seen {
    fn write(&self, path: &Path) -> Result<()> {
        let n = self.labels.len();
        let [c, h, w] = self.shape;
        let width = self.logits.len() / n.max(1);
        let inputs = Array4::from_shape_vec((n, c, h, w), self.inputs.clone());
        let logits = Array2::from_shape_vec((n, width), self.logits.clone());
        let tensors = [
            ("inputs", inputs.map(Array::into_dyn)),
            ("logits", logits.map(Array::into_dyn)),
            ("labels", Ok(Array1::from(self.labels.clone()).into_dyn())),
        ];
        let named = tensors.map(|(name, array)| {
            (
                name.to_string(),
                array.expect("every sample has as many numbers"),
            )
        });
        save_model(path, &named, &[])
    }
}

/// Keeps what goes through the network in an evaluation.
struct KeepLogits(Arc<Mutex<Seen>>);

impl Plugin for KeepLogits {
    fn after_eval_forward(&mut self, s: &mut State) -> Result<()> {
        let mut seen = lock(&self.0);
        let x = s.mb_x();
        seen.shape = [x.dim().1, x.dim().2, x.dim().3];
        seen.inputs.extend(x.iter());
        seen.logits.extend(s.mb_logits().iter().flatten());
        seen.labels.extend(s.mb_y.iter().map(|&label| label as f32));
        Ok(())
    }
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
