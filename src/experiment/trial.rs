//! One run of a grid: no folder, no report, one record.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::benchmarks::{Benchmark, Experience};
use crate::data::Dataset;
use crate::data::locate::Kind;
use crate::evaluation::EvaluationPlugin;
use crate::training::{EvalResult, Plugin, State};
use crate::{Error, Result};

use super::build;
use super::config::{Config, DataSource, StrategyName};
use super::record::{Record, forgetting};

/// Which data a configuration reads.
type Source = (Option<DataSource>, Kind, Option<PathBuf>);

/// The data sets of a grid, each read once.
#[derive(Default)]
pub(super) struct DataCache(Mutex<Vec<(Source, (Dataset, Dataset))>>);

impl DataCache {
    fn get(&self, config: &Config) -> Result<(Dataset, Dataset)> {
        let source = (
            config.data,
            config.benchmark.kind(),
            config.data_dir.clone(),
        );
        // Nothing is changed before it is complete, so a panic elsewhere leaves the list whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, data)) = known.iter().find(|(s, _)| *s == source) {
            return Ok(data.clone());
        }
        let data = build::datasets(config)?;
        known.push((source, data.clone()));
        Ok(data)
    }
}

/// How far a run has come, for whoever looks on.
#[derive(Default)]
pub(super) struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// The share of its steps that a run has done, 0 to 1.
    pub fn share(&self) -> f64 {
        let total = self.total.load(Ordering::Relaxed);
        self.done.load(Ordering::Relaxed) as f64 / total.max(1) as f64
    }

    /// No step is left: a run that diverged does fewer than it was to.
    fn finish(&self) {
        let total = self.total.load(Ordering::Relaxed);
        self.done.store(total, Ordering::Relaxed);
    }
}

/// Counts the steps, and ends the run at the first one after an interrupt.
struct Watch {
    name: String,
    meter: Arc<Meter>,
    interrupt: Arc<AtomicBool>,
}

impl Plugin for Watch {
    fn after_training_iteration(&mut self, _: &mut State) -> Result<()> {
        self.meter.done.fetch_add(1, Ordering::Relaxed);
        if self.interrupt.load(Ordering::Relaxed) {
            let text = format!("{} was not finished", self.name);
            return Err(Error::Interrupted(text));
        }
        Ok(())
    }
}

/// Trains as the resolved `config` says, evaluating after every experience on it and on those
/// before, all inside a pool of the configured number of threads.
///
/// # Errors
/// As for [`train`](super::train), but that divergence is an outcome to record; [`Error::Interrupted`] as
/// soon as `interrupt` is raised.
pub(super) fn run(
    name: &str,
    config: &Config,
    data: &DataCache,
    meter: &Arc<Meter>,
    interrupt: &Arc<AtomicBool>,
) -> Result<Record> {
    build::in_pool(config, || {
        let (train, test) = data.get(config)?;
        let start = Instant::now();
        let benchmark = build::benchmark_of(config, train, test)?;
        let joint = config.strategy == StrategyName::Joint;
        let total = steps(config, &benchmark, joint);
        meter.total.store(total, Ordering::Relaxed);
        // The records hold accuracies only, so that no metric is worth its time.
        let mut strategy = build::strategy(config, &benchmark)?
            .evaluator(EvaluationPlugin::new())
            .plugin(Watch {
                name: name.to_string(),
                meter: Arc::clone(meter),
                interrupt: Arc::clone(interrupt),
            })
            .build()?;
        let (mut rows, mut rows_task, mut training) = (Vec::new(), Vec::new(), Duration::ZERO);
        let (n, mut diverged) = (benchmark.n_experiences(), None);
        for last in if joint { n - 1..n } else { 0..n } {
            let train = benchmark.train_stream();
            let begin = Instant::now();
            let trained = if joint {
                strategy.train(train)
            } else {
                strategy.train(&train[last])
            };
            training += begin.elapsed();
            match trained {
                Err(Error::NonFinite(what)) => {
                    diverged = Some(what);
                    break;
                }
                other => other?,
            }
            let result = strategy.eval(&benchmark.test_stream().slice(0..last + 1))?;
            let (class, task) = percentages(&result);
            rows.push(class);
            rows_task.push(task);
        }
        meter.finish();
        let finished = diverged.is_none();
        let mean = |rows: &[Vec<f64>]| {
            let last = rows.last().filter(|_| finished)?;
            Some(last.iter().sum::<f64>() / last.len().max(1) as f64)
        };
        Ok(Record {
            name: name.to_string(),
            benchmark: config.benchmark.name().to_string(),
            method: config.strategy.name().to_string(),
            buffer: config.mem_size,
            seed: config.seed,
            accuracy: mean(&rows),
            accuracy_task: mean(&rows_task),
            forgetting: forgetting(&rows).filter(|_| finished),
            diverged,
            steps: strategy.state().clock.train_iterations,
            seconds: start.elapsed().as_secs_f64(),
            seconds_training: training.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            commit: None,
            config: config.to_table(),
            rows,
            rows_task,
        })
    })
}

/// Accuracies in per cent, experience by experience: of all outputs, of those of its classes.
fn percentages(result: &EvalResult) -> (Vec<f64>, Vec<f64>) {
    let experiences = result.experiences.iter();
    experiences
        .map(|e| (100.0 * e.accuracy(), 100.0 * e.accuracy_task()))
        .unzip()
}

/// The training steps that a run will take.
fn steps(config: &Config, benchmark: &Benchmark, joint: bool) -> u64 {
    let size = config.train_mb_size;
    let samples = |e: &Experience| e.dataset().len();
    let stream = benchmark.train_stream();
    let an_epoch: usize = if joint {
        stream.iter().map(samples).sum::<usize>().div_ceil(size)
    } else {
        let batches = |e| Experience::batches(e).map_or(samples(e).div_ceil(size), <[_]>::len);
        stream.iter().map(batches).sum()
    };
    (an_epoch * config.train_epochs) as u64
}
