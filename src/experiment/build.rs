//! A configuration's words made into a benchmark, a model and a strategy.

use std::path::Path;

use crate::Result;
use crate::benchmarks::{Benchmark, PermutedMnist, RotatedMnist, SplitFmnist, SplitMnist};
use crate::data::locate::{self, Kind};
use crate::data::{Dataset, embedded};
use crate::nn::Module;
use crate::nn::models::{self, ModelOptions};
use crate::optim::Sgd;
use crate::tape::{Precision, Tape};
use crate::training::{Cumulative, Der, Joint, Naive, Replay, StrategyBuilder};

use super::config::{BenchmarkName, Config, DataSource, PrecisionName, StrategyName};

/// Reads the data and makes the stream of experiences.
pub(super) fn benchmark(config: &Config) -> Result<Benchmark> {
    let (train, test) = datasets(config)?;
    let (n, seed) = (
        config.n_experiences,
        config.benchmark_seed.unwrap_or(config.seed),
    );
    match config.benchmark {
        BenchmarkName::PermutedMnist => PermutedMnist::from_datasets(train, test)
            .n_experiences(n)
            .seed(seed)
            .return_task_id(config.return_task_id)
            .build(),
        BenchmarkName::RotatedMnist => {
            let mut builder = RotatedMnist::from_datasets(train, test)
                .n_experiences(n)
                .seed(seed)
                .return_task_id(config.return_task_id);
            if let Some(angles) = &config.rotations_list {
                builder = builder.rotations_list(angles.clone());
            }
            builder.build()
        }
        BenchmarkName::SplitMnist | BenchmarkName::SplitFmnist => {
            let builder = if config.benchmark == BenchmarkName::SplitMnist {
                SplitMnist::from_datasets(train, test)
            } else {
                SplitFmnist::from_datasets(train, test)
            };
            let mut builder = builder
                .n_experiences(n)
                .seed(seed)
                .shuffle(config.shuffle)
                .class_ids_from_zero_in_each_exp(config.class_ids_from_zero_in_each_exp)
                .class_ids_from_zero_from_first_exp(config.class_ids_from_zero_from_first_exp)
                .return_task_id(config.return_task_id);
            if let Some(order) = &config.fixed_class_order {
                builder = builder.fixed_class_order(order.clone());
            }
            builder.build()
        }
    }
}

fn datasets(config: &Config) -> Result<(Dataset, Dataset)> {
    if config.data == Some(DataSource::Embedded) {
        return Ok(embedded::mnist_tenth());
    }
    let kind = match config.benchmark {
        BenchmarkName::SplitFmnist => Kind::FashionMnist,
        _ => Kind::Mnist,
    };
    locate::load(kind, config.data_dir.as_deref().map(Path::new))
}

/// Seeds a tape, builds the model on it and gives both to the strategy, which lacks only plugins.
pub(super) fn strategy(config: &Config, benchmark: &Benchmark) -> Result<StrategyBuilder> {
    let (tape, model) = model(config, benchmark)?;
    let sgd = Sgd::new(config.lr as f32)
        .momentum(config.momentum as f32)
        .dampening(config.dampening as f32)
        .nesterov(config.nesterov)
        .weight_decay(config.weight_decay as f32);
    let builder = match config.strategy {
        StrategyName::Der => Der::builder(tape, model, sgd),
        StrategyName::Naive => Naive::builder(tape, model, sgd),
        StrategyName::Cumulative => Cumulative::builder(tape, model, sgd),
        StrategyName::Joint => Joint::builder(tape, model, sgd),
        StrategyName::Replay => Replay::builder(tape, model, sgd),
    }
    .mem_size(config.mem_size)
    .batch_size_mem(config.batch_size_mem)
    .alpha(config.alpha as f32)
    .beta(config.beta as f32)
    .train_mb_size(config.train_mb_size)
    .train_epochs(config.train_epochs)
    .eval_mb_size(config.eval_mb_size);
    Ok(builder)
}

fn model(config: &Config, benchmark: &Benchmark) -> Result<(Tape, Box<dyn Module>)> {
    let input = benchmark.train_stream()[0].dataset().shape();
    let options = ModelOptions {
        hidden_size: config.hidden_size,
        hidden_layers: config.hidden_layers,
        drop_rate: config.drop_rate.map(|rate| rate as f32),
        xavier: config.xavier,
    };
    let mut tape = Tape::new(config.device.device())?;
    tape.set_precision(match config.precision {
        PrecisionName::F32 => Precision::Full,
        PrecisionName::Tf32 => Precision::Tf32,
        PrecisionName::Bf16 => Precision::Bf16,
    })?;
    tape.manual_seed(config.seed);
    let name = config.model.name();
    let model = models::build(name, &mut tape, input, benchmark.n_classes(), &options)?;
    Ok((tape, model))
}

/// Runs `work` in a pool of the configured number of threads: the whole loop inside one pool, so
/// that no step pays for handing work over to it. Running out of memory anywhere in it is an error.
pub(super) fn in_pool<T: Send>(
    config: &Config,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads)
        .build()
        .map_err(|e| {
            crate::Error::config(
                "--threads",
                format!("threads that can start ({e})"),
                config.threads,
            )
        })?
        .install(|| Tape::guard(work))
}
