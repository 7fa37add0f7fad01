//! The generators of benchmarks against what Avalanche's do with the same data and seeds.

use serde_json::Value;
use unforget::benchmarks::{
    ClassOrder, ClassSplit, Experience, NcBenchmark, NiBenchmark, OnlineOptions, SplitCifar110,
    Stream, ValidationSize, ValidationSplit, benchmark_from_datasets,
    benchmark_with_validation_stream, class_incremental_benchmark, data_incremental_benchmark,
    split_online_stream, task_incremental_benchmark,
};
use unforget::data::{ClassificationDataset, Dataset, RawSample, TransformGroups};
use unforget::prelude::Benchmark;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/generators.json")).unwrap()
}

/// Sample i has the one pixel i.
fn dataset(targets: Vec<u32>) -> Dataset {
    let pixels = (0..targets.len()).map(|i| i as f32).collect();
    Dataset::from_f32("golden", [1, 1, 1], pixels, targets, 5).unwrap()
}

fn train() -> Dataset {
    dataset((0..47).map(|i| (i * i + i / 7) % 5).collect())
}

fn test() -> Dataset {
    dataset((0..13).map(|i| i % 5).collect())
}

fn view(data: Dataset) -> ClassificationDataset {
    ClassificationDataset::new(data, TransformGroups::default())
}

fn split(n: usize) -> Benchmark {
    let builder = NcBenchmark::new(train(), test(), TransformGroups::default());
    builder
        .n_experiences(n)
        .uneven(true)
        .seed(1)
        .build()
        .unwrap()
}

fn indices(experience: &Experience) -> Vec<u64> {
    let data = experience.dataset();
    let pixel = |i| match data.raw(i) {
        RawSample::F32(pixels) => pixels[0] as u64,
        RawSample::U8(_) => panic!("the pixels are f32"),
    };
    (0..data.len()).map(pixel).collect()
}

fn assert_stream(stream: &Stream, want: &Value, case: &Value) {
    let got: Vec<Vec<u64>> = stream.iter().map(indices).collect();
    let want: Vec<Vec<u64>> = serde_json::from_value(want.clone()).unwrap();
    assert_eq!(got, want, "{case}");
    for (id, experience) in stream.iter().enumerate() {
        assert_eq!(experience.current_experience(), id);
        assert_eq!(experience.stream_name(), stream.name());
    }
}

