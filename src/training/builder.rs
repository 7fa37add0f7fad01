//! Building a strategy: all constructor parameters under Avalanche's names, validated up front.

use super::periodic::PeriodicEval;
use super::{Keeper, Method, PevalMode, Strategy};
use crate::error::{Error, Result};
use crate::evaluation::EvaluationPlugin;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::Buffer;
use crate::tape::Tape;
use crate::template::{Criterion, LoaderOptions, Plugin, State, TaskBalanced};

type MakeMethod = fn(&mut StrategyBuilder) -> Result<Box<dyn Method>>;

/// A strategy under construction. Parameters that a method does not have are ignored by it, so that
/// strategies can be compared under the same settings.
pub struct StrategyBuilder {
    tape: Tape,
    pub(super) model: Box<dyn Module>,
    sgd: Sgd,
    make: MakeMethod,
    plugins: Vec<Box<dyn Plugin>>,
    evaluator: EvaluationPlugin,
    criterion: Option<Box<dyn Criterion>>,
    loader: LoaderOptions,
    eval_every: Option<usize>,
    peval_mode: PevalMode,
    keeper: Option<Box<dyn Keeper>>,
    train_mb_size: usize,
    train_epochs: usize,
    eval_mb_size: Option<usize>,
    batch_size_mem: Option<usize>,
    pub(super) mem_size: usize,
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) balanced_reservoir: bool,
    pub(super) buffer: Option<Buffer>,
}

impl StrategyBuilder {
    pub(super) fn new(tape: Tape, model: Box<dyn Module>, sgd: Sgd, make: MakeMethod) -> Self {
        StrategyBuilder {
            tape,
            model,
            sgd,
            make,
            plugins: Vec::new(),
            evaluator: EvaluationPlugin::default(),
            criterion: None,
            loader: LoaderOptions::default(),
            eval_every: None,
            peval_mode: PevalMode::default(),
            keeper: None,
            train_mb_size: 1,
            train_epochs: 1,
            eval_mb_size: Some(1),
            batch_size_mem: None,
            mem_size: 200,
            alpha: 0.1,
            beta: 0.5,
            balanced_reservoir: false,
            buffer: None,
        }
    }

    /// Samples in the replay buffer, over all classes (default 200).
    pub fn mem_size(self, mem_size: usize) -> Self {
        StrategyBuilder { mem_size, ..self }
    }

    /// Replayed samples in each mini-batch (default `None`: as many as `train_mb_size`).
    pub fn batch_size_mem(self, batch_size_mem: impl Into<Option<usize>>) -> Self {
        StrategyBuilder {
            batch_size_mem: batch_size_mem.into(),
            ..self
        }
    }

    /// Weight of the mean squared error of the logits (default 0.1).
    pub fn alpha(self, alpha: f32) -> Self {
        StrategyBuilder { alpha, ..self }
    }

    /// Weight of the cross-entropy of replayed labels (default 0.5); 0 is DER, more is DER++.
    pub fn beta(self, beta: f32) -> Self {
        StrategyBuilder { beta, ..self }
    }

    /// Whether the paper's buffer replaces samples of the class that has most (default: no). See
    /// [`GlobalReservoir::balanced`](crate::replay::GlobalReservoir::balanced).
    pub fn balanced_reservoir(self, balanced_reservoir: bool) -> Self {
        StrategyBuilder {
            balanced_reservoir,
            ..self
        }
    }

    /// Samples of current data in a mini-batch (default 1), also used for computing logits.
    pub fn train_mb_size(self, train_mb_size: usize) -> Self {
        StrategyBuilder {
            train_mb_size,
            ..self
        }
    }

    /// Epochs per experience (default 1).
    pub fn train_epochs(self, train_epochs: usize) -> Self {
        StrategyBuilder {
            train_epochs,
            ..self
        }
    }

    /// Samples in a mini-batch of evaluation (default 1; `None`: as many as `train_mb_size`).
    pub fn eval_mb_size(self, eval_mb_size: impl Into<Option<usize>>) -> Self {
        StrategyBuilder {
            eval_mb_size: eval_mb_size.into(),
            ..self
        }
    }

