//! Benchmarks made of data sets and of other benchmarks.

use std::collections::BTreeSet;

use super::ni::shuffled;
use super::{Benchmark, Experience, Stream, check_n_experiences};
use crate::data::ClassificationDataset;
use crate::rng::TorchGenerator;
use crate::{Error, Result};

/// One experience for each data set (Avalanche's `benchmark_from_datasets`); task labels stay as the
/// data sets have them.
///
/// # Errors
/// [`Error::Config`] if there is no training data set, one is empty or their images differ in shape.
pub fn benchmark_from_datasets(
    name: &str,
    train: &[ClassificationDataset],
    test: &[ClassificationDataset],
) -> Result<Benchmark> {
    let Some(first) = train.first() else {
        return Err(Error::config("train", "at least one data set", "none"));
    };
    let stream = |stream_name, parts: &[ClassificationDataset]| {
        for (id, part) in parts.iter().enumerate() {
            let wrong = |expected, found: String| {
                Error::config(format!("{stream_name} data set {id}"), expected, found)
            };
            if part.is_empty() {
                return Err(wrong("at least one sample".into(), "none".into()));
            }
            if part.shape() != first.shape() {
                let expected = format!("images of {:?}", first.shape());
                return Err(wrong(expected, format!("{:?}", part.shape())));
            }
        }
        Ok(stream(stream_name, parts.iter().cloned()))
    };
    let (train, test) = (stream("train", train)?, stream("test", test)?);
    Ok(Benchmark::from_streams(name, train, test))
}

/// How [`class_incremental_benchmark`] divides the classes.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassSplit {
    /// As many experiences of equally many classes; the last one takes what is left over.
    Experiences(usize),
    /// So many classes in each experience; together all.
    ClassesPerExperience(Vec<usize>),
}

/// In which order [`class_incremental_benchmark`] takes the classes.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassOrder {
    /// The permutation of `torch.randperm` after this seed.
    Seed(u64),
    /// This order.
    Fixed(Vec<u32>),
}

/// Divides two views by class, in the same order (Avalanche's `class_incremental_benchmark`): the
/// classes are 0 to the largest training label, and an experience holds the samples of its last class
/// first. Task labels stay as the views have them.
///
/// Where the classes do not divide evenly the last experience takes the rest; Avalanche drops it
/// silently, although its comment says the same.
///
/// # Errors
/// [`Error::Config`] if the numbers or the order do not fit the classes, or an experience gets no
/// sample.
pub fn class_incremental_benchmark(
    name: &str,
    train: &ClassificationDataset,
    test: &ClassificationDataset,
    split: &ClassSplit,
    order: &ClassOrder,
) -> Result<Benchmark> {
    let labels: BTreeSet<u32> = train.targets().into_iter().collect();
    let n_classes = labels.last().map_or(0, |&label| label as usize + 1);
    let order = match order {
        ClassOrder::Seed(seed) => TorchGenerator::manual_seed(*seed).randperm(n_classes),
        ClassOrder::Fixed(order) => {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if sorted.iter().map(|&c| c as usize).ne(0..n_classes) {
                let expected = format!("each class below {n_classes} once");
                return Err(Error::config("class order", expected, format!("{order:?}")));
            }
            order.clone()
        }
    };
    let counts = match split {
        ClassSplit::Experiences(n) => {
            let n = check_n_experiences(Some(*n))?;
            if n > n_classes {
                let expected = format!("at most the number of classes, {n_classes}");
                return Err(Error::config("n_experiences", expected, n));
            }
            let mut counts = vec![n_classes / n; n];
            counts[n - 1] += n_classes % n;
            counts
        }
        ClassSplit::ClassesPerExperience(counts) => {
            let sum = counts.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
            if sum != Some(n_classes) || counts.contains(&0) {
                return Err(Error::config(
                    "classes per experience",
                    format!("numbers of at least 1 that add up to {n_classes}"),
                    format!("{counts:?}"),
                ));
            }
            counts.clone()
        }
    };
    let mut rest = order.as_slice();
    let mut classes = Vec::new();
    for count in counts {
        let (these, others) = rest.split_at(count);
        classes.push(these.to_vec());
        rest = others;
    }
    let stream = |stream_name, data: &ClassificationDataset| {
        let targets = data.targets();
        let mut parts = Vec::new();
        for (id, classes) in classes.iter().enumerate() {
            let of = |class: &u32| {
                let class = *class;
                let samples = (0u32..).zip(&targets);
                samples.filter(move |&(_, &t)| t == class).map(|(i, _)| i)
            };
            let indices: Vec<u32> = classes.iter().rev().flat_map(of).collect();
            if indices.is_empty() {
                let expected = format!("samples of the classes {classes:?} of experience {id}");
                return Err(Error::config(
                    format!("{stream_name} data set"),
                    expected,
                    "none",
                ));
            }
            parts.push(data.subset(&indices));
        }
        Ok(stream(stream_name, parts.into_iter()))
    };
    let (train, test) = (stream("train", train)?, stream("test", test)?);
    Ok(Benchmark::with_classes(name, train, test, order, classes))
}

/// The same benchmark with an experience's position in its stream as its task label (Avalanche's
/// `task_incremental_benchmark` with `reset_task_labels`); labels that were there are replaced.
pub fn task_incremental_benchmark(benchmark: &Benchmark) -> Benchmark {
    benchmark.map_streams(|stream| {
        let parts = stream.iter().enumerate();
        let parts = parts.map(|(id, e)| e.with_dataset(e.dataset().with_task_label(id as u32)));
        Stream::new(stream.name(), parts.collect())
    })
}

