//! What holds for every stream, whatever the data and the options.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Benchmark, Experience, NcBenchmark, PermutedMnist, RotatedMnist, Stream};
use crate::data::{ClassificationDataset, Dataset, OUTSIDE, RawSample, TransformGroups};

/// One sample for each target; its only pixel is its place.
fn dataset(targets: &[u32]) -> Dataset {
    let pixels = (0..targets.len()).map(|i| i as f32).collect();
    Dataset::from_f32("any", [1, 1, 1], pixels, targets.to_vec(), 40).unwrap()
}

fn sources(experience: &Experience) -> Vec<u32> {
    let data = experience.dataset();
    (0..data.len()).map(|i| data.source_index(i)).collect()
}

/// A split of `classes` labels, which need not be consecutive, and how many of them each experience
/// gets; labels of training and test samples in random order, every class at least once.
#[derive(Clone, Debug)]
struct Split {
    train: Vec<u32>,
    test: Vec<u32>,
    counts: Vec<usize>,
    seed: u64,
}

fn splits() -> impl proptest::strategy::Strategy<Value = Split> {
    let counts = prop::collection::vec(1usize..4, 1..6);
    counts.prop_flat_map(|counts| {
        let n: usize = counts.iter().sum();
        let labels = prop::sample::subsequence((0..40u32).collect::<Vec<_>>(), n);
        let samples = prop::collection::vec(1usize..4, n);
        (Just(counts), labels, samples.clone(), samples, any::<u64>()).prop_flat_map(
            |(counts, labels, train, test, seed)| {
                let spread = move |times: Vec<usize>| {
                    let all = labels.iter().zip(times);
                    all.flat_map(|(&label, n)| vec![label; n])
                        .collect::<Vec<_>>()
                };
                let (train, test) = (spread(train), spread(test));
                (Just(train).prop_shuffle(), Just(test).prop_shuffle()).prop_map(
                    move |(train, test)| Split {
                        train,
                        test,
                        counts: counts.clone(),
                        seed,
                    },
                )
            },
        )
    })
}

fn builder(split: &Split) -> NcBenchmark {
    let (train, test) = (dataset(&split.train), dataset(&split.test));
    NcBenchmark::new(train, test, TransformGroups::default())
        .n_experiences(split.counts.len())
        .per_exp_classes(split.counts.iter().copied().enumerate().collect())
        .seed(split.seed)
}

/// Every sample of `targets` in exactly one experience, and in that of its class.
fn check_partition(
    stream: &Stream,
    targets: &[u32],
    benchmark: &Benchmark,
) -> Result<(), TestCaseError> {
    let mut all = Vec::new();
    for (experience, classes) in stream.iter().zip(benchmark.original_classes_in_exp()) {
        for i in sources(experience) {
            prop_assert!(classes.contains(&targets[i as usize]));
            all.push(i);
        }
    }
    all.sort_unstable();
    prop_assert_eq!(all, (0..targets.len() as u32).collect::<Vec<_>>());
    Ok(())
}

