//! New instances of the same classes in every experience.

use super::several::{joined, samples_by_class};
use super::{Benchmark, Experience, Stream, check_n_experiences};
use crate::data::{ClassificationDataset, Dataset, TransformGroups};
use crate::rng::TorchGenerator;
use crate::{Error, Result};

/// Builds a benchmark in which the samples of all classes are divided at random over the training
/// experiences, with one test experience of the whole test data.
///
/// This is Avalanche's `ni_benchmark`, sample for sample; unlike there, the seed does not touch the
/// generator of the training run, labels need not be consecutive, and a minimum of samples of each
/// class works without balancing too (Avalanche fails on it).
///
/// ```
/// use unforget::benchmarks::NiBenchmark;
/// use unforget::data::{Dataset, TransformGroups};
/// let data = Dataset::from_u8("ten", [1, 1, 1], vec![0; 10], vec![0; 10], 1)?;
/// let builder = NiBenchmark::new(data.clone(), data, TransformGroups::default());
/// let benchmark = builder.n_experiences(3).build()?;
/// let sizes: Vec<usize> = benchmark.train_stream().iter().map(|e| e.dataset().len()).collect();
/// assert_eq!(sizes.iter().sum::<usize>(), 10);
/// assert_eq!(benchmark.test_stream().len(), 1);
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct NiBenchmark {
    train: Vec<Dataset>,
    test: Vec<Dataset>,
    transforms: TransformGroups,
    name: String,
    n_experiences: Option<usize>,
    seed: u64,
    shuffle: bool,
    balance_experiences: bool,
    min_class_patterns_in_exp: usize,
    fixed_exp_assignment: Option<Vec<Vec<u32>>>,
    return_task_id: bool,
}

impl NiBenchmark {
    /// Starts from all training and test data.
    pub fn new(train: Dataset, test: Dataset, transforms: TransformGroups) -> Self {
        Self::from_several(vec![train], vec![test], transforms)
    }

    /// Starts from the training and test data of several data sets, whose classes are numbered as
    /// [`NcBenchmark::from_several`](super::NcBenchmark::from_several) numbers them.
    pub fn from_several(
        train: Vec<Dataset>,
        test: Vec<Dataset>,
        transforms: TransformGroups,
    ) -> Self {
        let names: Vec<&str> = train.iter().map(Dataset::name).collect();
        NiBenchmark {
            name: names.join("+"),
            train,
            test,
            transforms,
            n_experiences: None,
            seed: 0,
            shuffle: true,
            balance_experiences: false,
            min_class_patterns_in_exp: 0,
            fixed_exp_assignment: None,
            return_task_id: false,
        }
    }

    /// The number of experiences; must be given unless the assignment is fixed. Samples that do not
    /// divide evenly go one each to experiences drawn at random, or to the first ones.
    pub fn n_experiences(mut self, n: usize) -> Self {
        self.n_experiences = Some(n);
        self
    }

    /// The seed of the assignment; 0 if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether samples are drawn (the default) or taken in the order of the data set.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Whether each class is divided equally over the experiences; else all samples are.
    pub fn balance_experiences(mut self, yes: bool) -> Self {
        self.balance_experiences = yes;
        self
    }

    /// How many samples of each class an experience has at least; 0 if not given.
    pub fn min_class_patterns_in_exp(mut self, n: usize) -> Self {
        self.min_class_patterns_in_exp = n;
        self
    }

    /// The training samples of each experience, counted through all data sets; nothing is drawn then.
    /// [`Benchmark::samples_in_exp`] of another benchmark builds the same one again (Avalanche's
    /// `reproducibility_data`).
    pub fn fixed_exp_assignment(mut self, samples: Vec<Vec<u32>>) -> Self {
        self.fixed_exp_assignment = Some(samples);
        self
    }

    /// Whether the task label of a training experience is its id (else 0); that of the test
    /// experience is 0.
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
    /// [`Error::Config`] naming the option that does not fit the data.
    pub fn build(self) -> Result<Benchmark> {
        let (whole, test, _) = joined(&self.train, &self.test, &self.transforms)?;
        let assignment = match &self.fixed_exp_assignment {
            Some(fixed) => checked(whole.len(), fixed)?.clone(),
            None => self.assignment(&whole)?,
        };
        let train = assignment.iter().enumerate().map(|(id, samples)| {
            let task_label = if self.return_task_id { id as u32 } else { 0 };
            let part = whole.subset(samples).with_task_label(task_label);
            Experience::from_dataset(part, id, "train")
        });
        let train = Stream::new("train", train.collect());
        let test = Experience::from_dataset(test, 0, "test");
        let test = Stream::new("test", vec![test]);
        let benchmark = Benchmark::from_streams(&self.name, train, test);
        Ok(benchmark.with_samples(assignment))
    }

