//! One training run, from the configuration to the folder it leaves.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::benchmarks::Benchmark;
use crate::checkpoint::{save_model, write_atomically};
use crate::logging::{Console, IterationLog, MetricsFile, Progress, StopOnInterrupt, percent};
use crate::report::{self, LossPoint, ReportData};
use crate::training::{EvalResult, Strategy};
use crate::{Error, Result};

use super::build;
use super::config::{Config, StrategyName};
use super::folder::RunFolder;
use super::loggers;
use super::summary::{Scores, Summary, stream};

/// A run that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// The folder it left.
    pub folder: PathBuf,
    /// What it came to.
    pub summary: Summary,
}

/// Trains as `config` says (resolving it first), evaluating on the whole test stream after every
/// experience, and leaves a folder with `config.toml`, `metrics.jsonl`, `model.safetensors`,
/// `report.html` and what the loggers write. Everything is checked, and the data read, before the folder is made.
///
/// When `interrupt` is raised, the training stops after the step it is in; what there is gets
/// written all the same.
///
/// # Errors
/// [`Error::Config`] for an impossible configuration or an `out` that is in use,
/// [`Error::DataMissing`] and [`Error::Format`] for the data, [`Error::Io`] for the folder,
/// [`Error::NonFinite`] if the training diverges, [`Error::Interrupted`].
pub fn train(config: &Config, interrupt: &Arc<AtomicBool>) -> Result<Finished> {
    let config = config.clone().resolve()?;
    build::in_pool(&config, || Run::start(&config, interrupt)?.go())
}

struct Run<'a> {
    config: &'a Config,
    interrupt: &'a AtomicBool,
    console: Console,
    benchmark: Benchmark,
    folder: RunFolder,
    strategy: Strategy,
    metrics: Arc<Mutex<MetricsFile>>,
    scores: Scores,
    buffer: Vec<Vec<(u32, usize)>>,
    training: Duration,
    samples: usize,
}

impl<'a> Run<'a> {
    fn start(config: &'a Config, interrupt: &'a Arc<AtomicBool>) -> Result<Self> {
        let console = Console {
            quiet: config.quiet,
        };
        let benchmark = build::benchmark(config)?;
        // Before the folder: a model that cannot be built must not leave an empty one behind.
        let mut builder = build::strategy(config, &benchmark)?;
        let (strategy_name, name) = (config.strategy.name(), config.benchmark.name());
        let folder = RunFolder::create(config.out.as_deref(), strategy_name, name)?;
        let text = toml::to_string(config).expect("a config is a flat table of TOML values");
        let text = format!(
            "# Repeat this run: unforget train --config {}\n{text}",
            folder.config().display()
        );
        write_atomically(&folder.config(), text.as_bytes())?;
        let metrics = Arc::new(Mutex::new(MetricsFile::create(&folder.metrics())?));
        builder = builder
            .evaluator(loggers::evaluator(config, &folder)?)
            .plugin(IterationLog {
                file: Arc::clone(&metrics),
                every: config.log_every as u64,
            })
            .plugin(StopOnInterrupt(Arc::clone(interrupt)));
        if console.shows_progress() {
            builder = builder.plugin(Progress::default());
        }
        Ok(Run {
            config,
            interrupt,
            console,
            strategy: builder.build()?,
            benchmark,
            folder,
            metrics,
            scores: Scores::default(),
            buffer: Vec::new(),
            training: Duration::ZERO,
            samples: 0,
        })
    }

    fn go(mut self) -> Result<Finished> {
        self.console.line(format_args!(
            "{} on {} ({} experiences, {} data), model {}, seed {}",
            self.method(),
            self.benchmark.name(),
            self.benchmark.n_experiences(),
            self.config.data.map_or("full", |d| d.name()),
            self.config.model.name(),
            self.config.seed,
        ));
        if self.config.strategy == StrategyName::Joint {
            self.learn(None)?;
        } else {
            for index in 0..self.benchmark.n_experiences() {
                self.learn(Some(index))?;
                if self.interrupted() {
                    break;
                }
            }
        }
        let summary = self.finish()?;
        self.scores.print(&summary, self.console);
        self.console.line(format_args!(
            "\nwritten to {}",
            self.folder.path().display()
        ));
        if summary.interrupted {
            return Err(Error::Interrupted(format!(
                "interrupted after {} steps; what was learned until then is in {}",
                summary.steps,
                self.folder.path().display()
            )));
        }
        Ok(Finished {
            folder: self.folder.path().to_path_buf(),
            summary,
        })
    }

