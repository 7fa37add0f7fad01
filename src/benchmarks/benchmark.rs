//! A training and a test stream over the same classes.

use super::Stream;

/// A named pair of streams and how the classes lie in them.
#[derive(Clone, Debug)]
pub struct Benchmark {
    name: String,
    train: Stream,
    test: Stream,
    valid: Option<Stream>,
    classes_order: Vec<u32>,
    original_classes_in_exp: Vec<Vec<u32>>,
    samples_in_exp: Option<Vec<Vec<u32>>>,
}

impl Benchmark {
    /// A benchmark of one's own streams; the classes of an experience are taken in ascending order.
    pub fn from_streams(name: &str, train: Stream, test: Stream) -> Self {
        let classes = train
            .iter()
            .map(|e| e.classes_in_this_experience().to_vec());
        let classes: Vec<Vec<u32>> = classes.collect();
        Self::with_classes(name, train, test, classes.concat(), classes)
    }

    /// A benchmark whose classes were put in an order of their own.
    pub(super) fn with_classes(
        name: &str,
        train: Stream,
        test: Stream,
        classes_order: Vec<u32>,
        original_classes_in_exp: Vec<Vec<u32>>,
    ) -> Self {
        Benchmark {
            name: name.to_owned(),
            train,
            test,
            valid: None,
            classes_order,
            original_classes_in_exp,
            samples_in_exp: None,
        }
    }

    /// The same benchmark with the samples that its training experiences were given.
    pub(super) fn with_samples(mut self, samples: Vec<Vec<u32>>) -> Self {
        self.samples_in_exp = Some(samples);
        self
    }

    /// The same benchmark with another training stream, such as a
    /// [cut one](super::split_online_stream); the lists of classes are those of the new stream.
    pub fn with_train_stream(&self, train: Stream) -> Self {
        let valid = self.valid.clone();
        Benchmark {
            valid,
            ..Self::from_streams(&self.name, train, self.test.clone())
        }
    }

    /// The same benchmark with a validation stream.
    pub(super) fn with_valid_stream(mut self, valid: Stream) -> Self {
        self.valid = Some(valid);
        self
    }

    /// The same benchmark with each stream changed.
    pub(super) fn map_streams(&self, change: impl Fn(&Stream) -> Stream) -> Self {
        Benchmark {
            train: change(&self.train),
            test: change(&self.test),
            valid: self.valid.as_ref().map(change),
            ..self.clone()
        }
    }

    /// The name for logs and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The experiences to learn from.
    pub fn train_stream(&self) -> &Stream {
        &self.train
    }

    /// The experiences to evaluate on.
    pub fn test_stream(&self) -> &Stream {
        &self.test
    }

    /// The experiences held out from training, if the benchmark
    /// [was given some](super::benchmark_with_validation_stream).
    pub fn valid_stream(&self) -> Option<&Stream> {
        self.valid.as_ref()
    }

    /// The number of training experiences.
    pub fn n_experiences(&self) -> usize {
        self.train.len()
    }

    /// The width of an output layer for all labels: the largest label + 1.
    ///
    /// Avalanche instead counts the classes of a domain-incremental benchmark once for each
    /// experience (30 for PermutedMNIST with 3 experiences, of which 20 outputs are never used).
    pub fn n_classes(&self) -> usize {
        let streams = self.train.iter().chain(&self.test);
        let last = streams.filter_map(|e| e.classes_in_this_experience().last());
        last.max().map_or(0, |&label| label as usize + 1)
    }

    /// The labels in the order in which they are met, as the learner sees them: after any
    /// remapping, so they are 0, 1, 2, ... if the labels count from the first experience.
    pub fn classes_order(&self) -> &[u32] {
        &self.classes_order
    }

    /// The number of classes of each training experience.
    pub fn n_classes_per_exp(&self) -> Vec<usize> {
        self.original_classes_in_exp.iter().map(Vec::len).collect()
    }

    /// The training samples of each experience, where they and not their classes were
    /// [divided](super::NiBenchmark).
    pub fn samples_in_exp(&self) -> Option<&[Vec<u32>]> {
        self.samples_in_exp.as_deref()
    }

    /// The labels of each training experience as the data set numbers them, in class order.
    pub fn original_classes_in_exp(&self) -> &[Vec<u32>] {
        &self.original_classes_in_exp
    }
}