    /// The samples of each experience, drawn as Avalanche draws them.
    fn assignment(&self, whole: &ClassificationDataset) -> Result<Vec<Vec<u32>>> {
        let n = check_n_experiences(self.n_experiences)?;
        if n > whole.len() {
            let expected = format!("at most the number of samples, {}", whole.len());
            return Err(Error::config("n_experiences", expected, n));
        }
        let mut generator = TorchGenerator::manual_seed(self.seed);
        let classes = self.samples_by_class(whole, &mut generator);
        let least = classes.iter().map(Vec::len).min().unwrap_or(0);
        let wanted = self.min_class_patterns_in_exp;
        if n.checked_mul(wanted).is_none_or(|wanted| wanted > least) {
            return Err(Error::config(
                "min_class_patterns_in_exp",
                format!("at most {}: a class has {least} samples", least / n),
                wanted,
            ));
        }
        Ok(if self.balance_experiences {
            self.balanced(n, &classes, &mut generator)
        } else {
            self.unbalanced(whole.len(), n, &classes, &mut generator)
        })
    }

    /// The samples of each class, shuffled if asked for.
    fn samples_by_class(
        &self,
        whole: &ClassificationDataset,
        generator: &mut TorchGenerator,
    ) -> Vec<Vec<u32>> {
        let classes = samples_by_class(whole).into_values();
        if self.shuffle {
            classes
                .map(|samples| shuffled(&samples, generator))
                .collect()
        } else {
            classes.collect()
        }
    }

    /// The experiences that get one sample more: `n_more` of them.
    fn larger(&self, n: usize, n_more: usize, generator: &mut TorchGenerator) -> Vec<usize> {
        if n_more == 0 || !self.shuffle {
            return (0..n_more).collect();
        }
        let order = generator.randperm(n);
        order[..n_more].iter().map(|&id| id as usize).collect()
    }

    fn balanced(
        &self,
        n: usize,
        classes: &[Vec<u32>],
        generator: &mut TorchGenerator,
    ) -> Vec<Vec<u32>> {
        let mut experiences = vec![Vec::new(); n];
        for samples in classes {
            let mut counts = vec![samples.len() / n; n];
            for id in self.larger(n, samples.len() % n, generator) {
                counts[id] += 1;
            }
            let mut rest = samples.as_slice();
            for (experience, count) in experiences.iter_mut().zip(counts) {
                let (these, others) = rest.split_at(count);
                experience.extend_from_slice(these);
                rest = others;
            }
        }
        experiences
    }

    fn unbalanced(
        &self,
        samples: usize,
        n: usize,
        classes: &[Vec<u32>],
        generator: &mut TorchGenerator,
    ) -> Vec<Vec<u32>> {
        let least = self.min_class_patterns_in_exp;
        let mut taken = vec![false; samples];
        let mut experiences = vec![Vec::new(); n];
        for (id, experience) in experiences.iter_mut().enumerate() {
            for samples in classes {
                let these = &samples[id * least..(id + 1) * least];
                these
                    .iter()
                    .for_each(|&sample| taken[sample as usize] = true);
                experience.extend_from_slice(these);
            }
        }
        let mut rest: Vec<u32> = (0..taken.len() as u32)
            .filter(|&sample| !taken[sample as usize])
            .collect();
        if self.shuffle {
            rest = shuffled(&rest, generator);
        }
        let size = rest.len() / n;
        for (id, experience) in experiences.iter_mut().enumerate() {
            experience.extend_from_slice(&rest[id * size..(id + 1) * size]);
        }
        let left = &rest[n * size..];
        for (id, &sample) in self.larger(n, left.len(), generator).into_iter().zip(left) {
            experiences[id].push(sample);
        }
        experiences
    }
}

/// An assignment that a user gave, of `n` samples.
fn checked(n: usize, fixed: &Vec<Vec<u32>>) -> Result<&Vec<Vec<u32>>> {
    let outside = fixed.iter().flatten().find(|&&sample| sample as usize >= n);
    let found = match (outside, fixed.iter().position(Vec::is_empty)) {
        (Some(sample), _) => format!("sample {sample}"),
        (None, Some(id)) => format!("no sample for experience {id}"),
        (None, None) if fixed.is_empty() => "no experience".into(),
        (None, None) => return Ok(fixed),
    };
    let expected = format!("samples below {n} for each experience");
    Err(Error::config("fixed_exp_assignment", expected, found))
}

