//! The cells of the DER paper's tables: hyper-parameters and published numbers.
//!
//! The numbers are those of Tables 2 and 3 and of the supplement of Buzzega et al., "Dark Experience
//! for General Continual Learning", NeurIPS 2020: accuracy in per cent, mean and standard deviation
//! of ten runs. The hyper-parameters are those that the authors' repository names as best.

use crate::experiment::config::{
    BenchmarkName, Config, DataSource, Mnist360Test, ModeName, ModelName, StrategyName,
};

/// A method of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PaperMethod {
    /// Fine-tuning.
    Sgd,
    /// Training on everything at once.
    Joint,
    /// Experience replay.
    Er,
    /// Dark experience replay.
    Der,
    /// Dark experience replay with labels.
    DerPp,
}

impl PaperMethod {
    /// The method as it is written in the name of a cell.
    pub fn name(self) -> &'static str {
        match self {
            PaperMethod::Sgd => "sgd",
            PaperMethod::Joint => "joint",
            PaperMethod::Er => "er",
            PaperMethod::Der => "der",
            PaperMethod::DerPp => "derpp",
        }
    }

    /// The method as the paper writes it.
    pub fn title(self) -> &'static str {
        match self {
            PaperMethod::Sgd => "SGD",
            PaperMethod::Joint => "JOINT",
            PaperMethod::Er => "ER",
            PaperMethod::Der => "DER",
            PaperMethod::DerPp => "DER++",
        }
    }
}

/// A published accuracy in per cent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Published {
    /// Mean of the runs.
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
}

/// A cell of the paper's tables (two numbers where the paper reports Class-IL and Task-IL).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cell {
    /// The benchmark, as `--benchmark` names it.
    pub benchmark: &'static str,
    /// The method.
    pub method: PaperMethod,
    /// Samples in the buffer; 0 for methods without one.
    pub buffer: usize,
    /// Learning rate.
    pub lr: f64,
    /// Weight of the stored logits.
    pub alpha: f64,
    /// Weight of the stored labels.
    pub beta: f64,
    /// Current samples a step.
    pub batch: usize,
    /// Replayed samples a draw.
    pub replay: usize,
    /// Passes over each task.
    pub epochs: usize,
    /// Class-IL accuracy; Domain-IL or General CL where the benchmark is that.
    pub class: Published,
    /// Task-IL accuracy.
    pub task: Option<Published>,
}

impl Cell {
    /// The name, as in `r-mnist/derpp/500`.
    pub fn name(&self) -> String {
        let (benchmark, method) = (self.benchmark, self.method.name());
        match self.buffer {
            0 => format!("{benchmark}/{method}"),
            buffer => format!("{benchmark}/{method}/{buffer}"),
        }
    }

    /// The configuration of one run, before it is resolved.
    ///
    /// # Panics
    /// If the cell is not one of [`CELLS`].
    pub fn config(&self, seed: u64) -> Config {
        let benchmark = match self.benchmark {
            "s-mnist" => BenchmarkName::SMnist,
            "p-mnist" => BenchmarkName::PMnist,
            "r-mnist" => BenchmarkName::RMnist,
            "mnist-360" => BenchmarkName::Mnist360,
            "s-cifar10" => BenchmarkName::SCifar10,
            "s-tiny-imagenet" => BenchmarkName::STinyImageNet,
            other => panic!("{other} is no benchmark of the paper"),
        };
        let mnist = self.is_mnist();
        Config {
            benchmark,
            data: Some(DataSource::Full),
            mnist360_test: (benchmark == BenchmarkName::Mnist360)
                .then_some(Mnist360Test::RandomBatches),
            model: if mnist {
                ModelName::Mlp
            } else {
                ModelName::ResNet18
            },
            xavier: mnist,
            strategy: match self.method {
                PaperMethod::Sgd => StrategyName::Naive,
                PaperMethod::Joint => StrategyName::Joint,
                PaperMethod::Er => StrategyName::Replay,
                PaperMethod::Der | PaperMethod::DerPp => StrategyName::Der,
            },
            mode: ModeName::Paper,
            lr: self.lr,
            alpha: self.alpha,
            beta: self.beta,
            // Methods without a buffer ignore its size.
            mem_size: self.buffer.max(1),
            train_mb_size: self.batch,
            batch_size_mem: Some(self.replay.max(1)),
            train_epochs: self.epochs,
            seed,
            ..Config::default()
        }
    }

    /// Whether its data is MNIST, so that a processor reproduces it in minutes.
    pub fn is_mnist(&self) -> bool {
        matches!(
            self.benchmark,
            "s-mnist" | "p-mnist" | "r-mnist" | "mnist-360"
        )
    }

    /// Whether the published number was not checked against the paper's own text.
    pub fn is_recalled(&self) -> bool {
        let method = matches!(self.method, PaperMethod::Sgd | PaperMethod::Joint);
        match self.benchmark {
            "s-mnist" | "mnist-360" => true,
            "p-mnist" => !method,
            "r-mnist" | "s-tiny-imagenet" => self.buffer == 5120,
            _ => false,
        }
    }

