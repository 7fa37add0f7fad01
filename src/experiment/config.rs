//! Everything there is to say about a run, in one flat table: the names are the command line's
//! long options, so a `config.toml` reads like the command that made it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::locate::Kind;
use crate::training::LoaderOptions;
use crate::{Error, Result};

mod choices;
mod device;
mod strategy;

pub use choices::{
    BenchmarkName, DataSource, HeadName, LoggerName, Mnist360Test, ModeName, ModelName,
    PrecisionName, StrategyName,
};
pub use device::DeviceName;

/// A whole run. [`Config::default`] is the main job: DER++ on the embedded Split-MNIST.
///
/// ```
/// use unforget::experiment::Config;
/// let config = Config { lr: 0.1, ..Config::default() }.resolve()?;
/// assert_eq!((config.mem_size, config.benchmark_seed), (200, Some(0)));
/// assert!(Config { lr: f64::NAN, ..Config::default() }.resolve().is_err());
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Config {
    /// Which stream of experiences to learn.
    pub benchmark: BenchmarkName,
    /// Where the samples come from; unset: `full` with a `data_dir` and for all but MNIST,
    /// otherwise `embedded`.
    pub data: Option<DataSource>,
    /// The folder with the data set's files; unset: where [`crate::data`] looks by itself.
    pub data_dir: Option<PathBuf>,
    /// How many experiences the stream has; unset: as many as the paper's benchmarks have, else 5.
    pub n_experiences: Option<usize>,
    /// Seeds class order, permutations and angles; unset: `seed`.
    pub benchmark_seed: Option<u64>,
    /// Whether the class order is drawn (`true`) or ascending.
    pub shuffle: bool,
    /// The class order itself; overrides `shuffle`.
    pub fixed_class_order: Option<Vec<u32>>,
    /// Number the classes of every experience from 0.
    pub class_ids_from_zero_in_each_exp: bool,
    /// Number the classes in the order in which they are met.
    pub class_ids_from_zero_from_first_exp: bool,
    /// Give every experience its own task label.
    pub return_task_id: bool,
    /// The angles of rotated MNIST in degrees, one an experience; unset: drawn.
    pub rotations_list: Option<Vec<f64>>,
    /// Which test images of MNIST-360 are shown (`mnist-360`: every image).
    pub mnist360_test: Option<Mnist360Test>,

    /// Which network learns.
    pub model: ModelName,
    /// What its last layer is.
    pub head: HeadName,
    /// Neurons in a hidden layer (`mlp`: 100, `simple-mlp`: 512).
    pub hidden_size: Option<usize>,
    /// Hidden layers (`mlp`: 2, `simple-mlp`: 1).
    pub hidden_layers: Option<usize>,
    /// Dropout probability (`simple-mlp`: 0.5, `simple-cnn`: 0.25).
    pub drop_rate: Option<f64>,
    /// Initialise the MLP as the papers do (Xavier) rather than as PyTorch does.
    pub xavier: bool,

    /// How to learn.
    pub strategy: StrategyName,
    /// Whose algorithm `der` and `replay` are.
    pub mode: ModeName,
    /// Learning rate.
    pub lr: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Dampening of the momentum.
    pub dampening: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Samples in the replay buffer.
    pub mem_size: usize,
    /// Whether the paper's buffer replaces samples of the class that has most.
    pub balanced_reservoir: bool,
    /// Replayed samples a step; unset: `train_mb_size`.
    pub batch_size_mem: Option<usize>,
    /// Weight of the replayed logits.
    pub alpha: f64,
    /// Weight of the replayed labels; 0 is DER, above is DER++.
    pub beta: f64,
    /// Weight of EWC's penalty (1).
    pub ewc_lambda: Option<f64>,
    /// How much of the earlier importance stays in online EWC; unset: a penalty for each experience.
    pub decay_factor: Option<f64>,
    /// The temperature of LwF's distillation, whose weight is `alpha` (2).
    pub temperature: Option<f64>,
    /// Weight of Synaptic Intelligence's penalty (1).
    pub si_lambda: Option<f64>,
    /// Weight of MAS's penalty, in which `alpha` is the share of the earlier importance (1).
    pub lambda_reg: Option<f64>,
    /// Samples of each experience in the memory of GEM and A-GEM (256).
    pub patterns_per_exp: Option<usize>,
    /// Samples for each of A-GEM's reference gradients (256).
    pub sample_size: Option<usize>,
    /// How much GEM favours earlier experiences (0.5).
    pub memory_strength: Option<f64>,
    /// Current samples a step.
    pub train_mb_size: usize,
    /// Passes over each experience.
    pub train_epochs: usize,
    /// Samples in a batch of the evaluation (no influence on the result).
    pub eval_mb_size: usize,

    /// Seeds the initial weights, the order of the samples and the buffer.
    pub seed: u64,
    /// Where to compute. A GPU rounds differently from a processor.
    pub device: DeviceName,
    /// How products and convolutions multiply: `high` on a CPU, `tf32` on a GPU, `f32` and `bf16` on both.
    pub precision: PrecisionName,
    /// Threads; 0 is one for each core. The result does not depend on it.
    pub threads: usize,
    /// Threads that gather the coming mini-batches, of training and of evaluation; 0: the step gathers its
    /// own. The result does not depend on it.
    pub num_workers: usize,
    /// Mini-batches that each of them may be ahead.
    pub prefetch_factor: usize,
    /// Losses are written every so many steps.
    pub log_every: usize,
    /// What is written besides `metrics.jsonl`.
    pub loggers: Vec<LoggerName>,
    /// A checkpoint is written every so many steps; 0: every 30 seconds. (And at the end, and when
    /// the run is interrupted.)
    pub checkpoint_every: usize,
    /// The folder to write; unset: a new one under `runs/`. Never part of a written config.
    #[serde(skip_serializing)]
    pub out: Option<PathBuf>,
    /// Print errors only. Never part of a written config.
    #[serde(skip_serializing)]
    pub quiet: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            benchmark: BenchmarkName::SplitMnist,
            data: None,
            data_dir: None,
            n_experiences: None,
            benchmark_seed: None,
            shuffle: true,
            fixed_class_order: None,
            class_ids_from_zero_in_each_exp: false,
            class_ids_from_zero_from_first_exp: false,
            return_task_id: false,
            rotations_list: None,
            mnist360_test: None,
            model: ModelName::Mlp,
            head: HeadName::Own,
            hidden_size: None,
            hidden_layers: None,
            drop_rate: None,
            xavier: false,
            strategy: StrategyName::Der,
            mode: ModeName::Avalanche,
            lr: 0.03,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            mem_size: 200,
            balanced_reservoir: false,
            batch_size_mem: None,
            alpha: 0.2,
            beta: 0.5,
            ewc_lambda: None,
            decay_factor: None,
            temperature: None,
            si_lambda: None,
            lambda_reg: None,
            patterns_per_exp: None,
            sample_size: None,
            memory_strength: None,
            train_mb_size: 10,
            train_epochs: 1,
            eval_mb_size: 256,
            seed: 0,
            device: DeviceName::Cpu,
            precision: PrecisionName::F32,
            threads: 1,
            num_workers: 0,
            prefetch_factor: 2,
            log_every: 10,
            loggers: vec![LoggerName::Csv, LoggerName::TensorBoard],
            checkpoint_every: 0,
            out: None,
            quiet: false,
        }
    }
}