/// The samples in an order drawn as `torch.randperm` does.
pub(super) fn shuffled(samples: &[u32], generator: &mut TorchGenerator) -> Vec<u32> {
    let order = generator.randperm(samples.len());
    order.into_iter().map(|i| samples[i as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn builder(targets: &[u32]) -> NiBenchmark {
        let pixels = vec![0; targets.len()];
        let data = Dataset::from_u8("ni", [1, 1, 1], pixels, targets.to_vec(), 40).unwrap();
        NiBenchmark::new(data.clone(), data, TransformGroups::default())
    }

    fn sources(benchmark: &Benchmark) -> Vec<Vec<u32>> {
        let list = |e: &Experience| {
            let data = e.dataset();
            (0..data.len()).map(|i| data.source_index(i)).collect()
        };
        benchmark.train_stream().iter().map(list).collect()
    }

    proptest! {
        #[test]
        fn experiences_partition_the_samples(
            targets in prop::collection::vec(0u32..40, 1..60),
            n in 1usize..7, seed: u64, shuffle: bool, balanced: bool,
        ) {
            prop_assume!(n <= targets.len());
            let built = builder(&targets).n_experiences(n).seed(seed).shuffle(shuffle);
            let benchmark = built.balance_experiences(balanced).build().unwrap();
            let mut all = sources(&benchmark).concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..targets.len() as u32).collect::<Vec<_>>());
            let sizes: Vec<usize> = sources(&benchmark).iter().map(Vec::len).collect();
            if !balanced {
                let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{:?}", sizes);
            }
        }

        /// Of each class as many samples as can be equal, or at least as many as were asked for.
        #[test]
        fn classes_are_spread(each in 6usize..20, n in 1usize..4, seed: u64, balanced: bool) {
            let targets: Vec<u32> = (0..3 * each as u32).map(|i| 7 * (i % 3)).collect();
            let built = builder(&targets).n_experiences(n).seed(seed).min_class_patterns_in_exp(2);
            let benchmark = built.balance_experiences(balanced).build().unwrap();
            for e in benchmark.train_stream() {
                for class in [0, 7, 14] {
                    let count = e.dataset().targets().iter().filter(|&&t| t == class).count();
                    prop_assert!(count >= 2);
                    if balanced {
                        prop_assert!(count == each / n || count == each / n + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let new = || builder(&[0, 0, 0, 1, 1]);
        for (builder, want) in [
            (new(), "none given"),
            (new().n_experiences(6), "at most the number of samples, 5"),
            (
                new().n_experiences(2).min_class_patterns_in_exp(2),
                "at most 1: a class has 2 samples, found 2",
            ),
            (
                new().n_experiences(2).min_class_patterns_in_exp(usize::MAX),
                "min_class_patterns_in_exp",
            ),
            (
                new().fixed_exp_assignment(vec![vec![0], vec![5]]),
                "found sample 5",
            ),
            (
                new().fixed_exp_assignment(vec![vec![0], vec![]]),
                "no sample for experience 1",
            ),
            (new().fixed_exp_assignment(vec![]), "no experience"),
        ] {
            let message = builder.build().unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
        let fixed = new()
            .fixed_exp_assignment(vec![vec![4, 0], vec![0]])
            .build();
        assert_eq!(sources(&fixed.unwrap()), [vec![4, 0], vec![0]]);
    }

    #[test]
    fn several_data_sets_are_numbered_one_after_the_other_and_built_again() {
        let data = |targets: &[u32]| {
            let pixels = vec![0; targets.len()];
            Dataset::from_u8("part", [1, 1, 1], pixels, targets.to_vec(), 9).unwrap()
        };
        let parts = vec![data(&[3, 3, 5, 5]), data(&[1, 1, 0])];
        let builder =
            || NiBenchmark::from_several(parts.clone(), parts.clone(), TransformGroups::default());
        let benchmark = builder().n_experiences(3).seed(4).build().unwrap();
        let samples = benchmark.samples_in_exp().expect("they were assigned");
        let mut all = samples.concat();
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        // Classes 3 and 5 become 0 and 1, then 0 and 1 become 2 and 3.
        let labels = [0, 0, 1, 1, 3, 3, 2];
        for (experience, samples) in benchmark.train_stream().iter().zip(samples) {
            let wanted: Vec<u32> = samples.iter().map(|&i| labels[i as usize]).collect();
            assert_eq!(experience.dataset().targets(), wanted);
        }
        assert_eq!(benchmark.test_stream()[0].dataset().targets(), labels);
        let again = builder()
            .fixed_exp_assignment(samples.to_vec())
            .seed(9)
            .build();
        assert_eq!(sources(&again.unwrap()), sources(&benchmark));
        let lacking = NiBenchmark::from_several(parts, vec![], TransformGroups::default());
        assert!(lacking.n_experiences(2).build().is_err());
    }
}
