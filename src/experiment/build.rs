//! A configuration's words made into a benchmark, a model and a strategy.

use std::path::Path;

use crate::Result;
use crate::benchmarks::{
    Benchmark, Mnist360, Mnist360Evaluation, NcBenchmark, PermutedMnist, RotatedMnist,
    SplitCifar10, SplitCifar100, SplitFmnist, SplitMnist, SplitTinyImageNet,
};
use crate::data::locate;
use crate::data::{Dataset, embedded};
use crate::nn::Module;
use crate::nn::models::{self, HeadKind, ModelOptions};
use crate::optim::Sgd;
use crate::tape::{Precision, Tape};
use crate::training::{
    Agem, Cumulative, Der, ErAce, Ewc, EwcMode, FromScratchTraining, GDumb, Gem, Icarl, Joint, Lwf,
    Mas, Mir, Naive, PaperDer, PaperReplay, Replay, StrategyBuilder, SynapticIntelligence,
};

use super::config::{
    BenchmarkName, Config, DataSource, HeadName, Mnist360Test, ModeName, PrecisionName,
    StrategyName,
};

/// Reads the data and makes the stream of experiences.
pub(super) fn benchmark(config: &Config) -> Result<Benchmark> {
    let (train, test) = datasets(config)?;
    benchmark_of(config, train, test)
}

/// Makes the stream of experiences of data that was read before.
pub(super) fn benchmark_of(config: &Config, train: Dataset, test: Dataset) -> Result<Benchmark> {
    match config.benchmark {
        BenchmarkName::PermutedMnist => permuted(PermutedMnist::from_datasets(train, test), config),
        BenchmarkName::PMnist => permuted(PermutedMnist::paper(train, test), config),
        BenchmarkName::RotatedMnist => rotated(RotatedMnist::from_datasets(train, test), config),
        BenchmarkName::RMnist => rotated(RotatedMnist::paper(train, test), config),
        BenchmarkName::SMnist => ascending(SplitMnist::paper(train, test), config),
        BenchmarkName::SCifar10 => ascending(SplitCifar10::paper(train, test), config),
        BenchmarkName::SCifar100 => ascending(SplitCifar100::paper(train, test), config),
        BenchmarkName::STinyImageNet => ascending(SplitTinyImageNet::paper(train, test), config),
        BenchmarkName::Mnist360 => {
            let evaluation = match config.mnist360_test {
                Some(Mnist360Test::RandomBatches) => Mnist360Evaluation::RandomBatches,
                Some(Mnist360Test::FirstBatch) => Mnist360Evaluation::FirstBatch,
                Some(Mnist360Test::EveryImage) | None => Mnist360Evaluation::EveryImage,
            };
            Mnist360::from_datasets(train, test)
                .batch_size(config.train_mb_size)
                .seed(config.benchmark_seed.unwrap_or(config.seed))
                .evaluation(evaluation)
                .build()
        }
        BenchmarkName::SplitMnist => split(SplitMnist::from_datasets(train, test), config),
        BenchmarkName::SplitFmnist => split(SplitFmnist::from_datasets(train, test), config),
        BenchmarkName::SplitCifar10 => split(SplitCifar10::from_datasets(train, test), config),
        BenchmarkName::SplitCifar100 => split(SplitCifar100::from_datasets(train, test), config),
        BenchmarkName::SplitTinyImageNet => {
            split(SplitTinyImageNet::from_datasets(train, test), config)
        }
    }
}

/// A paper's split: its classes keep their order.
fn ascending(builder: NcBenchmark, config: &Config) -> Result<Benchmark> {
    builder
        .n_experiences(n_experiences(config))
        .return_task_id(config.return_task_id)
        .build()
}

/// A resolved configuration names the number.
fn n_experiences(config: &Config) -> usize {
    config.n_experiences.unwrap_or(5)
}

fn split(builder: NcBenchmark, config: &Config) -> Result<Benchmark> {
    let mut builder = builder
        .n_experiences(n_experiences(config))
        .seed(config.benchmark_seed.unwrap_or(config.seed))
        .shuffle(config.shuffle)
        .class_ids_from_zero_in_each_exp(config.class_ids_from_zero_in_each_exp)
        .class_ids_from_zero_from_first_exp(config.class_ids_from_zero_from_first_exp)
        .return_task_id(config.return_task_id);
    if let Some(order) = &config.fixed_class_order {
        builder = builder.fixed_class_order(order.clone());
    }
    builder.build()
}

fn permuted(builder: PermutedMnist, config: &Config) -> Result<Benchmark> {
    builder
        .n_experiences(n_experiences(config))
        .seed(config.benchmark_seed.unwrap_or(config.seed))
        .return_task_id(config.return_task_id)
        .build()
}

fn rotated(builder: RotatedMnist, config: &Config) -> Result<Benchmark> {
    let mut builder = builder
        .n_experiences(n_experiences(config))
        .seed(config.benchmark_seed.unwrap_or(config.seed))
        .return_task_id(config.return_task_id);
    if let Some(angles) = &config.rotations_list {
        builder = builder.rotations_list(angles.clone());
    }
    builder.build()
}

