//! New classes in every experience.

mod plan;

use std::collections::BTreeMap;

use plan::{Remapping, labels};

use super::several::{joined, samples_by_class};
use super::{Benchmark, Experience, Stream};
use crate::data::{ClassificationDataset, Dataset, Transform, TransformGroups};
use crate::rng::python_set_order;
use crate::{Error, Result};

/// Builds a benchmark in which each experience brings classes of its own.
///
/// The classes of the training data are put in an order (a permutation drawn from the seed), cut
/// into experiences, and the samples follow their classes: within an experience, class after class
/// in the iteration order of Avalanche's Python set of the original labels, each in the order of
/// the data set. Test samples of classes that were dropped or never trained are left out. This is
/// Avalanche's `nc_benchmark`, sample for sample; unlike there, the seed does not touch the
/// generator of the training run.
///
/// ```
/// use unforget::benchmarks::NcBenchmark;
/// use unforget::data::{Dataset, TransformGroups};
/// let data = Dataset::from_u8("ten", [1, 1, 1], vec![0; 10], (0..10).collect(), 10)?;
/// let benchmark = NcBenchmark::new(data.clone(), data, TransformGroups::default())
///     .n_experiences(5)
///     .seed(1)
///     .build()?;
/// assert_eq!(benchmark.train_stream()[0].classes_in_this_experience(), [5, 6]);
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct NcBenchmark {
    train: Vec<Dataset>,
    test: Vec<Dataset>,
    transforms: TransformGroups,
    name: String,
    n_experiences: Option<usize>,
    seed: u64,
    shuffle: bool,
    fixed_class_order: Option<Vec<u32>>,
    per_exp_classes: BTreeMap<usize, usize>,
    half_classes_first: bool,
    one_dataset_per_exp: bool,
    uneven: bool,
    from_zero_in_each_exp: bool,
    from_zero_from_first_exp: bool,
    return_task_id: bool,
}

impl NcBenchmark {
    /// Starts from all training and test data.
    pub fn new(train: Dataset, test: Dataset, transforms: TransformGroups) -> Self {
        Self::from_several(vec![train], vec![test], transforms)
    }

    /// Starts from the training and test data of several data sets: the classes of each are numbered
    /// after those of the ones before, in ascending order. Test samples of classes without training
    /// samples are left out.
    pub fn from_several(
        train: Vec<Dataset>,
        test: Vec<Dataset>,
        transforms: TransformGroups,
    ) -> Self {
        let names: Vec<&str> = train.iter().map(Dataset::name).collect();
        NcBenchmark {
            name: names.join("+"),
            train,
            test,
            transforms,
            n_experiences: None,
            seed: 0,
            shuffle: true,
            fixed_class_order: None,
            per_exp_classes: BTreeMap::new(),
            half_classes_first: false,
            one_dataset_per_exp: false,
            uneven: false,
            from_zero_in_each_exp: false,
            from_zero_from_first_exp: false,
            return_task_id: false,
        }
    }

    /// The number of experiences. Must be given; unless [`NcBenchmark::per_exp_classes`] or
    /// [`NcBenchmark::uneven`] say otherwise it must divide the number of classes.
    pub fn n_experiences(mut self, n: usize) -> Self {
        self.n_experiences = Some(n);
        self
    }

    /// The seed of the class order; 0 if not given, so that every benchmark can be built again.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether the class order is drawn (the default) or ascending.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// The class order itself, in original labels; classes that it leaves out are dropped.
    pub fn fixed_class_order(mut self, order: Vec<u32>) -> Self {
        self.fixed_class_order = Some(order);
        self
    }

    /// The classes of each experience of another benchmark,
    /// [`Benchmark::original_classes_in_exp`], to build the same one again (Avalanche's
    /// `reproducibility_data`); nothing is drawn then.
    pub fn reproducibility_data(self, classes_in_exp: &[Vec<u32>]) -> Self {
        self.n_experiences(classes_in_exp.len())
            .fixed_class_order(classes_in_exp.concat())
            .per_exp_classes(classes_in_exp.iter().map(Vec::len).enumerate().collect())
    }

