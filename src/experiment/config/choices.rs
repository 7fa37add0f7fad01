//! The options whose value is one word out of a list.

use serde::{Deserialize, Serialize};

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
    /// How matrix products and convolutions multiply.
    PrecisionName {
        /// In f32.
        F32 = "f32",
        /// Factors rounded to TF32, on the GPU's tensor cores.
        Tf32 = "tf32",
        /// Factors rounded to bfloat16, on the GPU's tensor cores.
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