/// Reads the data.
pub(super) fn datasets(config: &Config) -> Result<(Dataset, Dataset)> {
    if config.data == Some(DataSource::Embedded) {
        return Ok(embedded::mnist_tenth());
    }
    let dir = config.data_dir.as_deref().map(Path::new);
    locate::load(config.benchmark.kind(), dir)
}

/// Seeds a tape, builds the model on it and gives both to the strategy, which lacks only plugins.
pub(super) fn strategy(config: &Config, benchmark: &Benchmark) -> Result<StrategyBuilder> {
    let (tape, model) = model(config, benchmark)?;
    let sgd = Sgd::new(config.lr as f32)
        .momentum(config.momentum as f32)
        .dampening(config.dampening as f32)
        .nesterov(config.nesterov)
        .weight_decay(config.weight_decay as f32);
    let builder = match (config.strategy, config.mode) {
        (StrategyName::Der, ModeName::Avalanche) => Der::builder(tape, model, sgd),
        (StrategyName::Der, ModeName::Paper) => PaperDer::builder(tape, model, sgd),
        (StrategyName::Naive, _) => Naive::builder(tape, model, sgd),
        (StrategyName::Cumulative, _) => Cumulative::builder(tape, model, sgd),
        (StrategyName::Joint, _) => Joint::builder(tape, model, sgd),
        (StrategyName::Replay, ModeName::Avalanche) => Replay::builder(tape, model, sgd),
        (StrategyName::Replay, ModeName::Paper) => PaperReplay::builder(tape, model, sgd),
        (StrategyName::ErAce, _) => ErAce::builder(tape, model, sgd),
        (StrategyName::Mir, _) => Mir::builder(tape, model, sgd),
        (StrategyName::Icarl, _) => Icarl::builder(tape, model, sgd),
        _ => with_plugin(config, tape, model, sgd),
    }
    .mem_size(config.mem_size)
    .balanced_reservoir(config.balanced_reservoir)
    .batch_size_mem(config.batch_size_mem)
    .alpha(config.alpha as f32)
    .beta(config.beta as f32)
    .train_mb_size(config.train_mb_size)
    .train_epochs(config.train_epochs)
    .eval_mb_size(config.eval_mb_size)
    .loader(config.loader());
    Ok(builder)
}

/// The strategies that are fine-tuning with a plugin. A resolved configuration has the options that
/// its strategy asks for.
fn with_plugin(config: &Config, tape: Tape, model: Box<dyn Module>, sgd: Sgd) -> StrategyBuilder {
    let number = |value: Option<f64>| value.unwrap_or_default() as f32;
    let count = |value: Option<usize>| value.unwrap_or_default();
    let alpha = config.alpha as f32;
    let patterns = count(config.patterns_per_exp);
    match config.strategy {
        StrategyName::GDumb => GDumb::new(config.mem_size).builder(tape, model, sgd),
        StrategyName::Agem => {
            Agem::new(patterns, count(config.sample_size)).builder(tape, model, sgd)
        }
        StrategyName::Gem => {
            Gem::new(patterns, number(config.memory_strength)).builder(tape, model, sgd)
        }
        StrategyName::Ewc => {
            let mode = match config.decay_factor {
                None => EwcMode::Separate,
                Some(decay_factor) => EwcMode::Online {
                    decay_factor: decay_factor as f32,
                },
            };
            let ewc = Ewc::new(number(config.ewc_lambda)).mode(mode);
            ewc.builder(tape, model, sgd)
        }
        StrategyName::Si => {
            SynapticIntelligence::new(number(config.si_lambda)).builder(tape, model, sgd)
        }
        StrategyName::Mas => Mas::new(number(config.lambda_reg), alpha).builder(tape, model, sgd),
        StrategyName::Lwf => Lwf::new(alpha, number(config.temperature)).builder(tape, model, sgd),
        StrategyName::FromScratch => FromScratchTraining::default().builder(tape, model, sgd),
        _ => Naive::builder(tape, model, sgd),
    }
}

fn model(config: &Config, benchmark: &Benchmark) -> Result<(Tape, Box<dyn Module>)> {
    let input = benchmark.train_stream()[0].dataset().shape();
    let options = ModelOptions {
        hidden_size: config.hidden_size,
        hidden_layers: config.hidden_layers,
        drop_rate: config.drop_rate.map(|rate| rate as f32),
        xavier: config.xavier,
        head: match config.head {
            HeadName::Own => HeadKind::Own,
            HeadName::Incremental => HeadKind::Incremental,
            HeadName::MultiHead => HeadKind::MultiHead,
        },
    };
    let mut tape = Tape::new(config.device.device())?;
    tape.set_precision(match config.precision {
        PrecisionName::F32 => Precision::Full,
        PrecisionName::High => Precision::High,
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
    Tape::on_threads(config.threads, || Tape::guard(work))?
}
