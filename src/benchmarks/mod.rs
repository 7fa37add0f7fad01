//! Streams of experiences.
//!
//! A [`Benchmark`] is a training and a test [`Stream`]; a stream is a sequence of [`Experience`]s,
//! the pieces of data that a learner meets one after the other. [`NcBenchmark`] divides the classes
//! of a data set over experiences (class-incremental learning), [`PermutedMnist`] and
//! [`RotatedMnist`] show the same classes under changing pixels (domain-incremental learning). The
//! same seed gives the experiences, sample for sample, that Avalanche gives.

mod benchmark;
mod core50;
mod experience;
mod generators;
mod mnist360;
mod nc;
mod ni;
mod online;
mod pixel_maps;
#[cfg(test)]
mod properties;
mod several;
mod splits;

pub use benchmark::Benchmark;
pub use core50::Core50;
pub use experience::{Experience, Stream};
pub use generators::{
    ClassOrder, ClassSplit, ValidationSize, ValidationSplit, benchmark_from_datasets,
    benchmark_with_validation_stream, class_incremental_benchmark, data_incremental_benchmark,
    task_incremental_benchmark,
};
pub use mnist360::{Mnist360, Mnist360Evaluation};
pub use nc::NcBenchmark;
pub use ni::NiBenchmark;
pub use online::{OnlineOptions, SubExperience, split_online_stream};
pub use pixel_maps::{PermutedMnist, RotatedMnist};
pub use splits::{SplitCifar10, SplitCifar100, SplitCifar110};
pub use splits::{SplitFmnist, SplitImageNet, SplitMnist, SplitTinyImageNet};

use crate::data::{Dataset, TransformGroups};
use crate::{Error, Result};

/// Checks what every builder asks of its data.
fn check_datasets(train: &Dataset, test: &Dataset, transforms: &TransformGroups) -> Result<()> {
    for data in [train, test] {
        if data.is_empty() {
            let name = format!("data set {}", data.name());
            return Err(Error::config(name, "at least one sample", "none"));
        }
    }
    if train.shape() != test.shape() {
        return Err(Error::config(
            format!("test data set {}", test.name()),
            format!("the shape of the training images, {:?}", train.shape()),
            format!("{:?}", test.shape()),
        ));
    }
    transforms.fit(train.shape())?;
    Ok(())
}

/// The number of experiences, given and at least 1.
fn check_n_experiences(n: Option<usize>) -> Result<usize> {
    let expected = "at least 1";
    match n {
        None => Err(Error::config("n_experiences", expected, "none given")),
        Some(0) => Err(Error::config("n_experiences", expected, 0)),
        Some(n) => Ok(n),
    }
}
