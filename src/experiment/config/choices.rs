//! The options whose value is one word out of a list.

use serde::{Deserialize, Serialize};

use crate::data::locate::Kind;

/// An enum whose values are written as words on the command line and in TOML.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$of])* #[serde(rename = $word)] $variant),* }

        impl $name {
            /// Every value as it is written in options and files.
            pub const NAMES: &[&str] = &[$($word),*];

            /// The value as it is written in options and files.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }
    };
}

choice! {
    /// Which stream of experiences to learn.
    BenchmarkName {
        /// MNIST, split by class.
        SplitMnist = "split-mnist",
        /// Fashion-MNIST, split by class.
        SplitFmnist = "split-fmnist",
        /// MNIST under a different permutation of the pixels in each experience.
        PermutedMnist = "permuted-mnist",
        /// MNIST rotated by a different angle in each experience.
        RotatedMnist = "rotated-mnist",
        /// CIFAR-10, split by class.
        SplitCifar10 = "split-cifar10",
        /// CIFAR-100, split by class.
        SplitCifar100 = "split-cifar100",
        /// Tiny-ImageNet, split by class.
        SplitTinyImageNet = "split-tinyimagenet",
        /// The DER paper's S-MNIST: five pairs of digits in ascending order, plain pixels.
        SMnist = "s-mnist",
        /// The DER paper's P-MNIST: 20 permutations, plain pixels.
        PMnist = "p-mnist",
        /// The DER paper's R-MNIST: 20 angles from 0 to 180 degrees, plain pixels.
        RMnist = "r-mnist",
        /// The DER paper's MNIST-360: turning digits that come and go, in prescribed mini-batches.
        Mnist360 = "mnist-360",
        /// The DER paper's S-CIFAR-10: five pairs of classes in ascending order, augmented.
        SCifar10 = "s-cifar10",
        /// S-CIFAR-100 of the papers after DER's: ten times ten classes, augmented.
        SCifar100 = "s-cifar100",
        /// The DER paper's S-Tiny-ImageNet: ten times twenty classes, augmented.
        STinyImageNet = "s-tiny-imagenet",
    }
}

impl BenchmarkName {
    /// Whether the classes of a data set are divided over experiences in an order of the user's.
    pub fn is_split(self) -> bool {
        matches!(
            self,
            BenchmarkName::SplitMnist
                | BenchmarkName::SplitFmnist
                | BenchmarkName::SplitCifar10
                | BenchmarkName::SplitCifar100
                | BenchmarkName::SplitTinyImageNet
        )
    }

    /// The data set that it is made of.
    pub fn kind(self) -> Kind {
        match self {
            BenchmarkName::SplitMnist
            | BenchmarkName::PermutedMnist
            | BenchmarkName::RotatedMnist
            | BenchmarkName::SMnist
            | BenchmarkName::PMnist
            | BenchmarkName::RMnist
            | BenchmarkName::Mnist360 => Kind::Mnist,
            BenchmarkName::SplitFmnist => Kind::FashionMnist,
            BenchmarkName::SplitCifar10 | BenchmarkName::SCifar10 => Kind::Cifar10,
            BenchmarkName::SplitCifar100 | BenchmarkName::SCifar100 => Kind::Cifar100,
            BenchmarkName::SplitTinyImageNet | BenchmarkName::STinyImageNet => Kind::TinyImageNet,
        }
    }
}

