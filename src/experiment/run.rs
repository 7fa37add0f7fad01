//! One training run, from the configuration to the folder it leaves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::benchmarks::Benchmark;
use crate::checkpoint::{read_snapshot, save_model, write_atomically};
use crate::logging::{Console, IterationLog, MetricsFile, ProgressBars, percent};
use crate::report::{self, LossPoint, ReportData};
use crate::training::{EvalResult, Strategy, StrategyBuilder};
use crate::{Error, Result};

use super::build;
use super::config::{Config, StrategyName};
use super::folder::RunFolder;
use super::keep::{Checkpoints, Progress, lock};
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
/// Checkpoints are written as the configuration says. When `interrupt` is raised, the training stops
/// after the step it is in; what there is gets written all the same, and [`resume`] goes on from
/// there.
///
/// # Errors
/// [`Error::Config`] for an impossible configuration or an `out` that is in use,
/// [`Error::DataMissing`] and [`Error::Format`] for the data, [`Error::Io`] for the folder,
/// [`Error::NonFinite`] if the training diverges, [`Error::Interrupted`].
pub fn train(config: &Config, interrupt: &Arc<AtomicBool>) -> Result<Finished> {
    let config = config.clone().resolve()?;
    build::in_pool(&config, || Run::start(&config, interrupt)?.go())
}

/// Goes on with the run in `folder` from its last checkpoint (from its beginning, if it has none)
/// as if it had never been cut: every later loss and the final weights are the same, bit for bit.
/// `config` is the one in the folder.
///
/// # Errors
/// As for [`train`]; [`Error::Checkpoint`] and [`Error::Format`] if the checkpoint is damaged or of
/// another run.
pub fn resume(
    config: &Config,
    folder: &RunFolder,
    interrupt: &Arc<AtomicBool>,
) -> Result<Finished> {
    let config = config.clone().resolve()?;
    build::in_pool(&config, || {
        Run::again(&config, folder.clone(), interrupt)?.go()
    })
}

struct Run<'a> {
    config: &'a Config,
    interrupt: &'a AtomicBool,
    console: Console,
    benchmark: Benchmark,
    folder: RunFolder,
    strategy: Strategy,
    checkpoints: Checkpoints,
}

impl<'a> Run<'a> {
    fn start(config: &'a Config, interrupt: &'a Arc<AtomicBool>) -> Result<Self> {
        let benchmark = build::benchmark(config)?;
        // Before the folder: a model that cannot be built must not leave an empty one behind.
        let builder = build::strategy(config, &benchmark)?;
        let (strategy_name, name) = (config.strategy.name(), config.benchmark.name());
        let folder = RunFolder::create(config.out.as_deref(), strategy_name, name)?;
        let text = toml::to_string(config).expect("a config is a flat table of TOML values");
        let text = format!(
            "# Repeat this run: unforget train --config {}\n{text}",
            folder.config().display()
        );
        write_atomically(&folder.config(), text.as_bytes())?;
        let metrics = MetricsFile::create(&folder.metrics())?;
        let progress = Progress::default();
        Run::with(
            config, interrupt, benchmark, builder, folder, progress, metrics,
        )
    }

    fn again(
        config: &'a Config,
        folder: RunFolder,
        interrupt: &'a Arc<AtomicBool>,
    ) -> Result<Self> {
        let benchmark = build::benchmark(config)?;
        let builder = build::strategy(config, &benchmark)?;
        let path = folder.checkpoint();
        let snapshot = path.exists().then(|| read_snapshot(&path)).transpose()?;
        let progress: Progress = match &snapshot {
            Some(snapshot) => snapshot.at("run").get("progress")?,
            None => Progress::default(),
        };
        let metrics = match (&snapshot, folder.metrics().exists()) {
            (None, false) => MetricsFile::create(&folder.metrics())?,
            _ => MetricsFile::resume(&folder.metrics(), progress.metrics_bytes)?,
        };
        let mut run = Run::with(
            config, interrupt, benchmark, builder, folder, progress, metrics,
        )?;
        if let Some(snapshot) = snapshot {
            run.strategy.load(&snapshot, run.benchmark.train_stream())?;
            let steps = run.strategy.state().clock.train_iterations;
            run.console
                .line(format_args!("going on after step {steps}"));
        }
        Ok(run)
    }