impl Config {
    /// Reads a TOML file as a table of options, after checking that it would make a configuration.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is not TOML, names an option
    /// that does not exist or gives one a value of the wrong type; [`Error::Config`] for a
    /// negative number.
    pub fn read_table(path: &Path) -> Result<toml::Table> {
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let bad = |e: toml::de::Error| {
            let line = e
                .span()
                .map_or(1, |s| text[..s.start].matches('\n').count() + 1);
            Error::format(
                path,
                "options in TOML",
                format!("in line {line}: {}", e.message().replace('\n', " ")),
                "`unforget train --help` lists the options, written without the dashes in front",
            )
        };
        let table: toml::Table = toml::from_str(&text).map_err(bad)?;
        refuse_negative(&table)?;
        toml::from_str::<Config>(&text).map_err(bad)?;
        Ok(table)
    }

    /// Lays tables of options over the defaults, later ones over earlier ones, and
    /// [resolves](Config::resolve) the outcome.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first option that is not possible.
    pub fn from_layers(layers: impl IntoIterator<Item = toml::Table>) -> Result<Self> {
        let mut all = Config::default().to_table();
        for layer in layers {
            refuse_negative(&layer)?;
            all.extend(layer);
        }
        all.try_into::<Config>()
            .map_err(|e| Error::config("options", "known names and types", e.message()))?
            .resolve()
    }

