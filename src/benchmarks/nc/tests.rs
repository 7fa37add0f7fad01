use super::*;
use crate::benchmarks::SplitMnist;
use crate::data::Group;

/// `n` samples of one pixel, sample i of class i modulo `classes`.
fn cyclic(n: u32, classes: u32) -> Dataset {
    let targets = (0..n).map(|i| i % classes).collect();
    let pixels = (0..n).map(|i| i as f32).collect();
    Dataset::from_f32("cyclic", [1, 1, 1], pixels, targets, classes as usize).unwrap()
}

fn ten() -> NcBenchmark {
    NcBenchmark::new(cyclic(40, 10), cyclic(20, 10), TransformGroups::default()).n_experiences(5)
}

fn sources(experience: &Experience) -> Vec<u32> {
    let data = experience.dataset();
    (0..data.len()).map(|i| data.source_index(i)).collect()
}

#[test]
fn class_orders_are_avalanches() {
    for (seed, want) in [
        (0, [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]),
        (1, [5, 6, 1, 2, 0, 8, 9, 3, 7, 4]),
        (42, [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]),
        (1234, [5, 4, 8, 2, 6, 9, 1, 7, 0, 3]),
    ] {
        let benchmark = ten().seed(seed).build().unwrap();
        assert_eq!(benchmark.classes_order(), want);
        let pairs: Vec<Vec<u32>> = want.chunks(2).map(<[u32]>::to_vec).collect();
        assert_eq!(benchmark.original_classes_in_exp(), pairs);
    }
    let hundred = NcBenchmark::new(
        cyclic(100, 100),
        cyclic(100, 100),
        TransformGroups::default(),
    );
    let benchmark = hundred.n_experiences(10).seed(42).build().unwrap();
    assert_eq!(benchmark.classes_order()[..6], [42, 96, 62, 98, 46, 95]);
    assert_eq!(
        ten().build().unwrap().classes_order()[0],
        4,
        "no seed is seed 0"
    );
}

/// Slots are labels modulo 8: {8, 1} lies as 8, 1 (slots 0, 1), {3, 9} as 9, 3 (slots 1, 3) and {6, 5}
/// as 5, 6.
#[test]
fn samples_follow_the_set_order_of_their_classes() {
    let order = vec![8, 1, 3, 9, 6, 5];
    let benchmark = ten()
        .fixed_class_order(order)
        .n_experiences(3)
        .build()
        .unwrap();
    let stream = benchmark.train_stream();
    assert_eq!(sources(&stream[0]), [8, 18, 28, 38, 1, 11, 21, 31]);
    assert_eq!(sources(&stream[1]), [9, 19, 29, 39, 3, 13, 23, 33]);
    assert_eq!(sources(&stream[2]), [5, 15, 25, 35, 6, 16, 26, 36]);
    assert_eq!(stream[0].dataset().targets(), [8, 8, 8, 8, 1, 1, 1, 1]);
    assert_eq!(stream[0].dataset().images(Group::Train)[[1, 0, 0, 0]], 18.0);
    assert_eq!(sources(&benchmark.test_stream()[1]), [9, 19, 3, 13]);
    let kept: usize = stream.iter().map(|e| e.dataset().len()).sum();
    assert_eq!(kept, 24, "classes outside the order are dropped");
    assert_eq!(benchmark.n_classes(), 10, "but keep their labels");
}

#[test]
fn experiences_know_their_classes() {
    let benchmark = ten().seed(1).build().unwrap();
    let e = &benchmark.train_stream()[2];
    assert_eq!(e.classes_in_this_experience(), [0, 8]);
    assert_eq!(e.previous_classes(), [1, 2, 5, 6]);
    assert_eq!(e.classes_seen_so_far(), [0, 1, 2, 5, 6, 8]);
    assert_eq!(e.future_classes(), [3, 4, 7, 9]);
    assert_eq!((e.stream_name(), e.task_label()), ("train", 0));
    assert_eq!(benchmark.n_classes_per_exp(), [2; 5]);
    let slice = benchmark.test_stream().slice(2..4);
    assert_eq!(slice.len(), 2);
    assert_eq!(slice[0].current_experience(), 2);
    assert_eq!(slice[0].previous_classes(), [1, 2, 5, 6]);
    assert_eq!(slice[1].stream_name(), "test");
}

