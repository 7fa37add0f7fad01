//! New classes in every experience.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Benchmark, Experience, Stream, check_datasets, check_n_experiences};
use crate::data::embedded::mnist_tenth;
use crate::data::locate::{Kind, load};
use crate::data::{ClassificationDataset, Dataset, Transform, TransformGroups};
use crate::rng::{TorchGenerator, python_set_order};
use crate::{Error, Result};

/// How labels are renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remapping {
    None,
    FromFirstExperience,
    InEachExperience,
}

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
    train: Dataset,
    test: Dataset,
    transforms: TransformGroups,
    name: String,
    n_experiences: Option<usize>,
    seed: u64,
    shuffle: bool,
    fixed_class_order: Option<Vec<u32>>,
    per_exp_classes: BTreeMap<usize, usize>,
    from_zero_in_each_exp: bool,
    from_zero_from_first_exp: bool,
    return_task_id: bool,
}

impl NcBenchmark {
    /// Starts from all training and test data.
    pub fn new(train: Dataset, test: Dataset, transforms: TransformGroups) -> Self {
        NcBenchmark {
            name: train.name().to_owned(),
            train,
            test,
            transforms,
            n_experiences: None,
            seed: 0,
            shuffle: true,
            fixed_class_order: None,
            per_exp_classes: BTreeMap::new(),
            from_zero_in_each_exp: false,
            from_zero_from_first_exp: false,
            return_task_id: false,
        }
    }

    /// The number of experiences. Must be given; unless [`NcBenchmark::per_exp_classes`] says
    /// otherwise it must divide the number of classes.
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

    /// The number of classes of some experiences, by experience id; the remaining classes are
    /// divided equally over the others.
    pub fn per_exp_classes(mut self, counts: BTreeMap<usize, usize>) -> Self {
        self.per_exp_classes = counts;
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
        check_datasets(&self.train, &self.test, &self.transforms)?;
        let remapping = match (self.from_zero_from_first_exp, self.from_zero_in_each_exp) {
            (false, false) => Remapping::None,
            (true, false) => Remapping::FromFirstExperience,
            (false, true) => Remapping::InEachExperience,
            (true, true) => {
                return Err(Error::config(
                    "class_ids_from_zero_in_each_exp",
                    "false where class_ids_from_zero_from_first_exp is true",
                    "both",
                ));
            }
        };
        let train = samples_by_class(&self.train);
        let order = self.class_order(train.keys().copied().collect())?;
        let mut rest = order.as_slice();
        let mut classes = Vec::new();
        for count in self.classes_per_experience(order.len())? {
            let (these, others) = rest.split_at(count);
            classes.push(these.to_vec());
            rest = others;
        }
        let labels = labels(&classes, remapping);
        let transforms = Arc::new(self.transforms.clone());
        let stream = |name, data: &Dataset, by_class: &BTreeMap<u32, Vec<u32>>| {
            let whole =
                ClassificationDataset::with_shared_transforms(data.clone(), transforms.clone());
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
                        format!("{name} data set {}", data.name()),
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
            stream("train", &self.train, &train)?,
            stream("test", &self.test, &samples_by_class(&self.test))?,
            classes
                .iter()
                .zip(&labels)
                .flat_map(|(classes, labels)| classes.iter().map(|class| labels[class]))
                .collect(),
            classes,
        ))
    }

    /// The original labels in the order in which they are met.
    fn class_order(&self, classes: Vec<u32>) -> Result<Vec<u32>> {
        if let Some(order) = &self.fixed_class_order {
            let mut rest = classes.clone();
            for class in order {
                let Some(at) = rest.iter().position(|c| c == class) else {
                    return Err(Error::config(
                        "fixed_class_order",
                        format!("each class of the training data ({classes:?}) at most once"),
                        format!("{class} in {order:?}"),
                    ));
                };
                rest.remove(at);
            }
            if order.is_empty() {
                return Err(Error::config(
                    "fixed_class_order",
                    "at least one class",
                    "none",
                ));
            }
            return Ok(order.clone());
        }
        if !self.shuffle {
            return Ok(classes);
        }
        let permutation = TorchGenerator::manual_seed(self.seed).randperm(classes.len());
        Ok(permutation
            .into_iter()
            .map(|i| classes[i as usize])
            .collect())
    }

    /// The number of classes of each experience.
    fn classes_per_experience(&self, n_classes: usize) -> Result<Vec<usize>> {
        let n = check_n_experiences(self.n_experiences)?;
        if n > n_classes {
            let expected = format!("at most the number of classes, {n_classes}");
            return Err(Error::config("n_experiences", expected, n));
        }
        let fixed = &self.per_exp_classes;
        let wrong = |expected: String| {
            Err(Error::config(
                "per_exp_classes",
                expected,
                format!("{fixed:?}"),
            ))
        };
        if fixed.keys().any(|&id| id >= n) || fixed.values().any(|&count| count == 0) {
            return wrong(format!("experiences 0 to {} with at least 1 class", n - 1));
        }
        let taken = fixed
            .values()
            .try_fold(0usize, |sum, &count| sum.checked_add(count));
        let Some(rest) = taken.and_then(|taken| n_classes.checked_sub(taken)) else {
            return wrong(format!("at most {n_classes} classes together"));
        };
        let others = n - fixed.len();
        if others == 0 && rest != 0 {
            return wrong(format!("all {n_classes} classes in the {n} experiences"));
        }
        if others != 0 && (!rest.is_multiple_of(others) || rest == 0) {
            return Err(Error::config(
                "n_experiences",
                format!("a number of experiences that divides {rest} classes equally"),
                if fixed.is_empty() {
                    n.to_string()
                } else {
                    format!("{others} experiences left by per_exp_classes")
                },
            ));
        }
        let equal = rest.checked_div(others).unwrap_or(0);
        Ok((0..n)
            .map(|id| fixed.get(&id).copied().unwrap_or(equal))
            .collect())
    }
}