    /// The options that are set, under their names.
    pub fn to_table(&self) -> toml::Table {
        toml::Table::try_from(self).expect("a config is a flat table of TOML values")
    }

    /// Checks every value and fills in what follows from other options, so that the written
    /// configuration repeats the run whatever later versions take as defaults.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first option that is not possible.
    pub fn resolve(mut self) -> Result<Self> {
        self.resolve_benchmark()?;
        self.resolve_model()?;
        self.resolve_strategy()?;
        self.check_training()?;
        self.device = self.device.settled();
        Ok(self)
    }

    fn resolve_benchmark(&mut self) -> Result<()> {
        let name = self.benchmark.name();
        let only_files = self.benchmark.kind() != Kind::Mnist;
        let implied = if only_files || self.data_dir.is_some() {
            DataSource::Full
        } else {
            DataSource::Embedded
        };
        let data = *self.data.get_or_insert(implied);
        if data == DataSource::Embedded && implied == DataSource::Full {
            let why = if only_files {
                format!("for {name}")
            } else {
                "together with --data-dir".into()
            };
            return Err(Error::config("--data", format!("full {why}"), "embedded"));
        }
        let n_experiences = self.resolve_n_experiences()?;
        self.benchmark_seed.get_or_insert(self.seed);
        if self.class_ids_from_zero_in_each_exp && self.class_ids_from_zero_from_first_exp {
            return Err(Error::config(
                "--class-ids-from-zero-in-each-exp",
                "one of it and --class-ids-from-zero-from-first-exp",
                "both",
            ));
        }
        let split = self.benchmark.is_split();
        let only_split = [
            ("--fixed-class-order", self.fixed_class_order.is_some()),
            (
                "--class-ids-from-zero-in-each-exp",
                self.class_ids_from_zero_in_each_exp,
            ),
            (
                "--class-ids-from-zero-from-first-exp",
                self.class_ids_from_zero_from_first_exp,
            ),
        ];
        if let Some((option, _)) = only_split.iter().find(|(_, set)| *set && !split) {
            return Err(Error::config(option, "a split benchmark with it", name));
        }
        if let Some(angles) = &self.rotations_list {
            if !matches!(
                self.benchmark,
                BenchmarkName::RotatedMnist | BenchmarkName::RMnist
            ) {
                let wanted = "rotated-mnist or r-mnist with it";
                return Err(Error::config("--rotations-list", wanted, name));
            }
            if angles.len() != n_experiences {
                let wanted = format!("{n_experiences} angles, one an experience");
                return Err(Error::config("--rotations-list", wanted, angles.len()));
            }
            for &angle in angles {
                within("--rotations-list", angle, -360.0, 360.0)?;
            }
        }
        Ok(())
    }

    fn resolve_n_experiences(&mut self) -> Result<usize> {
        let stream = self.benchmark == BenchmarkName::Mnist360;
        let implied = match self.benchmark {
            BenchmarkName::PMnist | BenchmarkName::RMnist => 20,
            BenchmarkName::SCifar100 | BenchmarkName::STinyImageNet => 10,
            BenchmarkName::Mnist360 => 1,
            _ => 5,
        };
        let n = *self.n_experiences.get_or_insert(implied);
        at_least("--n-experiences", n, 1)?;
        if stream && n != 1 {
            let wanted = "1 with mnist-360, which is one stream without tasks";
            return Err(Error::config("--n-experiences", wanted, n));
        }
        if self.mnist360_test.is_some() && !stream {
            let found = self.benchmark.name();
            return Err(Error::config("--mnist360-test", "mnist-360 with it", found));
        }
        if stream {
            self.mnist360_test.get_or_insert(Mnist360Test::EveryImage);
        }
        Ok(n)
    }