#[test]
fn labels_are_renumbered() {
    let fixed = || ten().fixed_class_order(vec![9, 3, 8, 1]).n_experiences(2);
    let first = fixed()
        .class_ids_from_zero_from_first_exp(true)
        .build()
        .unwrap();
    assert_eq!(first.classes_order(), [0, 1, 2, 3]);
    assert_eq!(first.original_classes_in_exp(), [[9, 3], [8, 1]]);
    let stream = first.train_stream();
    assert_eq!(stream[0].dataset().targets(), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(sources(&stream[0])[..2], [9, 19]);
    assert_eq!(first.test_stream()[1].dataset().targets(), [2, 2, 3, 3]);
    assert_eq!(first.n_classes(), 4);

    let each = fixed()
        .class_ids_from_zero_in_each_exp(true)
        .return_task_id(true);
    let each = each.build().unwrap();
    assert_eq!(each.classes_order(), [0, 1, 0, 1]);
    assert_eq!(
        each.train_stream()[1].dataset().targets(),
        [0, 0, 0, 0, 1, 1, 1, 1]
    );
    assert_eq!(each.train_stream()[1].task_label(), 1);
    assert_eq!(each.test_stream()[1].task_label(), 1);
    assert_eq!(each.n_classes(), 2);

    // The order of the samples is that of the original labels: whatever the new labels are.
    let order = vec![9, 6, 3];
    let one = ten().fixed_class_order(order).n_experiences(1);
    let one = one
        .class_ids_from_zero_from_first_exp(true)
        .build()
        .unwrap();
    let set = python_set_order(&[9, 6, 3]);
    assert_eq!(
        sources(&one.train_stream()[0])[..4],
        [0, 10, 20, 30].map(|i| i + set[0])
    );
}

#[test]
fn classes_can_be_counted_out() {
    let counts = |pairs: &[(usize, usize)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
    let build = |n, pairs: &[(usize, usize)]| {
        ten()
            .n_experiences(n)
            .shuffle(false)
            .per_exp_classes(counts(pairs))
            .build()
    };
    assert_eq!(
        build(6, &[(0, 5)]).unwrap().n_classes_per_exp(),
        [5, 1, 1, 1, 1, 1]
    );
    assert_eq!(
        build(3, &[(2, 4)]).unwrap().original_classes_in_exp()[2],
        [6, 7, 8, 9]
    );
    assert_eq!(
        build(2, &[(0, 7), (1, 3)]).unwrap().n_classes_per_exp(),
        [7, 3]
    );
    for (n, pairs, want) in [
        (
            4,
            &[(0, 5)][..],
            "divides 5 classes equally, found 3 experiences left",
        ),
        (2, &[(2, 5)], "experiences 0 to 1"),
        (2, &[(1, 0)], "at least 1 class"),
        (2, &[(0, 11)], "at most 10 classes"),
        (2, &[(0, usize::MAX), (1, 2)], "at most 10 classes"),
        (2, &[(0, 4), (1, 5)], "all 10 classes"),
        (2, &[(0, 10)], "divides 0 classes"),
    ] {
        let message = build(n, pairs).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let new = |train: u32, test: u32| {
        NcBenchmark::new(
            cyclic(train, 10),
            cyclic(test, 10),
            TransformGroups::default(),
        )
    };
    let colour = TransformGroups::same(Transform::cifar10());
    let wide = Dataset::from_u8("wide", [1, 1, 2], vec![0; 2], vec![0], 1).unwrap();
    for (builder, want) in [
        (
            ten().n_experiences(3),
            "divides 10 classes equally, found 3",
        ),
        (
            ten().n_experiences(0),
            "n_experiences: expected at least 1, found 0",
        ),
        (ten().n_experiences(11), "at most the number of classes, 10"),
        (
            ten().n_experiences(usize::MAX),
            "at most the number of classes, 10",
        ),
        (new(10, 10), "none given"),
        (
            ten().fixed_class_order(vec![3, 3]),
            "at most once, found 3 in [3, 3]",
        ),
        (ten().fixed_class_order(vec![10]), "found 10 in [10]"),
        (ten().fixed_class_order(vec![]), "at least one class"),
        (
            ten()
                .class_ids_from_zero_in_each_exp(true)
                .class_ids_from_zero_from_first_exp(true),
            "found both",
        ),
        (new(0, 10).n_experiences(1), "at least one sample"),
        (
            new(10, 2).n_experiences(10).shuffle(false),
            "classes [2] of experience 2",
        ),
        (
            NcBenchmark::new(cyclic(4, 2), cyclic(4, 2), colour),
            "3 channels",
        ),
        (
            NcBenchmark::new(cyclic(4, 2), wide, TransformGroups::default()),
            "[1, 1, 2]",
        ),
    ] {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn the_papers_split_mnist_is_ascending_and_plain() {
    let images = || {
        let pixels = (0..20).map(|i| 12 * i as u8).collect();
        Dataset::from_u8(
            "d",
            [1, 1, 1],
            pixels,
            (0..20).map(|i| i % 10).collect(),
            10,
        )
        .unwrap()
    };
    let benchmark = SplitMnist::paper(images(), images())
        .seed(3)
        .build()
        .unwrap();
    let pairs: Vec<Vec<u32>> = (0..5).map(|i| vec![2 * i, 2 * i + 1]).collect();
    assert_eq!(benchmark.original_classes_in_exp(), pairs);
    let image = benchmark.train_stream()[0].dataset().images(Group::Train);
    assert_eq!(image[[1, 0, 0, 0]], 120.0 / 255.0);
}

/// Classes 0 and 2; 1 and 3, of which the test data also holds 0 and the training data no 5.
fn two() -> NcBenchmark {
    let data = |targets: &[u32]| {
        let pixels = vec![0; targets.len()];
        Dataset::from_u8("part", [1, 1, 1], pixels, targets.to_vec(), 6).unwrap()
    };
    let train = vec![data(&[2, 0, 2]), data(&[3, 1])];
    let test = vec![data(&[0, 2, 5]), data(&[1, 0, 3])];
    NcBenchmark::from_several(train, test, TransformGroups::default())
}

#[test]
fn several_data_sets_are_numbered_after_each_other() {
    let benchmark = two().n_experiences(2).shuffle(false).build().unwrap();
    // The first has three classes in all, so the second begins at 3.
    assert_eq!(benchmark.original_classes_in_exp(), [[0, 1], [3, 4]]);
    let stream = benchmark.train_stream();
    assert_eq!(stream[0].dataset().targets(), [0, 1, 1]);
    assert_eq!(sources(&stream[0]), [1, 0, 2]);
    assert_eq!(stream[1].dataset().targets(), [3, 4]);
    assert_eq!(sources(&benchmark.test_stream()[1]), [0, 2]);
    assert_eq!(benchmark.test_stream()[0].dataset().targets(), [0, 1]);
    assert_eq!(benchmark.name(), "part+part");
}

#[test]
fn a_data_set_can_be_an_experience() {
    // torch.manual_seed(s); torch.randperm(2) is [0, 1] for 0 and [1, 0] for 1.
    let benchmark = two().one_dataset_per_exp(true).seed(0).build().unwrap();
    assert_eq!(benchmark.original_classes_in_exp(), [[0, 1], [3, 4]]);
    let benchmark = two().one_dataset_per_exp(true).seed(1).build().unwrap();
    assert_eq!(benchmark.original_classes_in_exp(), [[3, 4], [0, 1]]);
    let both = two().one_dataset_per_exp(true);
    for (builder, want) in [
        (
            both.clone().n_experiences(3),
            "2, one for each data set, found 3",
        ),
        (
            both.clone().fixed_class_order(vec![0]),
            "fixed_class_order: expected not given",
        ),
        (
            both.first_exp_with_half_classes(true),
            "first_exp_with_half_classes",
        ),
        (
            NcBenchmark::from_several(vec![cyclic(4, 2)], vec![], TransformGroups::default()),
            "found 1 and 0",
        ),
    ] {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn half_of_the_classes_can_come_first() {
    let build = |n| ten().first_exp_with_half_classes(true).n_experiences(n);
    assert_eq!(
        build(6).build().unwrap().n_classes_per_exp(),
        [5, 1, 1, 1, 1, 1]
    );
    assert_eq!(
        build(2).seed(1).build().unwrap().original_classes_in_exp()[0],
        [5, 6, 1, 2, 0]
    );
    for (builder, want) in [
        (
            build(3),
            "divides 5 classes equally, found 2 experiences after the first",
        ),
        (
            build(2).per_exp_classes([(0, 3)].into()),
            "per_exp_classes: expected not given",
        ),
    ] {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn transforms_can_be_replaced() {
    let benchmark = ten().train_transform(Transform::normalize(&[1.0], &[2.0]));
    let benchmark = benchmark.shuffle(false).build().unwrap();
    let view = benchmark.train_stream()[0].dataset();
    assert_eq!(view.images(Group::Train)[[1, 0, 0, 0]], 4.5);
    assert_eq!(view.images(Group::Eval)[[1, 0, 0, 0]], 10.0);
    let benchmark = ten().eval_transform(Transform::default().center_crop(2, 2));
    let message = benchmark.build().unwrap_err().to_string();
    assert!(
        message.contains("as the training transform gives"),
        "{message}"
    );
}

#[test]
fn classes_can_be_divided_unevenly() {
    let build = |n| ten().n_experiences(n).uneven(true);
    assert_eq!(build(4).build().unwrap().n_classes_per_exp(), [3, 3, 2, 2]);
    assert_eq!(build(5).build().unwrap().n_classes_per_exp(), [2; 5]);
    let given = build(4).per_exp_classes([(1, 5)].into());
    assert_eq!(given.build().unwrap().n_classes_per_exp(), [2, 5, 2, 1]);
    let first = build(4).first_exp_with_half_classes(true);
    assert_eq!(first.build().unwrap().n_classes_per_exp(), [5, 2, 2, 1]);
    let message = build(4)
        .per_exp_classes([(0, 8)].into())
        .build()
        .unwrap_err();
    assert!(
        message.to_string().contains("3 experiences left"),
        "{message}"
    );
}

#[test]
fn a_benchmark_is_built_again_from_its_classes() {
    let data = |n: usize| {
        let labels = (0..n as u32).map(|i| i % 7).collect();
        Dataset::from_u8("seven", [1, 1, 1], vec![0; n], labels, 7).unwrap()
    };
    let builder = || NcBenchmark::new(data(30), data(14), TransformGroups::default());
    let first = builder()
        .n_experiences(3)
        .uneven(true)
        .seed(5)
        .build()
        .unwrap();
    let again = builder()
        .seed(8)
        .reproducibility_data(first.original_classes_in_exp());
    let again = again.build().unwrap();
    assert_eq!(
        again.original_classes_in_exp(),
        first.original_classes_in_exp()
    );
    assert_eq!(again.n_classes_per_exp(), [3, 2, 2]);
    for (a, b) in again.train_stream().iter().zip(first.train_stream()) {
        assert_eq!(a.dataset().targets(), b.dataset().targets());
    }
}
