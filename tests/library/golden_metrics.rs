//! The metrics of a small run beside Avalanche's: every name and every value.

use crate::recorded;
use crate::ten_classes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use unforget::evaluation::{
    At, ClassAccuracy, EvaluationPlugin, Metric, WeightCheckpoint, accuracy_matrix_metrics,
    accuracy_metrics, amca_metrics, bwt_metrics, confusion_matrix_metrics, cpu_usage_metrics,
    cumulative_metrics, disk_usage_metrics, forgetting_metrics, forward_transfer_metrics,
    images_samples_metrics, labels_repartition_metrics, loss_metrics, mac_metrics,
    mean_scores_metrics, ram_usage_metrics, timing_metrics, topk_acc_metrics,
};
use unforget::training::MetricData;

const TOLERANCE: f64 = 1e-6;

/// Names of metrics whose values say something about the machine (and of the weights, whose bytes
/// are in another format).
const MACHINE: [&str; 7] = [
    "Time_",
    "RunningTime_",
    "CPUUsage_",
    "RunningCPUUsage_",
    "MaxRAMUsage_",
    "DiskUsage_",
    "WeightCheckpoint/",
];

/// A name with the training iterations and the values, one after the other.
type Series = BTreeMap<String, (Vec<u64>, Vec<Vec<f64>>)>;

fn metrics(periodic: bool) -> EvaluationPlugin {
    let (mut train, mut both) = (vec![At::Epoch], vec![At::Experience, At::Stream]);
    let mut classes = vec![At::Epoch, At::Experience, At::Stream];
    let mut topk = vec![At::Epoch];
    if !periodic {
        train.extend([At::Minibatch, At::EpochRunning]);
        classes.extend([At::Minibatch, At::EpochRunning]);
        topk.push(At::Minibatch);
    }
    let only_eval = both.clone();
    let system = [&topk[..], &only_eval[..]].concat();
    let macs = [&topk[..], &[At::Experience]].concat();
    both.extend(train);
    topk.extend(only_eval.iter().copied().chain([At::TrainedExperience]));
    let class_accuracies = classes.into_iter().map(|at| {
        // Avalanche's zeros for classes that do not occur.
        let metric = ClassAccuracy::new(at).every_class_met(true);
        Box::new(metric) as Box<dyn Metric>
    });
    let evaluator = EvaluationPlugin::new()
        .metrics(accuracy_metrics(&both))
        .metrics(accuracy_metrics(&[At::TrainedExperience]))
        .metrics(loss_metrics(&both))
        .metrics(topk_acc_metrics(3, &topk))
        .metrics(class_accuracies)
        .metrics(amca_metrics(&["test"]))
        .metrics(forgetting_metrics(&only_eval))
        .metrics(bwt_metrics(&only_eval))
        .metrics(cumulative_metrics())
        .metrics(accuracy_matrix_metrics())
        .metrics(mean_scores_metrics(true, true))
        .metrics(labels_repartition_metrics(&[At::Epoch]))
        .metrics(timing_metrics(&both))
        .metrics(cpu_usage_metrics(&both))
        .metrics(ram_usage_metrics(Duration::from_secs(1), &system))
        .metrics(disk_usage_metrics(&["tests/golden"], &system))
        .metrics(mac_metrics(&macs))
        .metric(WeightCheckpoint);
    match periodic {
        true => evaluator.metrics(forward_transfer_metrics(&only_eval)),
        false => evaluator.metrics(confusion_matrix_metrics()),
    }
}

/// Our run.
fn ours(periodic: bool) -> Series {
    let benchmark = ten_classes::benchmark();
    let mut strategy = ten_classes::strategy()
        .evaluator(metrics(periodic))
        .eval_every(periodic.then_some(1))
        .build()
        .expect("a strategy");
    for experience in benchmark.train_stream() {
        let streams: [&dyn unforget::training::Experiences; 1] = [benchmark.test_stream()];
        strategy.train_with(experience, &streams).expect("training");
        strategy.eval(benchmark.test_stream()).expect("evaluation");
    }
    let all = strategy.evaluator().get_all_metrics().iter();
    all.map(|(name, (x, values))| {
        let values = values.iter().map(numbers).collect();
        (name.clone(), (x.clone(), values))
    })
    .collect()
}

fn numbers(value: &MetricData) -> Vec<f64> {
    match value {
        MetricData::Tensor(tensor) => tensor.iter().copied().collect(),
        MetricData::Bytes(_) => Vec::new(),
        other => vec![other.scalar().expect("a number")],
    }
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        other => vec![other.as_f64().expect("a number")],
    }
}

/// Avalanche's run, in our form: the history of labels, one dictionary, becomes a series for each
/// label, from the epoch on in which it was first met.
fn avalanche(run: &str) -> Series {
    let golden = recorded::golden("metrics.json");
    let mut out = Series::new();
    for (name, entry) in golden[run].as_object().expect("metrics") {
        let x: Vec<u64> = serde_json::from_value(entry["x"].clone()).expect("iterations");
        if MACHINE.iter().any(|prefix| name.starts_with(prefix)) {
            out.insert(name.clone(), (x, Vec::new()));
            continue;
        }
        let values = entry["value"].as_array().expect("values");
        if !name.starts_with("Repartition/") {
            out.insert(name.clone(), (x, values.iter().map(flat).collect()));
            continue;
        }
        for (label, history) in values[0].as_object().expect("labels") {
            // At first 0, then every count twice, when its epoch begins and when it ends.
            let counts: Vec<f64> = flat(history).into_iter().skip(1).step_by(2).collect();
            assert_eq!(counts.len(), x.len());
            let first = counts.iter().position(|&count| count > 0.0).expect("met");
            let values = counts[first..].iter().map(|&count| vec![count]).collect();
            out.insert(format!("{name}/{label}"), (x[first..].to_vec(), values));
        }
    }
    out
}