    const fn of(benchmark: &'static str, epochs: usize, batch: usize) -> Cell {
        Cell {
            benchmark,
            method: PaperMethod::Sgd,
            buffer: 0,
            lr: 0.0,
            alpha: 0.0,
            beta: 0.0,
            batch,
            replay: 0,
            epochs,
            class: Published {
                mean: 0.0,
                std: 0.0,
            },
            task: None,
        }
    }

    const fn sgd(self, lr: f64) -> Cell {
        Cell { lr, ..self }
    }

    const fn joint(self, lr: f64) -> Cell {
        let method = PaperMethod::Joint;
        Cell { method, lr, ..self }
    }

    const fn er(self, buffer: usize, lr: f64, replay: usize) -> Cell {
        let method = PaperMethod::Er;
        Cell {
            method,
            buffer,
            lr,
            replay,
            ..self
        }
    }

    const fn der(self, buffer: usize, lr: f64, replay: usize, alpha: f64) -> Cell {
        let method = PaperMethod::Der;
        Cell {
            method,
            buffer,
            lr,
            replay,
            alpha,
            ..self
        }
    }

    const fn derpp(self, buffer: usize, lr: f64, replay: usize, alpha: f64, beta: f64) -> Cell {
        let method = PaperMethod::DerPp;
        Cell {
            method,
            buffer,
            lr,
            replay,
            alpha,
            beta,
            ..self
        }
    }

    const fn gives(self, mean: f64, std: f64) -> Cell {
        let class = Published { mean, std };
        Cell { class, ..self }
    }

    const fn and_task(self, mean: f64, std: f64) -> Cell {
        let task = Some(Published { mean, std });
        Cell { task, ..self }
    }
}

const S_MNIST: Cell = Cell::of("s-mnist", 1, 10);
const P_MNIST: Cell = Cell::of("p-mnist", 1, 128);
const R_MNIST: Cell = Cell::of("r-mnist", 1, 128);
const S_CIFAR10: Cell = Cell::of("s-cifar10", 50, 32);
const S_TINY: Cell = Cell::of("s-tiny-imagenet", 100, 32);

const fn mnist_360(batch: usize) -> Cell {
    Cell::of("mnist-360", 1, batch)
}