    /// Trains on one experience (`None`: on all of them at once) and evaluates.
    fn learn(&mut self, index: Option<usize>) -> Result<()> {
        let start = Instant::now();
        let train = self.benchmark.train_stream();
        let samples = match index {
            Some(i) => {
                self.strategy.train(&train[i])?;
                train[i].dataset().len()
            }
            None => {
                self.strategy.train(train)?;
                train.iter().map(|e| e.dataset().len()).sum()
            }
        };
        let took = start.elapsed();
        self.training += took;
        if self.interrupted() {
            return Ok(());
        }
        self.samples += samples * self.config.train_epochs;
        let after = index.unwrap_or(self.benchmark.n_experiences() - 1);
        let result = self.strategy.eval(self.benchmark.test_stream())?;
        self.scores.add(after, &result, &mut lock(&self.metrics))?;
        if let Some(buffer) = &self.strategy.state().storage_policy {
            self.buffer.push(buffer.counts_per_class());
        }
        self.line(index, samples, took, &result);
        Ok(())
    }

    fn line(&self, index: Option<usize>, samples: usize, took: Duration, result: &EvalResult) {
        let what = match index {
            Some(i) => format!("experience {}", self.experience_name(i)),
            None => "all experiences".into(),
        };
        self.console.line(format_args!(
            "{what}: {samples} samples in {:.2} s, test accuracy {} (class), {} (task)",
            took.as_secs_f64(),
            percent(stream(result, |e| e.correct)),
            percent(stream(result, |e| e.correct_task)),
        ));
    }

    fn finish(&self) -> Result<Summary> {
        let summary = self.summary();
        lock(&self.metrics).summary(&summary)?;
        let tape = &self.strategy.state().tape;
        save_model(&self.folder.model(), &tape.state_dict(), &tape.batches())?;
        report::write(&self.folder.report(), &self.report(&summary))?;
        Ok(summary)
    }

    fn summary(&self) -> Summary {
        let seconds = self.training.as_secs_f64();
        let Scores {
            class,
            task,
            stream,
        } = &self.scores;
        Summary {
            accuracy: class.average_accuracy(),
            accuracy_task: task.average_accuracy(),
            accuracy_stream: *stream,
            accuracy_incremental: class.average_incremental_accuracy(),
            forgetting: class.forgetting(),
            forgetting_max: class.max_forgetting(),
            backward_transfer: class.backward_transfer(),
            // The samples of an interrupted experience were not counted, its time was.
            samples_per_second: (!self.interrupted() && seconds > 0.0)
                .then(|| self.samples as f64 / seconds),
            seconds,
            steps: self.strategy.state().clock.train_iterations,
            seed: self.config.seed,
            benchmark_seed: self.config.benchmark_seed.unwrap_or(self.config.seed),
            version: env!("CARGO_PKG_VERSION"),
            interrupted: self.interrupted(),
        }
    }

    fn report(&self, summary: &Summary) -> ReportData {
        let some = |rows: &[Vec<f64>]| -> Vec<Vec<Option<f64>>> {
            rows.iter()
                .map(|row| row.iter().copied().map(Some).collect())
                .collect()
        };
        let settings = self.config.to_table();
        let losses = lock(&self.metrics)
            .iterations()
            .iter()
            .map(|i| LossPoint {
                step: i.step,
                experience: i.experience,
                loss: i.loss.into(),
                current: i.loss_current.into(),
                logits: i.loss_logits.into(),
                replay: i.loss_replay.into(),
            })
            .collect();
        ReportData {
            title: format!("{} on {}", self.method(), self.benchmark.name()),
            subtitle: format!(
                "seed {}, unforget {}{}",
                summary.seed,
                summary.version,
                if summary.interrupted {
                    ", interrupted"
                } else {
                    ""
                }
            ),
            settings: settings.into_iter().map(|(k, v)| (k, plain(&v))).collect(),
            summary: summary.figures(),
            accuracy: some(self.scores.class.rows()),
            accuracy_task: some(self.scores.task.rows()),
            experience_names: (0..self.benchmark.n_experiences())
                .map(|i| self.experience_name(i))
                .collect(),
            losses,
            buffer: self.buffer.clone(),
        }
    }

    /// The method under the name of the papers.
    fn method(&self) -> &'static str {
        match self.config.strategy {
            StrategyName::Der if self.config.beta > 0.0 => "DER++",
            StrategyName::Der => "DER",
            StrategyName::Naive => "naive fine-tuning",
            StrategyName::Cumulative => "cumulative training",
            StrategyName::Joint => "joint training",
            StrategyName::Replay => "experience replay",
        }
    }

    /// "2 (classes 4, 7)"; just the number where an experience holds every class.
    fn experience_name(&self, index: usize) -> String {
        let classes = self.benchmark.original_classes_in_exp().get(index);
        match classes {
            Some(classes) if classes.len() < self.benchmark.n_classes() => {
                let list: Vec<_> = classes.iter().map(u32::to_string).collect();
                format!("{index} (classes {})", list.join(", "))
            }
            _ => index.to_string(),
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// A string without its quotes, anything else as TOML writes it.
fn plain(value: &toml::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_string)
}

/// A panic elsewhere leaves complete lines behind, so its poison changes nothing here.
fn lock(metrics: &Mutex<MetricsFile>) -> MutexGuard<'_, MetricsFile> {
    metrics
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