fn compare(name: &str, ours: &(Vec<u64>, Vec<Vec<f64>>), theirs: &(Vec<u64>, Vec<Vec<f64>>)) {
    assert_eq!(ours.0, theirs.0, "{name}: training iterations");
    assert_eq!(ours.0.len(), ours.1.len(), "{name}: emissions");
    if MACHINE.iter().any(|prefix| name.starts_with(prefix)) {
        return;
    }
    assert_eq!(ours.1.len(), theirs.1.len(), "{name}: emissions");
    for (i, (ours, theirs)) in ours.1.iter().zip(&theirs.1).enumerate() {
        assert_eq!(ours.len(), theirs.len(), "{name}: size of value {i}");
        for (our, their) in ours.iter().zip(theirs) {
            let close = (our - their).abs() <= TOLERANCE * their.abs().max(1.0);
            assert!(
                close,
                "{name}, value {i}: Avalanche has {their}, found {our}"
            );
        }
    }
}

/// Compares all names, and all values of names that do not begin as one of `differ`.
fn compare_runs(ours: &Series, theirs: &Series, differ: &[&str]) -> usize {
    let names = |series: &Series| -> BTreeSet<String> {
        // Avalanche's formula under a name of ours.
        let skipped = |name: &str| name.starts_with("MAC_Avalanche_");
        let different = |name: &str| differ.iter().any(|start| name.starts_with(start));
        let names = series
            .keys()
            .filter(|name| !different(name) && !skipped(name));
        names.cloned().collect()
    };
    let (our, their) = (names(ours), names(theirs));
    let odd: Vec<&String> = our.symmetric_difference(&their).collect();
    assert!(odd.is_empty(), "names on one side only: {odd:?}");
    for start in differ {
        for series in [ours, theirs] {
            assert!(
                series.keys().any(|name| name.starts_with(start)),
                "no {start}"
            );
        }
    }
    for name in &our {
        compare(name, &ours[name], &theirs[name]);
    }
    our.len()
}

/// Avalanche hands out one matrix that it goes on filling, so that each value it collected is the
/// last one. Ours grow into that: all rows but the newest are as they stay.
fn compare_matrices(ours: &Series, theirs: &Series) {
    let name = "EvalStream/Acc_Matrix";
    let whole = theirs[name].1.last().expect("a matrix");
    let (n, matrices) = (5, &ours[name].1);
    for (i, matrix) in matrices.iter().enumerate() {
        assert_eq!(matrix.len(), n * n);
        let zero = matrix
            .chunks(n)
            .position(|row| row.iter().all(|&a| a == 0.0));
        let rows = zero.unwrap_or(n);
        assert!(
            rows > 0 && (rows == n || i + 1 < matrices.len()),
            "{rows} rows"
        );
        let kept = if i + 1 == matrices.len() { n } else { rows - 1 };
        let part = |matrix: &[f64]| (vec![0], vec![matrix[..kept * n].to_vec()]);
        compare(name, &part(matrix), &part(whole));
    }
}

#[test]
fn evaluations_by_hand_give_avalanches_values() {
    let (ours, theirs) = (ours(false), avalanche("by_hand"));
    let compared = compare_runs(&ours, &theirs, &["EvalStream/Acc_Matrix"]);
    assert!(compared > 100, "only {compared} names");
    let x = |series: &Series| series["EvalStream/Acc_Matrix"].0.clone();
    assert_eq!(x(&ours), x(&theirs));
    compare_matrices(&ours, &theirs);
}

#[test]
fn periodic_evaluations_give_avalanches_values() {
    // What we measure otherwise on purpose; see the documentation of the metrics.
    let differ = [
        "CumulativeForgetting/",
        "EvalStream/Acc_Matrix",
        "MeanScores/eval_phase",
    ];
    let (ours, theirs) = (ours(true), avalanche("periodic"));
    let compared = compare_runs(&ours, &theirs, &differ);
    assert!(compared > 80, "only {compared} names");
    // Avalanche also emits a matrix before any training.
    let x = |series: &Series| series["EvalStream/Acc_Matrix"].0.clone();
    assert_eq!(x(&ours), x(&theirs)[1..]);
    compare_matrices(&ours, &theirs);
}

#[test]
fn images_have_avalanches_names() {
    let data =
        unforget::data::Dataset::from_u8("dots", [1, 2, 2], vec![9; 16], vec![0, 1, 0, 1], 2);
    let transforms = unforget::data::TransformGroups::default();
    let data = data.expect("a data set");
    let benchmark = unforget::prelude::NcBenchmark::new(data.clone(), data, transforms)
        .n_experiences(2)
        .build()
        .expect("a benchmark");
    let evaluator = EvaluationPlugin::new().metrics(images_samples_metrics(1, 2, true, true));
    let mut tape = unforget::prelude::Tape::new(Default::default()).expect("the processor");
    let model = unforget::prelude::SimpleMlp::new(&mut tape, 2, 4, 3, 1, 0.0);
    let mut strategy = unforget::prelude::Der::builder(tape, model, unforget::optim::Sgd::new(0.1))
        .evaluator(evaluator)
        .build()
        .expect("a strategy");
    strategy.train(benchmark.train_stream()).expect("training");
    strategy.eval(benchmark.test_stream()).expect("evaluation");
    let names: Vec<&String> = strategy.evaluator().get_all_metrics().keys().collect();
    let golden = recorded::golden("metrics.json");
    let want: Vec<String> = serde_json::from_value(golden["images"].clone()).expect("names");
    assert_eq!(names, want.iter().collect::<Vec<_>>());
}