    /// The number of classes of some experiences, by experience id; the remaining classes are
    /// divided equally over the others.
    pub fn per_exp_classes(mut self, counts: BTreeMap<usize, usize>) -> Self {
        self.per_exp_classes = counts;
        self
    }

    /// Whether the first experience gets half of the classes (Avalanche's
    /// `first_exp_with_half_classes`, for Fashion-MNIST `first_batch_with_half_classes`); the others
    /// share the rest equally.
    pub fn first_exp_with_half_classes(mut self, yes: bool) -> Self {
        self.half_classes_first = yes;
        self
    }

    /// Whether classes that do not divide equally are spread as evenly as can be, the first experiences
    /// getting one more; otherwise, as in Avalanche, that is an error.
    pub fn uneven(mut self, yes: bool) -> Self {
        self.uneven = yes;
        self
    }

    /// Whether each of [several](Self::from_several) data sets becomes an experience of its own; they
    /// come in a drawn order unless [`shuffle`](Self::shuffle) is false.
    pub fn one_dataset_per_exp(mut self, yes: bool) -> Self {
        self.one_dataset_per_exp = yes;
        self
    }

    /// The transform for training and for replayed samples, in place of the benchmark's own.
    pub fn train_transform(mut self, transform: Transform) -> Self {
        self.transforms.train = transform;
        self
    }

    /// The transform for evaluation, in place of the benchmark's own.
    pub fn eval_transform(mut self, transform: Transform) -> Self {
        self.transforms.eval = transform;
        self
    }

    /// Whether the labels start from 0 again in each experience.
    pub fn class_ids_from_zero_in_each_exp(mut self, yes: bool) -> Self {
        self.from_zero_in_each_exp = yes;
        self
    }

    /// Whether a label is the position of its class in the class order.
    pub fn class_ids_from_zero_from_first_exp(mut self, yes: bool) -> Self {
        self.from_zero_from_first_exp = yes;
        self
    }

    /// Whether the task label is the experience's id (else 0).
    pub fn return_task_id(mut self, yes: bool) -> Self {
        self.return_task_id = yes;
        self
    }

    /// The name for logs and reports.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The benchmark.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option that does not fit the data or another option.
    pub fn build(self) -> Result<Benchmark> {
        let remapping = self.remapping()?;
        let (train, test, by_dataset) = joined(&self.train, &self.test, &self.transforms)?;
        let classes = self.plan(&by_dataset)?;
        let labels = labels(&classes, remapping);
        let stream = |name, whole: &ClassificationDataset| {
            let by_class = samples_by_class(whole);
            let mut experiences = Vec::new();
            for (id, (classes, labels)) in classes.iter().zip(&labels).enumerate() {
                let (mut indices, mut targets) = (Vec::new(), Vec::new());
                for class in python_set_order(classes) {
                    let samples = by_class.get(&class).map_or(&[][..], Vec::as_slice);
                    indices.extend_from_slice(samples);
                    targets.resize(indices.len(), labels[&class]);
                }
                if indices.is_empty() {
                    return Err(Error::config(
                        format!("{name} data set"),
                        format!("samples of the classes {classes:?} of experience {id}"),
                        "none",
                    ));
                }
                let mut view = whole.subset(&indices);
                if remapping != Remapping::None {
                    view = view.with_targets(&targets);
                }
                if self.return_task_id {
                    view = view.with_task_label(id as u32);
                }
                experiences.push(Experience::from_dataset(view, id, name));
            }
            Ok(Stream::new(name, experiences))
        };
        Ok(Benchmark::with_classes(
            &self.name,
            stream("train", &train)?,
            stream("test", &test)?,
            classes
                .iter()
                .zip(&labels)
                .flat_map(|(classes, labels)| classes.iter().map(|class| labels[class]))
                .collect(),
            classes,
        ))
    }
}

#[cfg(test)]
mod tests;