    fn with(
        config: &'a Config,
        interrupt: &'a Arc<AtomicBool>,
        benchmark: Benchmark,
        mut builder: StrategyBuilder,
        folder: RunFolder,
        progress: Progress,
        metrics: MetricsFile,
    ) -> Result<Self> {
        let console = Console {
            quiet: config.quiet,
        };
        let checkpoints = Checkpoints::new(
            folder.checkpoint(),
            config.checkpoint_every as u64,
            Arc::clone(interrupt),
            progress,
            metrics,
        );
        builder = builder
            .evaluator(loggers::evaluator(config, &folder)?)
            .plugin(IterationLog {
                file: Arc::clone(&checkpoints.metrics),
                every: config.log_every as u64,
            })
            .keeper(checkpoints.clone());
        if console.shows_progress() {
            builder = builder.plugin(ProgressBars::new(Arc::clone(interrupt)));
        }
        Ok(Run {
            config,
            interrupt,
            console,
            strategy: builder.build()?,
            benchmark,
            folder,
            checkpoints,
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
        match self.learn_all() {
            Ok(()) | Err(Error::Interrupted(_)) => {}
            Err(error) => return Err(error),
        }
        let summary = self.finish()?;
        lock(&self.checkpoints.progress)
            .scores
            .print(&summary, self.console);
        self.console.line(format_args!(
            "\nwritten to {}",
            self.folder.path().display()
        ));
        if summary.interrupted {
            let folder = self.folder.path().display();
            return Err(Error::Interrupted(format!(
                "interrupted after {} steps; what was learned until then is in {folder}; to go on: \
                 unforget train --resume {folder}",
                summary.steps,
            )));
        }
        Ok(Finished {
            folder: self.folder.path().to_path_buf(),
            summary,
        })
    }

    /// Every experience not finished yet, with a checkpoint at the end.
    fn learn_all(&mut self) -> Result<()> {
        for index in self.done()..self.calls() {
            self.learn(index)?;
            let last = index + 1 == self.calls();
            let steps = self.strategy.state().clock.train_iterations;
            if last || self.interrupted() || self.checkpoints.is_due(steps) {
                self.checkpoints.write(self.strategy.save(), false)?;
            }
            if self.interrupted() && !last {
                return Err(Error::Interrupted("interrupted".into()));
            }
        }
        Ok(())
    }

    /// Calls of `train` in the whole run.
    fn calls(&self) -> usize {
        match self.config.strategy {
            StrategyName::Joint => 1,
            _ => self.benchmark.n_experiences(),
        }
    }

    /// Calls of `train` that came to their end.
    fn done(&self) -> usize {
        self.strategy.state().clock.train_exp_counter as usize
    }

    /// Trains on one experience (joint training: on all of them at once) and evaluates.
    fn learn(&mut self, index: usize) -> Result<()> {
        let start = Instant::now();
        *lock(&self.checkpoints.started) = start;
        let train = self.benchmark.train_stream();
        let (index, samples) = match self.config.strategy {
            StrategyName::Joint => {
                self.strategy.train(train)?;
                (None, train.iter().map(|e| e.dataset().len()).sum())
            }
            _ => {
                self.strategy.train(&train[index])?;
                (Some(index), train[index].dataset().len())
            }
        };
        let took = start.elapsed();
        let after = index.unwrap_or(self.benchmark.n_experiences() - 1);
        let result = self.strategy.eval(self.benchmark.test_stream())?;
        let mut progress = lock(&self.checkpoints.progress);
        progress.training += took;
        progress.samples += samples * self.config.train_epochs;
        let metrics = &mut lock(&self.checkpoints.metrics);
        progress.scores.add(after, &result, metrics)?;
        if let Some(buffer) = &self.strategy.state().storage_policy {
            progress.buffer.push(buffer.counts_per_class());
        }
        drop(progress);
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
        lock(&self.checkpoints.metrics).summary(&summary)?;
        let tape = &self.strategy.state().tape;
        save_model(&self.folder.model(), &tape.state_dict(), &tape.batches())?;
        report::write(&self.folder.report(), &self.report(&summary))?;
        Ok(summary)
    }

    fn summary(&self) -> Summary {
        let progress = lock(&self.checkpoints.progress);
        let interrupted = self.done() < self.calls();
        let seconds = progress.training.as_secs_f64();
        let Scores {
            class,
            task,
            stream,
        } = &progress.scores;
        Summary {
            accuracy: class.average_accuracy(),
            accuracy_task: task.average_accuracy(),
            accuracy_stream: *stream,
            accuracy_incremental: class.average_incremental_accuracy(),
            forgetting: class.forgetting(),
            forgetting_max: class.max_forgetting(),
            backward_transfer: class.backward_transfer(),
            // The samples of an interrupted experience were not counted, its time was.
            samples_per_second: (!interrupted && seconds > 0.0)
                .then(|| progress.samples as f64 / seconds),
            seconds,
            steps: self.strategy.state().clock.train_iterations,
            seed: self.config.seed,
            benchmark_seed: self.config.benchmark_seed.unwrap_or(self.config.seed),
            version: env!("CARGO_PKG_VERSION"),
            interrupted,
        }
    }

    fn report(&self, summary: &Summary) -> ReportData {
        let some = |rows: &[Vec<f64>]| -> Vec<Vec<Option<f64>>> {
            rows.iter()
                .map(|row| row.iter().copied().map(Some).collect())
                .collect()
        };
        let settings = self.config.to_table();
        let progress = lock(&self.checkpoints.progress);
        let losses = lock(&self.checkpoints.metrics)
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
            accuracy: some(progress.scores.class.rows()),
            accuracy_task: some(progress.scores.task.rows()),
            experience_names: (0..self.benchmark.n_experiences())
                .map(|i| self.experience_name(i))
                .collect(),
            losses,
            buffer: progress.buffer.clone(),
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
            StrategyName::ErAce => "ER-ACE",
            StrategyName::Mir => "MIR",
            StrategyName::GDumb => "GDumb",
            StrategyName::Agem => "A-GEM",
            StrategyName::Gem => "GEM",
            StrategyName::Ewc => "EWC",
            StrategyName::Si => "Synaptic Intelligence",
            StrategyName::Mas => "MAS",
            StrategyName::Lwf => "LwF",
            StrategyName::FromScratch => "training from scratch",
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