/// The places of each class's samples in `data`, ascending.
fn samples_by_class(data: &Dataset) -> BTreeMap<u32, Vec<u32>> {
    let mut by_class = BTreeMap::<u32, Vec<u32>>::new();
    for (index, &class) in (0..).zip(data.targets()) {
        by_class.entry(class).or_default().push(index);
    }
    by_class
}

/// For each experience, the label that the learner sees for each original class.
fn labels(classes: &[Vec<u32>], remapping: Remapping) -> Vec<BTreeMap<u32, u32>> {
    let mut first = 0;
    let mut labels = Vec::with_capacity(classes.len());
    for classes in classes {
        labels.push(match remapping {
            Remapping::None => classes.iter().map(|&class| (class, class)).collect(),
            Remapping::FromFirstExperience => classes.iter().copied().zip(first..).collect(),
            Remapping::InEachExperience => classes.iter().copied().zip(0..).collect(),
        });
        first += classes.len() as u32;
    }
    labels
}

/// MNIST's ten digits divided over experiences.
pub struct SplitMnist;

impl SplitMnist {
    /// Normalised with MNIST's mean and standard deviation.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = TransformGroups::same(Transform::mnist());
        NcBenchmark::new(train, test, transforms).name("SplitMNIST")
    }

    /// S-MNIST of the paper of DER (P. Buzzega et al., NeurIPS 2020): five tasks of two digits in
    /// ascending order, pixels from 0 to 1, not normalised.
    pub fn paper(train: Dataset, test: Dataset) -> NcBenchmark {
        let builder = NcBenchmark::new(train, test, TransformGroups::default());
        builder.name("S-MNIST").n_experiences(5).shuffle(false)
    }

    /// The embedded tenth of MNIST: 6,000 training and 1,000 test images, as many of each digit.
    pub fn embedded() -> NcBenchmark {
        let (train, test) = mnist_tenth();
        Self::from_datasets(train, test)
    }

    /// Full MNIST from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// [`Error::DataMissing`] with the places looked at, or what is wrong with the files.
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        let (train, test) = load(Kind::Mnist, dir)?;
        Ok(Self::from_datasets(train, test))
    }
}

/// Fashion-MNIST's ten articles divided over experiences.
pub struct SplitFmnist;

impl SplitFmnist {
    /// Normalised with Fashion-MNIST's mean and standard deviation.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = TransformGroups::same(Transform::fmnist());
        NcBenchmark::new(train, test, transforms).name("SplitFMNIST")
    }

    /// Full Fashion-MNIST from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// [`Error::DataMissing`] with the places looked at, or what is wrong with the files.
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        let (train, test) = load(Kind::FashionMnist, dir)?;
        Ok(Self::from_datasets(train, test))
    }
}

#[cfg(test)]
mod tests;