proptest! {
    #[test]
    fn experiences_partition_the_samples_and_the_classes(split in splits()) {
        let benchmark = builder(&split).build().unwrap();
        let classes: BTreeSet<u32> = split.train.iter().copied().collect();
        let mut order = benchmark.classes_order().to_vec();
        prop_assert_eq!(benchmark.original_classes_in_exp().concat(), order.clone());
        order.sort_unstable();
        prop_assert_eq!(order, classes.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(benchmark.n_classes_per_exp(), split.counts.clone());
        check_partition(benchmark.train_stream(), &split.train, &benchmark)?;
        check_partition(benchmark.test_stream(), &split.test, &benchmark)?;
        for experience in benchmark.train_stream() {
            for (i, source) in sources(experience).into_iter().enumerate() {
                let target = experience.dataset().target(i);
                prop_assert_eq!(target, split.train[source as usize]);
            }
        }
    }

    /// What came before, now and after divides the classes, and past grows by the present.
    #[test]
    fn past_present_and_future_are_the_classes(split in splits()) {
        let benchmark = builder(&split).build().unwrap();
        let mut seen: Vec<u32> = Vec::new();
        for e in benchmark.train_stream() {
            let (now, past) = (e.classes_in_this_experience(), e.previous_classes());
            prop_assert_eq!(past, &seen[..]);
            prop_assert!(now.iter().all(|class| !seen.contains(class)));
            seen.extend(now);
            seen.sort_unstable();
            prop_assert_eq!(e.classes_seen_so_far(), &seen[..]);
            let mut all = [&seen, e.future_classes()].concat();
            all.sort_unstable();
            let mut order = benchmark.classes_order().to_vec();
            order.sort_unstable();
            prop_assert_eq!(all, order);
        }
    }

    /// Original and new labels are in bijection, over all experiences or within each, and the new
    /// ones are 0, 1, 2, ...
    #[test]
    fn renumbered_labels_are_bijections(split in splits(), in_each: bool) {
        let plain = builder(&split).build().unwrap();
        let benchmark = if in_each {
            builder(&split).class_ids_from_zero_in_each_exp(true)
        } else {
            builder(&split).class_ids_from_zero_from_first_exp(true)
        };
        let benchmark = benchmark.build().unwrap();
        let mut first = 0;
        for (e, plain) in benchmark.train_stream().iter().zip(plain.train_stream()) {
            prop_assert_eq!(sources(e), sources(plain), "the samples stay where they were");
            let (mut to, mut from) = (BTreeMap::new(), BTreeMap::new());
            for i in 0..e.dataset().len() {
                let (old, new) = (plain.dataset().target(i), e.dataset().target(i));
                prop_assert_eq!(*to.entry(old).or_insert(new), new);
                prop_assert_eq!(*from.entry(new).or_insert(old), old);
            }
            let n = to.len() as u32;
            let expected: Vec<u32> = (first..first + n).collect();
            prop_assert_eq!(e.classes_in_this_experience(), &expected[..]);
            first += if in_each { 0 } else { n };
        }
        let (old, new) = (plain.classes_order(), benchmark.classes_order());
        prop_assert_eq!(old.len(), new.len());
        prop_assert_eq!(plain.original_classes_in_exp(), benchmark.original_classes_in_exp());
    }

    #[test]
    fn slices_keep_ids_and_samples(split in splits(), a in 0usize..6, b in 0usize..6) {
        let benchmark = builder(&split).return_task_id(true).build().unwrap();
        let stream = benchmark.test_stream();
        let (a, b) = (a.min(b).min(stream.len()), a.max(b).min(stream.len()));
        let slice = stream.slice(a..b);
        prop_assert_eq!((slice.len(), slice.name()), (b - a, stream.name()));
        for (i, e) in slice.iter().enumerate() {
            prop_assert_eq!(e.current_experience(), a + i);
            prop_assert_eq!(e.task_label() as usize, a + i);
            prop_assert_eq!(sources(e), sources(&stream[a + i]));
            prop_assert_eq!(e.previous_classes(), stream[a + i].previous_classes());
        }
    }

    /// Classes that a fixed order leaves out take their samples with them, and no other.
    #[test]
    fn a_shorter_class_order_drops_whole_classes(split in splits(), keep in 1usize..6) {
        let classes: BTreeSet<u32> = split.train.iter().copied().collect();
        let order: Vec<u32> = classes.into_iter().rev().take(keep).collect();
        let benchmark = builder(&split).per_exp_classes(BTreeMap::new())
            .n_experiences(order.len()).fixed_class_order(order.clone()).build().unwrap();
        prop_assert_eq!(benchmark.classes_order(), &order[..]);
        let mut kept: Vec<u32> = benchmark.train_stream().iter().flat_map(sources).collect();
        kept.sort_unstable();
        let wanted = (0u32..).zip(&split.train).filter(|(_, class)| order.contains(class));
        prop_assert_eq!(kept, wanted.map(|(i, _)| i).collect::<Vec<_>>());
    }
}

/// `n` images of `side` x `side` whose pixels hold their own place + 1, classes 0, 1, 2, 0, ...
fn places(n: usize, side: usize) -> Dataset {
    let plane = side * side;
    let pixels = (0..n * plane).map(|p| (p % plane + 1) as f32).collect();
    let targets = (0..n).map(|i| i as u32 % 3).collect();
    Dataset::from_f32("places", [1, side, side], pixels, targets, 3).unwrap()
}

/// Which place of the source each pixel of sample `i` shows.
fn shown(experience: &Experience, i: usize) -> Vec<u32> {
    let RawSample::F32(values) = experience.dataset().raw(i) else {
        panic!("the images are f32")
    };
    let place = |&x: &f32| if x == 0.0 { OUTSIDE } else { x as u32 - 1 };
    values.iter().map(place).collect()
}

fn rotated(side: usize, angle: f64) -> Vec<u32> {
    let builder = RotatedMnist::from_datasets(places(1, side), places(1, side));
    let benchmark = builder.n_experiences(1).rotations_list(vec![angle]);
    shown(&benchmark.build().unwrap().train_stream()[0], 0)
}

proptest! {
    #[test]
    fn permutations_are_permutations(side in 1usize..12, n in 1usize..5, seed: u32) {
        let builder = PermutedMnist::from_datasets(places(7, side), places(4, side));
        let benchmark = builder.n_experiences(n).seed(seed.into()).build().unwrap();
        let streams = [benchmark.train_stream(), benchmark.test_stream()];
        for (train, test) in streams[0].iter().zip(streams[1]) {
            let permutation = shown(train, 0);
            prop_assert!((0..7).all(|i| shown(train, i) == permutation), "for every sample");
            prop_assert_eq!(&shown(test, 3), &permutation);
            let mut sorted = permutation;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..(side * side) as u32).collect::<Vec<_>>());
            let mut samples = sources(train);
            samples.sort_unstable();
            prop_assert_eq!(samples, (0..7).collect::<Vec<_>>(), "every sample once");
        }
    }

    /// A pixel of a rotated image comes from the same distance to the centre, up to rounding, and
    /// one that comes from nowhere would have come from outside.
    #[test]
    fn rotations_keep_distances(side in 1usize..20, angle in -400.0f64..400.0) {
        let centre = (side as f64 - 1.0) / 2.0;
        let offset = |p: usize| {
            let (y, x) = ((p / side) as f64, (p % side) as f64);
            (y - centre).hypot(x - centre)
        };
        for (p, from) in rotated(side, angle).into_iter().enumerate() {
            if from == OUTSIDE {
                prop_assert!(offset(p) > centre - 1e-6, "{p} lies inside at every angle");
            } else {
                let change = (offset(p) - offset(from as usize)).abs();
                prop_assert!(change <= 0.5f64.sqrt() + 1e-9, "{p} from {from}: {change}");
            }
        }
    }

    /// Turning the other way is turning the mirror image.
    #[test]
    fn rotations_mirror(side in 1usize..20, angle in 1.0f64..44.0) {
        let mirror = |p: usize| p / side * side + (side - 1 - p % side);
        let (there, back) = (rotated(side, angle), rotated(side, -angle));
        for p in 0..side * side {
            let mirrored = match there[mirror(p)] {
                OUTSIDE => OUTSIDE,
                from => mirror(from as usize) as u32,
            };
            prop_assert_eq!(back[p], mirrored, "pixel {}", p);
        }
    }

    #[test]
    fn four_quarter_turns_are_none(side in 1usize..20, quarter in -4i32..5) {
        let once = rotated(side, f64::from(quarter) * 90.0);
        let compose = |a: &[u32]| a.iter().map(|&p| once[p as usize]).collect::<Vec<_>>();
        let four = compose(&compose(&compose(&once)));
        prop_assert_eq!(four, (0..(side * side) as u32).collect::<Vec<_>>());
    }
}

proptest! {
    /// Mini-batches that a stream prescribes follow each other without a gap.
    #[test]
    fn prescribed_batches_cover_the_data(lengths in prop::collection::vec(1usize..9, 1..9)) {
        let data = dataset(&vec![0; lengths.iter().sum()]);
        let view = ClassificationDataset::new(data, TransformGroups::default());
        let experience = Experience::from_dataset(view, 0, "train").with_batches(&lengths);
        let stream = Stream::new("train", vec![experience]);
        let batches = stream[0].batches().unwrap();
        let samples: Vec<usize> = batches.iter().cloned().flatten().collect();
        prop_assert_eq!(samples, (0..lengths.iter().sum()).collect::<Vec<_>>());
        prop_assert_eq!(batches.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), lengths);
    }
}

#[test]
#[should_panic(expected = "2 mini-batches of 3 samples for 4")]
fn batches_that_do_not_cover_the_data_are_a_callers_bug() {
    let view = ClassificationDataset::new(dataset(&[0; 4]), TransformGroups::default());
    let _ = Experience::from_dataset(view, 0, "train").with_batches(&[2, 1]);
}
