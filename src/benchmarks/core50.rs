//! CORe50's scenarios.

use std::path::Path;

use super::{Benchmark, Experience, Stream};
use crate::Result;
use crate::data::core50::{Core50Scenario, core50_run};
use crate::data::locate::{Kind, locate};
use crate::data::{ClassificationDataset, Transform, TransformGroups};

/// Builds a scenario of CORe50 from its published lists of files: as many training experiences as the
/// scenario has batches, and a single test experience with the complete test set. Task labels are 0.
///
/// In training a random flip; normalised with ImageNet's constants, as in Avalanche.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Core50 {
    scenario: Core50Scenario,
    run: usize,
    object_level: bool,
    mini: bool,
    transforms: TransformGroups,
}

impl Default for Core50 {
    fn default() -> Self {
        Core50 {
            scenario: Core50Scenario::NicV2In391,
            run: 0,
            object_level: true,
            mini: false,
            transforms: TransformGroups {
                train: Transform::imagenet().random_horizontal_flip(0.5),
                eval: Transform::imagenet(),
            },
        }
    }
}

impl Core50 {
    /// The scenario; NICv2 with 391 batches if not given.
    pub fn scenario(mut self, scenario: Core50Scenario) -> Self {
        self.scenario = scenario;
        self
    }

    /// The run, 0 to 9: one of ten published orders; 0 if not given.
    pub fn run(mut self, run: usize) -> Self {
        self.run = run;
        self
    }

    /// Whether the 50 objects are the classes (the default) or their ten categories.
    pub fn object_level(mut self, yes: bool) -> Self {
        self.object_level = yes;
        self
    }

    /// Whether to take the pictures of 32 x 32 instead of those of 128 x 128.
    pub fn mini(mut self, yes: bool) -> Self {
        self.mini = yes;
        self
    }

    /// Other transforms.
    pub fn transforms(mut self, transforms: TransformGroups) -> Self {
        self.transforms = transforms;
        self
    }

    /// The benchmark, from `dir`, or, with `None`, from wherever CORe50 is found on this machine.
    ///
    /// # Errors
    /// As [`core50_run`] and [`locate`]; [`Error::Config`](crate::Error::Config) if the transforms do
    /// not fit.
    pub fn build(self, dir: Option<&Path>) -> Result<Benchmark> {
        let dir = locate(Kind::Core50, dir)?;
        let run = core50_run(&dir, self.scenario, self.run, self.object_level, self.mini)?;
        self.transforms.fit(run.train.shape())?;
        let train = ClassificationDataset::new(run.train, self.transforms.clone());
        let test = ClassificationDataset::new(run.test, self.transforms);
        let train = run
            .batches
            .iter()
            .enumerate()
            .map(|(id, batch)| Experience::from_dataset(train.subset(batch), id, "train"));
        let train = Stream::new("train", train.collect());
        let test = Stream::new("test", vec![Experience::from_dataset(test, 0, "test")]);
        Ok(Benchmark::from_streams("CORe50", train, test))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::core50::tests::folder;

    #[test]
    fn batches_are_experiences_over_one_test_set() {
        let dir = folder();
        let build = |scenario| {
            let builder = Core50::default().scenario(scenario).run(3).mini(true);
            builder.build(Some(dir.path())).unwrap()
        };
        let benchmark = build(Core50Scenario::NicV2In79);
        assert_eq!(
            (benchmark.n_experiences(), benchmark.test_stream().len()),
            (79, 1)
        );
        assert_eq!(benchmark.train_stream()[78].dataset().targets(), [0, 1, 5]);
        assert_eq!(benchmark.train_stream()[78].current_experience(), 78);
        assert_eq!(benchmark.test_stream()[0].dataset().shape(), [3, 32, 32]);
        let view = benchmark.train_stream()[1].dataset();
        let red = (1.0 / 255.0 - 0.485) / 0.229;
        assert_eq!(view.images(crate::data::Group::Eval)[[0, 0, 0, 0]], red);
        assert!(view.transforms(0).train.is_random());
        assert_eq!(
            build(Core50Scenario::Nc).n_classes(),
            10,
            "the largest label is 9"
        );
    }
}
