//! Continual learning in pure Rust.

pub mod backend;
pub mod benchmarks;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod evaluation;
pub mod experiment;
pub mod figure;
pub mod graph;
pub mod logging;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod pixels;
pub mod replay;
pub mod report;
pub mod rng;
pub mod shape;
pub mod snapshot;
pub mod tape;
pub mod template;
pub mod training;

#[doc = include_str!("../docs/avalanche.md")]
pub mod avalanche {}

pub use error::{Error, Result};
pub use ndarray;

/// What most programs need.
pub mod prelude {
    pub use crate::benchmarks::{
        Benchmark, Experience, Mnist360, NcBenchmark, NiBenchmark, PermutedMnist, RotatedMnist,
        SplitCifar10, SplitCifar100, SplitFmnist, SplitMnist, SplitTinyImageNet, Stream,
    };
    pub use crate::data::{ClassificationDataset, Dataset, Transform, TransformGroups};
    pub use crate::error::{Error, Result};
    pub use crate::logging::{
        CsvLogger, InteractiveLogger, TensorBoardLogger, TextLogger, default_evaluator,
    };
    pub use crate::nn::{
        Adaptation, BatchNorm, Conv2d, Head, IncrementalClassifier, LeNet5, Linear, Mlp, Module,
        MultiHeadClassifier, ResNet18, ResNet32, SimpleCnn, SimpleMlp, as_multitask,
        with_incremental_head, with_multi_head,
    };
    pub use crate::optim::Sgd;
    pub use crate::tape::{Device, Mode, Tape, Var};
    pub use crate::training::{
        Cumulative, Der, EvalResult, Joint, Naive, Plugin, Replay, State, Strategy,
    };
}