/// Every cell of the paper's tables whose method this program has.
#[rustfmt::skip]
pub const CELLS: &[Cell] = &[
    S_MNIST.joint(0.03).gives(95.57, 0.24).and_task(99.51, 0.07),
    S_MNIST.sgd(0.03).gives(19.60, 0.04).and_task(94.94, 2.18),
    S_MNIST.er(200, 0.01, 10).gives(80.43, 1.89).and_task(97.86, 0.35),
    S_MNIST.der(200, 0.03, 10, 0.2).gives(84.55, 1.64).and_task(98.80, 0.15),
    S_MNIST.derpp(200, 0.03, 128, 0.2, 1.0).gives(85.61, 1.40).and_task(98.76, 0.28),
    S_MNIST.er(500, 0.1, 10).gives(86.12, 1.89).and_task(99.04, 0.18),
    S_MNIST.der(500, 0.03, 128, 1.0).gives(90.54, 1.18).and_task(98.84, 0.13),
    S_MNIST.derpp(500, 0.03, 10, 1.0, 0.5).gives(91.00, 1.49).and_task(98.94, 0.27),
    S_MNIST.er(5120, 0.1, 10).gives(93.40, 1.29).and_task(99.33, 0.22),
    S_MNIST.der(5120, 0.1, 128, 0.5).gives(94.90, 0.57).and_task(99.29, 0.11),
    S_MNIST.derpp(5120, 0.1, 64, 0.2, 0.5).gives(95.30, 1.20).and_task(99.47, 0.07),

    P_MNIST.joint(0.2).gives(94.33, 0.17),
    P_MNIST.sgd(0.2).gives(40.70, 2.33),
    P_MNIST.er(200, 0.2, 128).gives(72.37, 0.87),
    P_MNIST.der(200, 0.2, 128, 1.0).gives(81.74, 1.07),
    P_MNIST.derpp(200, 0.1, 128, 1.0, 1.0).gives(83.58, 0.59),
    P_MNIST.er(500, 0.2, 128).gives(80.60, 0.86),
    P_MNIST.der(500, 0.2, 128, 1.0).gives(87.29, 0.46),
    P_MNIST.derpp(500, 0.2, 128, 1.0, 0.5).gives(88.21, 0.39),
    P_MNIST.er(5120, 0.2, 128).gives(89.90, 0.13),
    P_MNIST.der(5120, 0.2, 128, 0.5).gives(91.66, 0.11),
    P_MNIST.derpp(5120, 0.2, 128, 0.5, 1.0).gives(92.26, 0.17),

    R_MNIST.joint(0.2).gives(95.76, 0.04),
    R_MNIST.sgd(0.2).gives(67.66, 8.53),
    R_MNIST.er(200, 0.2, 128).gives(85.01, 1.90),
    R_MNIST.der(200, 0.2, 128, 1.0).gives(90.04, 2.61),
    R_MNIST.derpp(200, 0.1, 128, 1.0, 0.5).gives(90.43, 1.87),
    R_MNIST.er(500, 0.2, 128).gives(88.91, 1.44),
    R_MNIST.der(500, 0.2, 128, 0.5).gives(92.24, 1.12),
    R_MNIST.derpp(500, 0.2, 128, 0.5, 1.0).gives(92.77, 1.05),
    R_MNIST.er(5120, 0.2, 128).gives(93.45, 0.56),
    R_MNIST.der(5120, 0.2, 128, 0.5).gives(94.14, 0.31),
    R_MNIST.derpp(5120, 0.2, 128, 0.5, 0.5).gives(94.65, 0.33),

    mnist_360(4).joint(0.1).gives(82.98, 3.24),
    mnist_360(4).sgd(0.1).gives(19.09, 0.69),
    mnist_360(1).er(200, 0.2, 16).gives(49.27, 2.25),
    mnist_360(16).der(200, 0.1, 64, 0.5).gives(55.22, 1.67),
    mnist_360(16).derpp(200, 0.2, 16, 0.5, 1.0).gives(54.16, 3.02),
    mnist_360(1).er(500, 0.2, 16).gives(65.04, 1.53),
    mnist_360(16).der(500, 0.2, 16, 0.5).gives(69.11, 1.66),
    mnist_360(16).derpp(500, 0.2, 16, 0.5, 1.0).gives(69.62, 1.59),
    mnist_360(4).er(1000, 0.2, 16).gives(75.18, 1.50),
    mnist_360(8).der(1000, 0.1, 16, 0.5).gives(75.97, 2.08),
    mnist_360(16).derpp(1000, 0.2, 128, 0.2, 1.0).gives(76.03, 0.61),

    S_CIFAR10.joint(0.1).gives(92.20, 0.15).and_task(98.31, 0.12),
    S_CIFAR10.sgd(0.1).gives(19.62, 0.05).and_task(61.02, 3.33),
    S_CIFAR10.er(200, 0.1, 32).gives(44.79, 1.86).and_task(91.19, 0.94),
    S_CIFAR10.der(200, 0.03, 32, 0.3).gives(61.93, 1.79).and_task(91.40, 0.92),
    S_CIFAR10.derpp(200, 0.03, 32, 0.1, 0.5).gives(64.88, 1.17).and_task(91.92, 0.60),
    S_CIFAR10.er(500, 0.1, 32).gives(57.74, 0.27).and_task(93.61, 0.27),
    S_CIFAR10.der(500, 0.03, 32, 0.3).gives(70.51, 1.67).and_task(93.40, 0.39),
    S_CIFAR10.derpp(500, 0.03, 32, 0.2, 0.5).gives(72.70, 1.36).and_task(93.88, 0.50),
    S_CIFAR10.er(5120, 0.1, 32).gives(82.47, 0.52).and_task(96.98, 0.17),
    S_CIFAR10.der(5120, 0.03, 32, 0.3).gives(83.81, 0.33).and_task(95.43, 0.33),
    S_CIFAR10.derpp(5120, 0.03, 32, 0.1, 1.0).gives(85.24, 0.49).and_task(96.12, 0.21),

    S_TINY.joint(0.03).gives(59.99, 0.19).and_task(82.04, 0.10),
    S_TINY.sgd(0.03).gives(7.92, 0.26).and_task(18.31, 0.68),
    S_TINY.er(200, 0.1, 32).gives(8.49, 0.16).and_task(38.17, 2.00),
    S_TINY.der(200, 0.03, 32, 0.1).gives(11.87, 0.78).and_task(40.22, 0.67),
    S_TINY.derpp(200, 0.03, 32, 0.1, 1.0).gives(10.96, 1.17).and_task(40.87, 1.16),
    S_TINY.er(500, 0.03, 32).gives(9.99, 0.29).and_task(48.64, 0.46),
    S_TINY.der(500, 0.03, 32, 0.1).gives(17.75, 1.14).and_task(51.78, 0.88),
    S_TINY.derpp(500, 0.03, 32, 0.2, 0.5).gives(19.38, 1.41).and_task(51.91, 0.68),
    S_TINY.er(5120, 0.1, 32).gives(27.40, 0.31).and_task(67.29, 0.23),
    S_TINY.der(5120, 0.03, 32, 0.1).gives(36.73, 0.64).and_task(69.50, 0.26),
    S_TINY.derpp(5120, 0.03, 32, 0.1, 0.5).gives(39.02, 0.97).and_task(69.84, 0.63),
];