fn cases(golden: &Value, name: &str) -> Vec<Value> {
    let cases = golden[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

#[test]
fn new_instances_are_avalanches() {
    for case in cases(&golden(), "ni") {
        let benchmark = NiBenchmark::new(train(), test(), TransformGroups::default())
            .n_experiences(number(&case["n"]))
            .seed(case["seed"].as_u64().unwrap())
            .shuffle(case["shuffle"].as_bool().unwrap())
            .balance_experiences(case["balanced"].as_bool().unwrap())
            .return_task_id(true)
            .build()
            .unwrap();
        assert_stream(benchmark.train_stream(), &case["train"], &case);
        let labels: Vec<u32> = benchmark
            .train_stream()
            .iter()
            .map(Experience::task_label)
            .collect();
        assert_eq!(Value::from(labels), case["task_labels"]);
        assert_eq!(
            indices(&benchmark.test_stream()[0]),
            (0..13).collect::<Vec<_>>()
        );
        let label = benchmark.test_stream()[0].task_label();
        assert_eq!(Value::from(label), case["test_task_label"]);
    }
}

#[test]
fn class_incremental_streams_are_avalanches_but_for_the_rest() {
    let golden = golden();
    let (train, test) = (view(train()), view(test()));
    let build = |case: &Value| {
        let split = match case["num_experiences"].as_u64() {
            Some(n) => ClassSplit::Experiences(n as usize),
            None => {
                let counts = serde_json::from_value(case["num_classes_per_exp"].clone());
                ClassSplit::ClassesPerExperience(counts.unwrap())
            }
        };
        let order = ClassOrder::Seed(case["seed"].as_u64().unwrap());
        class_incremental_benchmark("golden", &train, &test, &split, &order).unwrap()
    };
    for case in cases(&golden, "class_incremental") {
        let benchmark = build(&case);
        assert_stream(benchmark.train_stream(), &case["train"], &case);
        assert_stream(benchmark.test_stream(), &case["test"], &case);
    }
    // Five classes in two experiences: Avalanche drops the fifth, here it comes last in the last,
    // and so stands in front.
    let case = &golden["class_incremental_uneven"];
    let benchmark = build(case);
    let kept = |i: usize| serde_json::from_value::<Vec<u64>>(case["train"][i].clone()).unwrap();
    let stream = benchmark.train_stream();
    assert_eq!(indices(&stream[0]), kept(0));
    let last = indices(&stream[1]);
    assert_eq!(last[last.len() - kept(1).len()..], kept(1));
    assert_eq!(kept(0).len() + last.len(), 47);
    assert_eq!(benchmark.n_classes_per_exp(), [2, 3]);
}

#[test]
fn class_incremental_options_that_do_not_fit_are_refused() {
    let (train, test) = (view(train()), view(test()));
    let build = |split, order| {
        let built = class_incremental_benchmark("golden", &train, &test, &split, &order);
        built
            .map(|b| b.original_classes_in_exp().to_vec())
            .map_err(|e| e.to_string())
    };
    let experiences = ClassSplit::Experiences;
    let counts = ClassSplit::ClassesPerExperience;
    let fixed = || ClassOrder::Fixed(vec![4, 3, 2, 1, 0]);
    assert_eq!(
        build(counts(vec![1, 4]), fixed()).unwrap(),
        [vec![4], vec![3, 2, 1, 0]]
    );
    for (split, order, want) in [
        (experiences(0), fixed(), "at least 1"),
        (experiences(6), fixed(), "at most the number of classes, 5"),
        (counts(vec![2, 2]), fixed(), "add up to 5, found [2, 2]"),
        (counts(vec![5, 0]), fixed(), "at least 1"),
        (counts(vec![usize::MAX, 6]), fixed(), "add up to 5"),
        (
            experiences(1),
            ClassOrder::Fixed(vec![0, 1, 2, 3]),
            "each class below 5 once",
        ),
        (
            experiences(1),
            ClassOrder::Fixed(vec![0, 1, 2, 3, 3]),
            "each class below 5 once",
        ),
    ] {
        let message = build(split, order).unwrap_err();
        assert!(message.contains(want), "{message}");
    }
    let one = view(dataset(vec![0]));
    let order = ClassOrder::Seed(0);
    let built = class_incremental_benchmark("golden", &train, &one, &experiences(2), &order);
    assert!(
        built
            .unwrap_err()
            .to_string()
            .contains("test data set: expected samples")
    );
}

#[test]
fn validation_streams_are_avalanches() {
    let golden = golden();
    for case in cases(&golden, "validation") {
        let size = match (case["size"].as_u64(), case["size"].as_f64()) {
            (Some(n), _) => ValidationSize::Count(n as usize),
            (None, size) => ValidationSize::Fraction(size.unwrap()),
        };
        let split_by = match case["shuffle"].as_bool().unwrap() {
            true => ValidationSplit::Shuffled(case["seed"].as_u64().unwrap()),
            false => ValidationSplit::Last,
        };
        let benchmark = benchmark_with_validation_stream(&split(1), size, split_by).unwrap();
        assert_stream(benchmark.train_stream(), &case["train"], &case);
        assert_stream(benchmark.valid_stream().unwrap(), &case["valid"], &case);
        assert_eq!(
            indices(&benchmark.test_stream()[0]),
            indices(&split(1).test_stream()[0])
        );
    }
    for case in cases(&golden, "validation_balanced") {
        let size = ValidationSize::Fraction(case["size"].as_f64().unwrap());
        let split_by = ValidationSplit::ClassBalanced(case["seed"].as_u64().unwrap());
        let benchmark = benchmark_with_validation_stream(&split(2), size, split_by).unwrap();
        assert_stream(benchmark.train_stream(), &case["train"], &case);
        assert_stream(benchmark.valid_stream().unwrap(), &case["valid"], &case);
    }
}

#[test]
fn validation_keeps_task_labels_and_names_what_does_not_fit() {
    let benchmark = task_incremental_benchmark(&split(5));
    let half = ValidationSize::Fraction(0.5);
    let valid = benchmark_with_validation_stream(&benchmark, half, ValidationSplit::Last).unwrap();
    let labels = |stream: &Stream| {
        stream
            .iter()
            .map(Experience::task_label)
            .collect::<Vec<_>>()
    };
    assert_eq!(labels(valid.valid_stream().unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(labels(valid.train_stream()), [0, 1, 2, 3, 4]);
    assert_eq!(valid.train_stream()[2].previous_classes().len(), 2);
    let relabelled = task_incremental_benchmark(&valid);
    assert!(relabelled.valid_stream().is_some());
    for (size, split_by, want) in [
        (
            ValidationSize::Fraction(1.5),
            ValidationSplit::Last,
            "from 0 to 1, found 1.5",
        ),
        (
            ValidationSize::Fraction(f64::NAN),
            ValidationSplit::Last,
            "found NaN",
        ),
        (
            ValidationSize::Count(8),
            ValidationSplit::Shuffled(0),
            "at most the 7 samples",
        ),
        (
            ValidationSize::Count(1),
            ValidationSplit::ClassBalanced(0),
            "a fraction",
        ),
    ] {
        let result = benchmark_with_validation_stream(&benchmark, size, split_by);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn online_streams_are_avalanches_but_mark_every_last_piece() {
    let mut marked_anew = 0;
    for case in cases(&golden(), "online") {
        let shuffle = case["shuffle"].as_bool().unwrap();
        let options = OnlineOptions {
            experience_size: number(&case["size"]),
            shuffle: shuffle.then(|| case["seed"].as_u64().unwrap()),
            drop_last: case["drop_last"].as_bool().unwrap(),
            access_task_boundaries: true,
        };
        let stream = split_online_stream(split(5).train_stream(), options).unwrap();
        assert_eq!(Value::from(stream.name()), case["name"]);
        assert_stream(&stream, &case["train"], &case);
        let mut place = 0;
        for (i, piece) in stream.iter().enumerate() {
            let whole = piece.sub_experience().unwrap();
            place = if whole.is_first_subexp() {
                1
            } else {
                place + 1
            };
            assert_eq!(Value::from(whole.is_first_subexp()), case["first"][i]);
            assert_eq!(Value::from(whole.sub_stream_length()), case["lengths"][i]);
            let last = place == whole.sub_stream_length();
            assert_eq!(whole.is_last_subexp(), last, "{case}");
            if case["last"][i] != last {
                let origin = whole.origin_experience().dataset().len();
                assert!(
                    last && origin.is_multiple_of(options.experience_size),
                    "{case}"
                );
                marked_anew += 1;
            }
        }
    }
    assert!(marked_anew > 0, "the golden streams hold an exact division");
}

#[test]
fn boundaries_are_known_to_those_who_may() {
    let benchmark = split(5);
    let options = OnlineOptions {
        experience_size: 5,
        ..OnlineOptions::default()
    };
    let stream = split_online_stream(benchmark.train_stream(), options).unwrap();
    assert!(stream[0].sub_experience().is_none());
    let whole = stream[0].sub_experience_for_logging().unwrap();
    assert_eq!(whole.origin_experience().current_experience(), 0);
    assert!(!whole.access_task_boundaries());
    let online = benchmark.with_train_stream(stream);
    assert_eq!((online.n_experiences(), online.n_classes()), (11, 5));
    assert_eq!(
        online.train_stream()[3].classes_in_this_experience().len(),
        1
    );
    assert_eq!(online.train_stream()[3].previous_classes().len(), 1);
    for (experience_size, drop_last, want) in [(0, false, "at least 1"), (8, true, "at most 7")] {
        let options = OnlineOptions {
            experience_size,
            drop_last,
            ..OnlineOptions::default()
        };
        let result = split_online_stream(benchmark.train_stream(), options);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn data_incremental_streams_are_avalanches() {
    for case in cases(&golden(), "data_incremental") {
        let size = number(&case["size"]);
        let benchmark = data_incremental_benchmark(&split(5), size, None).unwrap();
        assert_stream(benchmark.train_stream(), &case["train"], &case);
        assert_stream(benchmark.test_stream(), &case["test"], &case);
    }
    let tasks = task_incremental_benchmark(&split(5));
    let pieces = data_incremental_benchmark(&tasks, 4, Some(3)).unwrap();
    let stream = pieces.train_stream();
    assert_eq!((stream[3].task_label(), stream[4].task_label()), (0, 1));
    let mut all: Vec<u64> = stream.iter().flat_map(indices).collect();
    assert_ne!(indices(&stream[0]), [0, 5, 7, 8], "shuffled");
    all.sort_unstable();
    assert_eq!(all, (0..47).collect::<Vec<_>>());
    assert!(data_incremental_benchmark(&tasks, 0, None).is_err());
}

#[test]
fn task_labels_are_positions() {
    let golden = golden();
    let benchmark = task_incremental_benchmark(&split(5));
    let streams = [
        ("train", benchmark.train_stream()),
        ("test", benchmark.test_stream()),
    ];
    for (name, stream) in streams {
        let labels = stream.iter().map(|e| vec![e.task_label()]);
        assert_eq!(
            Value::from(labels.collect::<Vec<_>>()),
            golden["task_incremental"][name]
        );
    }
    assert_eq!(benchmark.classes_order(), split(5).classes_order());
}

#[test]
fn data_sets_become_experiences() {
    let parts = [
        view(train()).subset(&[3, 1]),
        view(test()).with_task_label(4),
    ];
    let benchmark = benchmark_from_datasets("mine", &parts, &parts[1..]).unwrap();
    assert_eq!((benchmark.name(), benchmark.n_experiences()), ("mine", 2));
    assert_eq!(indices(&benchmark.train_stream()[0]), [3, 1]);
    assert_eq!(benchmark.test_stream()[0].task_label(), 4);
    let wide = Dataset::from_u8("wide", [1, 1, 2], vec![0; 2], vec![0], 1).unwrap();
    for (train, test, want) in [
        (vec![], vec![], "train: expected at least one data set"),
        (
            vec![parts[0].clone(), parts[0].subset(&[])],
            vec![],
            "train data set 1",
        ),
        (
            vec![parts[0].clone()],
            vec![view(wide)],
            "test data set 0: expected images of [1, 1, 1]",
        ),
    ] {
        let result = benchmark_from_datasets("mine", &train, &test);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn several_data_sets_and_cifar110_are_avalanches() {
    let golden = golden();
    let parts = |lists: [&[u32]; 2]| lists.map(|l| dataset(l.to_vec())).to_vec();
    for case in cases(&golden, "one_dataset_per_exp") {
        let (train, test) = (
            parts([&[2, 0, 1, 2], &[1, 0]]),
            parts([&[0, 1, 2], &[0, 1]]),
        );
        let benchmark = NcBenchmark::from_several(train, test, TransformGroups::default())
            .one_dataset_per_exp(true)
            .return_task_id(true)
            .seed(case["seed"].as_u64().unwrap())
            .shuffle(case["shuffle"].as_bool().unwrap())
            .build()
            .unwrap();
        assert_stream(benchmark.train_stream(), &case["train"], &case);
        assert_eq!(
            Value::from(benchmark.original_classes_in_exp().to_vec()),
            case["classes"]
        );
    }
    let data = |n: usize| {
        let targets: Vec<u32> = (0..n as u32).collect();
        let data = Dataset::from_u8("cifar", [3, 1, 1], vec![0; 3 * n], targets, n).unwrap();
        (data.clone(), data)
    };
    for case in cases(&golden, "cifar110_orders") {
        let seed = case["seed"].as_u64().unwrap();
        let plain = unforget::data::Transform::default();
        let builder = SplitCifar110::from_datasets(data(10), data(100), seed)
            .train_transform(plain.clone())
            .eval_transform(plain);
        let benchmark = builder.n_experiences(11).build().unwrap();
        assert_eq!(Value::from(&benchmark.classes_order()[10..]), case["order"]);
    }
}
