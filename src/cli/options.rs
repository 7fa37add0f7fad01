//! The options, under the names of the configuration. Every one is optional here: what is not
//! given comes from the file of `--config`, then from the defaults. Whole numbers are signed so
//! that a negative one reaches the check that names the option.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use unforget::experiment::{
    BenchmarkName, DataSource, DeviceName, HeadName, LoggerName, Mnist360Test, ModeName, ModelName,
    PrecisionName, StrategyName,
};

/// The options of `unforget train`.
#[derive(Args, Serialize)]
pub struct TrainOptions {
    #[command(flatten)]
    #[serde(flatten)]
    benchmark: BenchmarkOptions,
    #[command(flatten)]
    #[serde(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    #[serde(flatten)]
    strategy: StrategyOptions,
    #[command(flatten)]
    #[serde(flatten)]
    run: RunOptions,
    /// Read options from a TOML file; those on the command line go before
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Go on with the run in this folder from its last checkpoint; only --threads,
    /// --num-workers, --prefetch-factor and --quiet may be given with it
    #[arg(
        long,
        value_name = "RUNDIR",
        help_heading = "Run",
        conflicts_with = "config"
    )]
    #[serde(skip)]
    pub resume: Option<PathBuf>,
}

/// The options of `unforget eval`.
#[derive(Args, Serialize)]
pub struct EvalOptions {
    /// A safetensors file, or a run folder (whose config.toml then gives the other options)
    #[arg(long = "model", value_name = "FILE|RUNDIR")]
    #[serde(skip)]
    pub model: PathBuf,
    /// Also write the inputs, logits and labels of the test stream to this safetensors file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub save_logits: Option<PathBuf>,
    /// The network that the weights belong to [default: mlp]
    #[arg(long = "network", value_parser = PossibleValuesParser::new(ModelName::NAMES))]
    #[serde(rename = "model")]
    network: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    benchmark: BenchmarkOptions,
    #[command(flatten)]
    #[serde(flatten)]
    sizes: SizeOptions,
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonOptions,
    /// Read options from a TOML file; those on the command line go before
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Benchmark")]
struct BenchmarkOptions {
    /// The stream of experiences [default: split-mnist]
    #[arg(long, value_parser = PossibleValuesParser::new(BenchmarkName::NAMES))]
    benchmark: Option<String>,
    /// Where samples come from [default: full with --data-dir and for all but MNIST, else embedded]
    #[arg(long, value_parser = PossibleValuesParser::new(DataSource::NAMES))]
    data: Option<String>,
    /// The folder with the data set's files; implies --data full
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Experiences in the stream [default: the paper's for its benchmarks, else 5]
    #[arg(long, value_name = "N")]
    n_experiences: Option<i64>,
    /// Seeds class order, permutations and angles [default: the value of --seed]
    #[arg(long, value_name = "N")]
    benchmark_seed: Option<i64>,
    /// Draw the class order instead of taking it ascending [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    shuffle: Option<bool>,
    /// The class order itself, with commas between
    #[arg(long, value_name = "C,C,..", value_delimiter = ',')]
    fixed_class_order: Option<Vec<u32>>,
    /// Number the classes of every experience from 0 [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    class_ids_from_zero_in_each_exp: Option<bool>,
    /// Number the classes in the order in which they are met [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    class_ids_from_zero_from_first_exp: Option<bool>,
    /// Give every experience its own task label [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    return_task_id: Option<bool>,
    /// The angles of rotated-mnist in degrees, with commas between [default: drawn]
    #[arg(long, value_name = "A,A,..", value_delimiter = ',')]
    rotations_list: Option<Vec<f64>>,
    /// The test images of mnist-360 [default: every-image; the paper has random-batches]
    #[arg(long, value_parser = PossibleValuesParser::new(Mnist360Test::NAMES))]
    mnist360_test: Option<String>,
}

#[derive(Args, Serialize)]
#[command(next_help_heading = "Model")]
struct ModelOptions {
    /// The network [default: mlp, which is 784-100-100-classes]
    #[arg(long, value_parser = PossibleValuesParser::new(ModelName::NAMES))]
    model: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    sizes: SizeOptions,
    /// Initialise mlp as the papers do instead of as PyTorch does [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    xavier: Option<bool>,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Model")]
struct SizeOptions {
    /// The last layer: the network's own, one that grows with the classes, or one for each task (with
    /// --return-task-id) [default: own]
    #[arg(long, value_parser = PossibleValuesParser::new(HeadName::NAMES))]
    head: Option<String>,
    /// Neurons in a hidden layer [default: mlp 100, simple-mlp 512]
    #[arg(long, value_name = "N")]
    hidden_size: Option<i64>,
    /// Hidden layers [default: mlp 2, simple-mlp 1]
    #[arg(long, value_name = "N")]
    hidden_layers: Option<i64>,
    /// Dropout probability [default: simple-mlp 0.5, simple-cnn 0.25]
    #[arg(long, value_name = "P")]
    drop_rate: Option<f64>,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Strategy")]
struct StrategyOptions {
    /// How to learn [default: der]
    #[arg(long, value_parser = PossibleValuesParser::new(StrategyName::NAMES))]
    strategy: Option<String>,
    /// Whose algorithm der and replay are [default: avalanche]
    #[arg(long, value_parser = PossibleValuesParser::new(ModeName::NAMES))]
    mode: Option<String>,
    /// Learning rate of SGD [default: 0.03]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// Momentum of SGD [default: 0]
    #[arg(long, value_name = "X")]
    momentum: Option<f64>,
    /// Dampening of the momentum [default: 0]
    #[arg(long, value_name = "X")]
    dampening: Option<f64>,
    /// Nesterov's momentum [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    nesterov: Option<bool>,
    /// L2 penalty [default: 0]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Samples in the replay buffer [default: 200]
    #[arg(long, value_name = "N")]
    mem_size: Option<i64>,
    /// With --mode paper, replace stored samples of the class that has most [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    balanced_reservoir: Option<bool>,
    /// Replayed samples in a step [default: the value of --train-mb-size]
    #[arg(long, value_name = "N")]
    batch_size_mem: Option<i64>,
    /// Weight of the replayed logits, or of LwF's distillation; for MAS the share of the earlier
    /// importance [default: 0.2]
    #[arg(long, value_name = "X")]
    alpha: Option<f64>,
    /// Weight of the replayed labels; 0 is DER, above is DER++ [default: 0.5]
    #[arg(long, value_name = "X")]
    beta: Option<f64>,
    /// Weight of EWC's penalty [default: 1]
    #[arg(long, value_name = "X")]
    ewc_lambda: Option<f64>,
    /// Online EWC: how much of the earlier importance stays [default: a penalty an experience]
    #[arg(long, value_name = "X")]
    decay_factor: Option<f64>,
    /// Temperature of LwF's distillation [default: 2]
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Weight of Synaptic Intelligence's penalty [default: 1]
    #[arg(long, value_name = "X")]
    si_lambda: Option<f64>,
    /// Weight of MAS's penalty [default: 1]
    #[arg(long, value_name = "X")]
    lambda_reg: Option<f64>,
    /// Samples of each experience in the memory of gem and agem [default: 256]
    #[arg(long, value_name = "N")]
    patterns_per_exp: Option<i64>,
    /// Samples for each of A-GEM's reference gradients [default: 256]
    #[arg(long, value_name = "N")]
    sample_size: Option<i64>,
    /// How much GEM favours earlier experiences [default: 0.5]
    #[arg(long, value_name = "X")]
    memory_strength: Option<f64>,
    /// Current samples in a step [default: 10]
    #[arg(long, value_name = "N")]
    train_mb_size: Option<i64>,
    /// Passes over each experience [default: 1]
    #[arg(long, value_name = "N")]
    train_epochs: Option<i64>,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Run")]
struct RunOptions {
    /// Seeds the weights, the order of the samples and the buffer [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<i64>,
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonOptions,
    /// Write the losses of every N-th step [default: 10]
    #[arg(long, value_name = "N")]
    log_every: Option<i64>,
    /// What to write besides metrics.jsonl, with commas between; or none [default: csv,tensorboard]
    #[arg(long, value_name = "L,L,..", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(LoggerName::NAMES))]
    loggers: Option<Vec<String>>,
    /// Write a checkpoint every so many steps [default: 0, every 30 seconds]
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<i64>,
    /// The folder to write, new or empty [default: runs/TIME-STRATEGY-BENCHMARK]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Run")]
struct CommonOptions {
    /// Samples in a batch of the evaluation [default: 256]
    #[arg(long, value_name = "N")]
    eval_mb_size: Option<i64>,
    /// Where to compute: cpu, cuda (the first NVIDIA GPU), cuda:N, or auto for a GPU if there is one
    /// [default: cpu]
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Option<String>,
    /// How products and convolutions multiply: tf32 and bf16 on a GPU's tensor cores, high and bf16 on a
    /// CPU with AMX (bf16 also with AMD's AVX512-BF16) [default: f32]
    #[arg(long, value_parser = PossibleValuesParser::new(PrecisionName::NAMES))]
    precision: Option<String>,
    /// Threads, 0 for one a core; never changes the result. Convolutions gain most; steps of an MLP
    /// gain from a second one if its core is near [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<i64>,
    /// Threads that gather the coming mini-batches while the step runs; never changes the result. For
    /// data that is costly to decode or to vary [default: 0, the step gathers its own]
    #[arg(long, value_name = "N")]
    num_workers: Option<i64>,
    /// Mini-batches that each of them may be ahead [default: 2]
    #[arg(long, value_name = "N")]
    prefetch_factor: Option<i64>,
    /// Print nothing but errors
    #[arg(long, num_args = 0, default_missing_value = "true")]
    quiet: Option<bool>,
}

impl TrainOptions {
    /// The options that were given.
    pub fn to_table(&self) -> toml::Table {
        table(self)
    }
}

impl EvalOptions {
    /// The options that were given.
    pub fn to_table(&self) -> toml::Table {
        table(self)
    }
}

/// The word as it is, if it names a device.
fn device(word: &str) -> Result<String, String> {
    DeviceName::try_from(word.to_string()).map(|_| word.to_string())
}

/// An option that was not given leaves no entry.
fn table(options: &impl Serialize) -> toml::Table {
    toml::Table::try_from(options).expect("options are a flat table")
}