    /// Adds a plugin; plugins run in the order in which they are added.
    pub fn plugin(mut self, plugin: impl Plugin + 'static) -> Self {
        self.plugins.push(Box::new(plugin));
        self
    }

    /// The loss of labels (default: the mean cross-entropy), of current and of replayed rows.
    pub fn criterion(mut self, criterion: impl Criterion + 'static) -> Self {
        self.criterion = Some(Box::new(criterion));
        self
    }

    /// The metrics and loggers (default: [`EvaluationPlugin::default`], which prints nothing).
    pub fn evaluator(self, evaluator: EvaluationPlugin) -> Self {
        StrategyBuilder { evaluator, ..self }
    }

    /// Evaluates before training, and then after the epochs (iterations, experiences; see
    /// [`peval_mode`](Self::peval_mode)) 0, k, 2k, ... of each experience and at its end; 0: only at
    /// the end. Default `None`, Avalanche's -1: no evaluation but by `eval`.
    pub fn eval_every(self, eval_every: impl Into<Option<usize>>) -> Self {
        StrategyBuilder {
            eval_every: eval_every.into(),
            ..self
        }
    }

    /// What `eval_every` counts (default: epochs).
    pub fn peval_mode(self, peval_mode: PevalMode) -> Self {
        StrategyBuilder { peval_mode, ..self }
    }

    /// Takes snapshots while the strategy trains (default: none are taken).
    pub fn keeper(mut self, keeper: impl Keeper + 'static) -> Self {
        self.keeper = Some(Box::new(keeper));
        self
    }

    /// How training data is gone through: shuffled (default) or not, with or without a last
    /// mini-batch that is not full; and how many threads gather mini-batches ahead (none), of training
    /// and of evaluation.
    ///
    /// ```
    /// use unforget::prelude::*;
    /// use unforget::training::LoaderOptions;
    ///
    /// let mut tape = Tape::new(Device::Cpu)?;
    /// let model = Mlp::new(&mut tape, &[784, 10]);
    /// let workers = LoaderOptions { num_workers: 2, ..LoaderOptions::default() };
    /// let strategy = Der::builder(tape, model, Sgd::new(0.03)).loader(workers).build()?;
    /// # Ok::<(), unforget::Error>(())
    /// ```
    pub fn loader(self, loader: LoaderOptions) -> Self {
        StrategyBuilder { loader, ..self }
    }

    pub(super) fn check_dark_weights(&self) -> Result<()> {
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::config(name, "a finite number of at least 0", value));
            }
        }
        Ok(())
    }

    pub(super) fn resolved_batch_size_mem(&self) -> Result<usize> {
        match self.batch_size_mem.unwrap_or(self.train_mb_size) {
            0 => Err(Error::config("batch-size-mem", "at least 1", 0)),
            size => Ok(size),
        }
    }

    /// Builds the strategy.
    ///
    /// # Errors
    /// [`Error::Config`] naming the parameter that is out of range.
    pub fn build(mut self) -> Result<Strategy> {
        self.sgd.validate()?;
        self.loader.validate()?;
        let eval_mb_size = self.eval_mb_size.unwrap_or(self.train_mb_size);
        for (name, size) in [
            ("train-mb-size", self.train_mb_size),
            ("eval-mb-size", eval_mb_size),
        ] {
            if size == 0 {
                return Err(Error::config(name, "at least 1", 0));
            }
        }
        let method = (self.make)(&mut self)?;
        let mut state = State::new(self.tape, self.model, self.sgd);
        state.train_epochs = self.train_epochs;
        state.train_mb_size = self.train_mb_size;
        state.eval_mb_size = eval_mb_size;
        state.storage_policy = self.buffer;
        state.criterion = self.criterion;
        state.loader = self.loader;
        let periodic = PeriodicEval {
            every: self.eval_every,
            mode: self.peval_mode,
            ..PeriodicEval::default()
        };
        Ok(Strategy {
            state,
            method,
            plugins: self.plugins,
            evaluator: self.evaluator,
            periodic,
            loader: TaskBalanced::default(),
            ahead: None,
            trained: Vec::new(),
            within: None,
            resume: None,
            keeper: self.keeper,
        })
    }
}