/// How much of each training experience goes to the validation stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValidationSize {
    /// This share, 0 to 1, rounded down.
    Fraction(f64),
    /// So many samples.
    Count(usize),
}

/// How [`benchmark_with_validation_stream`] chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationSplit {
    /// The last samples of the experience.
    Last,
    /// The last samples after shuffling each experience with a generator of this seed, the same for
    /// every experience.
    Shuffled(u64),
    /// The same share of each class, drawn by one generator of this seed for the whole stream.
    ClassBalanced(u64),
}

/// The benchmark with part of each training experience moved to a stream "valid" (Avalanche's
/// `benchmark_with_validation_stream`, with `split_validation_class_balanced` as an option). Unlike
/// there, task labels are kept, a fraction and a number of samples cannot be mistaken for each other,
/// and no sample is in both streams (Avalanche splits class-balanced twice with different draws if the
/// benchmark comes from `nc_benchmark`).
///
/// # Errors
/// [`Error::Config`] if a fraction is not in [0, 1], an experience has fewer samples than asked for, or
/// a number of samples is to be class-balanced.
pub fn benchmark_with_validation_stream(
    benchmark: &Benchmark,
    size: ValidationSize,
    split: ValidationSplit,
) -> Result<Benchmark> {
    let share = |n: usize| match size {
        ValidationSize::Fraction(f) if (0.0..=1.0).contains(&f) => Ok((f * n as f64) as usize),
        ValidationSize::Fraction(f) => Err(Error::config(
            "validation size",
            "a fraction from 0 to 1",
            f,
        )),
        ValidationSize::Count(count) if count <= n => Ok(count),
        ValidationSize::Count(count) => {
            let expected = format!("at most the {n} samples of an experience");
            Err(Error::config("validation size", expected, count))
        }
    };
    let mut one_for_all = match (split, size) {
        (ValidationSplit::ClassBalanced(_), ValidationSize::Count(n)) => {
            let expected = "a fraction, if the classes are to be balanced";
            return Err(Error::config("validation size", expected, n));
        }
        (ValidationSplit::ClassBalanced(seed), _) => TorchGenerator::manual_seed(seed),
        _ => TorchGenerator::manual_seed(0),
    };
    let (mut train, mut valid) = (Vec::new(), Vec::new());
    for experience in benchmark.train_stream() {
        let data = experience.dataset();
        let all: Vec<u32> = (0..data.len() as u32).collect();
        let (rest, taken) = match split {
            ValidationSplit::ClassBalanced(_) => {
                let order = shuffled(&all, &mut one_for_all);
                let (mut rest, mut taken) = (Vec::new(), Vec::new());
                for &class in experience.classes_in_this_experience() {
                    let of_class = |&i: &u32| data.target(i as usize) == class;
                    let samples: Vec<u32> = order.iter().copied().filter(of_class).collect();
                    let (first, others) = samples.split_at(share(samples.len())?);
                    taken.extend_from_slice(first);
                    rest.extend_from_slice(others);
                }
                (rest, taken)
            }
            ValidationSplit::Last | ValidationSplit::Shuffled(_) => {
                let mut rest = match split {
                    ValidationSplit::Shuffled(seed) => {
                        shuffled(&all, &mut TorchGenerator::manual_seed(seed))
                    }
                    _ => all,
                };
                let taken = rest.split_off(rest.len() - share(rest.len())?);
                (rest, taken)
            }
        };
        let id = experience.current_experience();
        train.push(experience.with_dataset(data.subset(&rest)));
        valid.push(Experience::from_dataset(data.subset(&taken), id, "valid"));
    }
    let train = Stream::new(benchmark.train_stream().name(), train);
    Ok(benchmark
        .with_train_stream(train)
        .with_valid_stream(Stream::new("valid", valid)))
}

/// The benchmark with every training experience cut into pieces of `experience_size` samples, the last
/// of them as large as what is left (Avalanche's `data_incremental_benchmark`). With a seed the samples
/// of each experience are shuffled first, by one generator for the whole stream. Task labels stay.
///
/// # Errors
/// [`Error::Config`] if the size is 0.
pub fn data_incremental_benchmark(
    benchmark: &Benchmark,
    experience_size: usize,
    shuffle: Option<u64>,
) -> Result<Benchmark> {
    if experience_size == 0 {
        return Err(Error::config("experience_size", "at least 1", 0));
    }
    let mut generator = shuffle.map(TorchGenerator::manual_seed);
    let mut parts = Vec::new();
    for experience in benchmark.train_stream() {
        let data = experience.dataset();
        let mut samples: Vec<u32> = (0..data.len() as u32).collect();
        if let Some(generator) = &mut generator {
            samples = shuffled(&samples, generator);
        }
        parts.extend(
            samples
                .chunks(experience_size)
                .map(|piece| data.subset(piece)),
        );
    }
    let name = benchmark.train_stream().name().to_owned();
    Ok(benchmark.with_train_stream(stream(&name, parts.into_iter())))
}

/// The views as experiences 0, 1, 2, ...
fn stream(name: &str, parts: impl Iterator<Item = ClassificationDataset>) -> Stream {
    let parts = parts.enumerate();
    let experiences = parts.map(|(id, part)| Experience::from_dataset(part, id, name));
    Stream::new(name, experiences.collect())
}