choice! {
    /// How to learn it.
    StrategyName {
        /// Dark Experience Replay; DER++ where beta is above 0.
        Der = "der",
        /// Fine-tuning on each experience in turn: the lower bound.
        Naive = "naive",
        /// Training on all data seen so far at every experience.
        Cumulative = "cumulative",
        /// Training once on the data of all experiences: the upper bound.
        Joint = "joint",
        /// Experience replay (ER): stored samples with their labels only.
        Replay = "replay",
        /// Replay in which current classes compete among themselves only.
        ErAce = "er-ace",
        /// Replay of what the current mini-batch would harm most.
        Mir = "mir",
        /// Exemplars chosen by herding, distillation, and the nearest class mean.
        Icarl = "icarl",
        /// Training from the initial weights on a class-balanced buffer alone.
        GDumb = "gdumb",
        /// Gradients that harm no earlier experience's memory on average.
        Agem = "agem",
        /// Gradients that harm no earlier experience's memory.
        Gem = "gem",
        /// Elastic Weight Consolidation.
        Ewc = "ewc",
        /// Synaptic Intelligence.
        Si = "si",
        /// Memory Aware Synapses.
        Mas = "mas",
        /// Learning without Forgetting.
        Lwf = "lwf",
        /// Starting from the initial weights with each experience.
        FromScratch = "from-scratch",
    }
}

choice! {
    /// Whose algorithm `der` and `replay` are.
    ModeName {
        /// Avalanche's: buffers divided over classes or experiences, filled after each experience.
        Avalanche = "avalanche",
        /// The DER paper's: one reservoir, filled after each iteration.
        Paper = "paper",
    }
}

choice! {
    /// Which test images of MNIST-360 are shown.
    Mnist360Test {
        /// Each once.
        EveryImage = "every-image",
        /// Mini-batches drawn at random, as for the paper.
        RandomBatches = "random-batches",
        /// Only the first mini-batch of each digit, as the authors' code does since.
        FirstBatch = "first-batch",
    }
}

choice! {
    /// Which network learns.
    ModelName {
        /// The papers' perceptron for MNIST: 784-100-100-classes.
        Mlp = "mlp",
        /// Avalanche's `SimpleMLP`: one hidden layer of 512, with dropout.
        SimpleMlp = "simple-mlp",
        /// Avalanche's `SimpleCNN`.
        SimpleCnn = "simple-cnn",
        /// LeNet-5.
        LeNet5 = "lenet5",
        /// ResNet-18 for small images.
        ResNet18 = "resnet18",
        /// ResNet-18 with 20 filters instead of 64.
        SlimResNet18 = "slim-resnet18",
        /// ResNet-32 for small images.
        ResNet32 = "resnet32",
        /// `SimpleMLP` with a head for each task.
        MtSimpleMlp = "mt-simple-mlp",
        /// `SimpleCNN` with a head for each task.
        MtSimpleCnn = "mt-simple-cnn",
        /// The slim ResNet-18 with a head for each task.
        MtSlimResNet18 = "mt-slim-resnet18",
    }
}

choice! {
    /// What the last layer of the network is.
    HeadName {
        /// The network's own: as wide as there are classes, or, for the `mt-` models, one for each task.
        Own = "own",
        /// One that grows with the classes that are met.
        Incremental = "incremental",
        /// One for each task, growing with its classes.
        MultiHead = "multi-head",
    }
}

choice! {
    /// What a run writes besides `metrics.jsonl`.
    LoggerName {
        /// Avalanche's CSV files, and one with every number.
        Csv = "csv",
        /// Events for TensorBoard.
        TensorBoard = "tensorboard",
        /// Avalanche's text log.
        Text = "text",
        /// No more.
        Nothing = "none",
    }
}

choice! {
    /// How matrix products and convolutions multiply.
    PrecisionName {
        /// In f32.
        F32 = "f32",
        /// Factors rounded to two bfloat16 numbers each, on a CPU's AMX.
        High = "high",
        /// Factors rounded to TF32, on the GPU's tensor cores.
        Tf32 = "tf32",
        /// Factors rounded to bfloat16, on the GPU's tensor cores or a CPU's AMX or AVX512-BF16.
        Bf16 = "bf16",
    }
}

choice! {
    /// Where the samples come from.
    DataSource {
        /// The tenth of MNIST inside the program.
        Embedded = "embedded",
        /// The full data set, from files.
        Full = "full",
    }
}