    fn resolve_model(&mut self) -> Result<()> {
        let name = self.model.name();
        let (size, layers, drop) = match self.model {
            ModelName::Mlp => (Some(100), Some(2), None),
            ModelName::SimpleMlp => (Some(512), Some(1), Some(0.5)),
            ModelName::MtSimpleMlp => (Some(512), None, Some(0.5)),
            ModelName::SimpleCnn | ModelName::MtSimpleCnn => (None, None, Some(0.25)),
            _ => (None, None, None),
        };
        let unused = [
            (
                "--hidden-size",
                self.hidden_size.is_some() && size.is_none(),
            ),
            (
                "--hidden-layers",
                self.hidden_layers.is_some() && layers.is_none(),
            ),
            ("--drop-rate", self.drop_rate.is_some() && drop.is_none()),
            ("--xavier", self.xavier && self.model != ModelName::Mlp),
        ];
        if self.head != HeadName::Own && name.starts_with("mt-") {
            let expected = "own with a model that has a head for each task already";
            return Err(Error::config("--head", expected, self.head.name()));
        }
        if let Some((option, _)) = unused.iter().find(|(_, unused)| *unused) {
            return Err(Error::config(
                option,
                "a --model that has such a thing",
                name,
            ));
        }
        self.hidden_size = self.hidden_size.or(size);
        self.hidden_layers = self.hidden_layers.or(layers);
        self.drop_rate = self.drop_rate.or(drop);
        if let Some(size) = self.hidden_size {
            at_least("--hidden-size", size, 1)?;
            at_most("--hidden-size", size, 1 << 16)?;
        }
        if let Some(layers) = self.hidden_layers {
            at_least("--hidden-layers", layers, 1)?;
            at_most("--hidden-layers", layers, 1 << 10)?;
        }
        if let Some(rate) = self.drop_rate {
            within("--drop-rate", rate, 0.0, 0.999)?;
        }
        Ok(())
    }

    fn check_training(&self) -> Result<()> {
        const MAX: f64 = f32::MAX as f64;
        if !(self.lr > 0.0 && self.lr <= MAX) {
            return Err(Error::config("--lr", "a number above 0", self.lr));
        }
        within("--momentum", self.momentum, 0.0, MAX)?;
        within("--dampening", self.dampening, 0.0, 1.0)?;
        within("--weight-decay", self.weight_decay, 0.0, MAX)?;
        within("--alpha", self.alpha, 0.0, MAX)?;
        within("--beta", self.beta, 0.0, MAX)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let found = format!("momentum {}, dampening {}", self.momentum, self.dampening);
            return Err(Error::config(
                "--nesterov",
                "a momentum above 0 and no dampening",
                found,
            ));
        }
        if self.balanced_reservoir && self.mode != ModeName::Paper {
            let name = self.mode.name();
            return Err(Error::config("--balanced-reservoir", "--mode paper", name));
        }
        at_least("--mem-size", self.mem_size, 1)?;
        at_most("--mem-size", self.mem_size, u32::MAX as usize)?;
        for (option, size) in [
            ("--train-mb-size", Some(self.train_mb_size)),
            ("--eval-mb-size", Some(self.eval_mb_size)),
            ("--batch-size-mem", self.batch_size_mem),
        ] {
            if let Some(size) = size {
                at_least(option, size, 1)?;
                at_most(option, size, 1 << 20)?;
            }
        }
        at_least("--train-epochs", self.train_epochs, 1)?;
        at_least("--log-every", self.log_every, 1)?;
        if self.loggers.contains(&LoggerName::Nothing) && self.loggers.len() > 1 {
            let found = self.loggers.iter().map(|l| l.name()).collect::<Vec<_>>();
            let found = found.join(",");
            return Err(Error::config("--loggers", "none alone, or loggers", found));
        }
        self.loader().validate()?;
        at_most("--threads", self.threads, 1024)
    }

    /// How the strategy goes through its data.
    pub(super) fn loader(&self) -> LoaderOptions {
        LoaderOptions {
            num_workers: self.num_workers,
            prefetch_factor: self.prefetch_factor,
            ..LoaderOptions::default()
        }
    }
}

/// No option takes a negative whole number; said here, where the option's name is still known.
fn refuse_negative(table: &toml::Table) -> Result<()> {
    for (name, value) in table {
        if let toml::Value::Integer(number @ ..0) = value {
            return Err(Error::config(
                format!("--{name}"),
                "a number that is not negative",
                number,
            ));
        }
    }
    Ok(())
}

fn at_least(option: &str, value: usize, least: usize) -> Result<()> {
    if value < least {
        return Err(Error::config(option, format!("at least {least}"), value));
    }
    Ok(())
}

fn at_most(option: &str, value: usize, most: usize) -> Result<()> {
    if value > most {
        return Err(Error::config(option, format!("at most {most}"), value));
    }
    Ok(())
}

/// False for NaN on purpose.
fn within(option: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if !(low..=high).contains(&value) {
        let wanted = if high >= f32::MAX as f64 {
            format!("a number from {low} up")
        } else {
            format!("a number from {low} to {high}")
        };
        return Err(Error::config(option, wanted, value));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
