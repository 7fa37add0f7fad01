//! What Avalanche's recording cannot say: metrics of our own, interrupted runs, the machine.

use crate::ten_classes;
use std::collections::BTreeMap;
use std::time::Duration;
use unforget::benchmarks::{OnlineOptions, split_online_stream};
use unforget::evaluation::*;
use unforget::prelude::*;
use unforget::snapshot::Snapshot;
use unforget::training::{Event, MetricData, MetricValue, Strategy};

type All = BTreeMap<String, (Vec<u64>, Vec<MetricData>)>;

const TRAIN: [At; 3] = [At::Minibatch, At::Epoch, At::EpochRunning];
const EVAL: [At; 3] = [At::Experience, At::Stream, At::TrainedExperience];
const BOTH: [At; 2] = [At::Experience, At::Stream];

/// Every metric whose values follow from the run alone.
fn exact() -> Vec<Box<dyn Metric>> {
    let all = [TRAIN, EVAL].concat();
    let mut out: Vec<Box<dyn Metric>> = vec![
        Box::new(ClassAccuracy::new(At::Epoch).classes(&[0, 7])),
        Box::new(ClassAccuracy::new(At::Experience).every_class_met(true)),
        Box::new(
            ConfusionMatrix::default()
                .normalize(Normalize::True)
                .image(true),
        ),
        Box::new(WeightCheckpoint),
    ];
    out.extend(accuracy_metrics(&all));
    out.extend(topk_acc_metrics(2, &all));
    out.extend(task_incremental_accuracy_metrics(&all));
    out.extend(loss_metrics(&all));
    out.extend(loss_term_metrics(&TRAIN));
    out.extend(calibration_metrics(&all));
    out.extend(amca_metrics(&["test"]));
    out.extend(forgetting_metrics(&BOTH));
    out.extend(bwt_metrics(&BOTH));
    out.extend(max_forgetting_metrics(&BOTH));
    out.extend(mammoth_forgetting_metrics(&BOTH));
    out.extend(forward_transfer_metrics(&BOTH));
    out.extend(cumulative_metrics());
    out.extend(accuracy_matrix_metrics());
    out.extend(average_incremental_accuracy_metrics());
    out.extend(mean_scores_metrics(true, true));
    out.extend(labels_repartition_metrics(&[At::Epoch, At::Stream]));
    out.extend(buffer_metrics());
    out.extend(images_samples_metrics(2, 3, true, true));
    out.extend(mac_metrics(&[At::Minibatch, At::Epoch, At::Experience]));
    out
}

/// Every metric of the machine but the GPU's.
fn machine() -> Vec<Box<dyn Metric>> {
    let at = [At::Minibatch, At::Epoch, At::Experience, At::Stream];
    let mut out = timing_metrics(&[&at[..], &[At::EpochRunning]].concat());
    out.extend(cpu_usage_metrics(&[&at[..], &[At::EpochRunning]].concat()));
    out.extend(ram_usage_metrics(Duration::from_millis(20), &at));
    out.extend(disk_usage_metrics(&["tests/golden"], &at));
    out
}

/// Metrics that are saved, thrown away and built anew from what was saved, after every fifth event:
/// the loops have other periods, so all events have their turn.
struct Restarted {
    make: fn() -> Vec<Box<dyn Metric>>,
    metrics: Vec<Box<dyn Metric>>,
    events: usize,
}

impl Restarted {
    fn new(make: fn() -> Vec<Box<dyn Metric>>) -> Self {
        let metrics = make();
        Restarted {
            make,
            metrics,
            events: 0,
        }
    }
}

impl Metric for Restarted {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        for metric in &mut self.metrics {
            metric.on(event, s, out);
        }
        self.events += 1;
        if self.events.is_multiple_of(5) {
            for (metric, mut fresh) in self.metrics.iter_mut().zip((self.make)()) {
                let mut saved = Snapshot::default();
                metric.save(&mut saved);
                fresh.load(&saved).expect("what was just saved");
                *metric = fresh;
            }
        }
    }
}

/// Makes every training iteration last so long, at least, and every iteration of evaluation.
struct Slow(Duration);

impl Plugin for Slow {
    fn before_forward(&mut self, _: &mut State) -> Result<()> {
        std::thread::sleep(self.0);
        Ok(())
    }

    fn before_eval_forward(&mut self, _: &mut State) -> Result<()> {
        std::thread::sleep(self.0);
        Ok(())
    }
}

/// The run of the golden files, evaluated periodically and after each experience.
fn run(evaluator: EvaluationPlugin) -> (Strategy, Vec<EvalResult>) {
    run_slowly(evaluator, Duration::ZERO)
}

fn run_slowly(evaluator: EvaluationPlugin, pause: Duration) -> (Strategy, Vec<EvalResult>) {
    let benchmark = ten_classes::benchmark();
    let mut strategy = ten_classes::strategy()
        .evaluator(evaluator)
        .eval_every(2)
        .plugin(Slow(pause))
        .build()
        .unwrap();
    let mut evaluations = Vec::new();
    for experience in benchmark.train_stream() {
        let streams: [&dyn unforget::training::Experiences; 1] = [benchmark.test_stream()];
        strategy.train_with(experience, &streams).unwrap();
        evaluations.push(strategy.eval(benchmark.test_stream()).unwrap());
    }
    (strategy, evaluations)
}

fn all(strategy: &Strategy) -> All {
    strategy.evaluator().get_all_metrics().clone()
}

/// The values of a metric that are one number each.
fn scalars(all: &All, name: &str) -> Vec<f64> {
    let series = all.get(name).unwrap_or_else(|| panic!("no {name}"));
    series
        .1
        .iter()
        .map(|v| v.scalar().expect("a number"))
        .collect()
}

#[track_caller]
fn close(got: f64, want: f64, what: &str) {
    let fits = (got - want).abs() <= 1e-9;
    assert!(fits, "{what}: expected {want}, found {got}");
}

#[test]
fn an_interrupted_metric_goes_on_exactly() {
    let (whole, _) = run(EvaluationPlugin::new().metrics(exact()));
    let (pieces, _) = run(EvaluationPlugin::new().metric(Restarted::new(exact)));
    let (whole, pieces) = (all(&whole), all(&pieces));
    assert!(whole.len() > 100);
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        pieces.keys().collect::<Vec<_>>()
    );
    for (name, series) in &whole {
        assert_eq!(&pieces[name], series, "{name}");
    }
}

#[test]
fn metrics_do_not_change_the_run() {
    let weights = |evaluator| {
        let strategy = run(evaluator).0;
        let state = strategy.state().tape.state_dict();
        state
            .into_iter()
            .flat_map(|(_, values)| values)
            .collect::<Vec<f32>>()
    };
    let with = weights(EvaluationPlugin::new().metrics(exact()).metrics(machine()));
    assert_eq!(with, weights(EvaluationPlugin::new()));
}

#[test]
fn summary_figures_follow_from_the_accuracies() {
    let (strategy, evaluations) = run(EvaluationPlugin::new().metrics(exact()));
    let all = all(&strategy);
    let mut matrix = AccuracyMatrix::default();
    for (i, evaluation) in evaluations.iter().enumerate() {
        matrix.push(
            evaluation
                .experiences
                .iter()
                .map(|e| e.accuracy())
                .collect(),
        );
        // Each evaluation after an experience follows periodic ones of the same model.
        let x = 12 * (i as u64 + 1);
        let at = |name: &str| {
            let (xs, values) = &all[name];
            let last = xs.iter().rposition(|&found| found == x).expect(name);
            values[last].scalar().expect("a number")
        };
        let stream = "eval_phase/test_stream";
        let name = format!("Top1_TaskIL_Acc_Stream/{stream}/Task000");
        close(at(&name), evaluation.accuracy_task(), &name);
        for e in &evaluation.experiences {
            let name = format!(
                "Top1_TaskIL_Acc_Exp/{stream}/Task000/Exp{:03}",
                e.experience
            );
            close(at(&name), e.accuracy_task(), &name);
        }
        for (name, value) in [
            (
                "AverageIncrementalAccuracy",
                matrix.average_incremental_accuracy(),
            ),
            ("StreamForgetting", matrix.forgetting().or(Some(0.0))),
            ("StreamMaxForgetting", matrix.max_forgetting().or(Some(0.0))),
        ] {
            close(at(&format!("{name}/{stream}")), value.unwrap(), name);
        }
        // Within the classes known after training t: then, at the last evaluation before the next
        // training, minus now.
        for t in 0..i {
            let of = |name: &str, x: u64| {
                let (xs, values) = &all[&format!("{name}/{stream}/Exp{t:03}")];
                let last = xs.iter().rposition(|&found| found == x).expect(name);
                values[last].scalar().expect("a number")
            };
            let (then, now) = (12 * (t as u64 + 1), 12 * (i as u64 + 1));
            let want = of("CumulativeAccuracy", then) - of("CumulativeAccuracy", now);
            close(
                of("CumulativeForgetting", now),
                want,
                "CumulativeForgetting",
            );
        }
        // Mammoth's own code: the best of each column, from its diagonal on, minus the last row.
        let rows = matrix.rows();
        let lost: f64 = (0..i)
            .map(|j| (j..=i).map(|r| rows[r][j]).fold(0.0, f64::max) - rows[i][j])
            .sum();
        let mammoth = at(&format!("StreamMammothForgetting/{stream}"));
        close(mammoth, lost / i.max(1) as f64, "StreamMammothForgetting");
    }
    let last = &all["EvalStream/Acc_Matrix"].1;
    let Some(MetricData::Tensor(last)) = last.last() else {
        panic!("a matrix");
    };
    assert_eq!(
        last.iter().copied().collect::<Vec<_>>(),
        matrix.rows().concat()
    );
}

#[test]
fn terms_of_the_loss_add_up_and_the_buffer_is_counted() {
    let (strategy, _) = run(EvaluationPlugin::new().metrics(exact()));
    let all = all(&strategy);
    for form in ["Loss{}_MB", "Loss{}_Epoch", "RunningLoss{}_Epoch"] {
        let of = |term: &str| {
            let name = form.replace("{}", term);
            scalars(&all, &format!("{name}/train_phase/train_stream/Task000"))
        };
        let (whole, current) = (of(""), of("_Current"));
        let (logits, replay) = (of("_Logits"), of("_Replay"));
        let steps = if form == "Loss{}_Epoch" { 15 } else { 60 };
        assert_eq!(whole.len(), steps);
        for i in 0..steps {
            let sum = current[i] + logits[i] + replay[i];
            assert!(
                (sum - whole[i]).abs() <= 1e-6,
                "{form} {i}: {sum}, {}",
                whole[i]
            );
            // No replay in the first experience; the first replayed logits are still the model's.
            assert_eq!(replay[i] > 0.0, i >= steps / 5, "{form} {i}");
            assert!(logits[i] > 0.0 || i <= steps / 5, "{form} {i}");
        }
    }
    let buffer = strategy.state().storage_policy.as_ref().expect("a buffer");
    let counts = buffer.counts_per_class();
    assert_eq!(counts.iter().map(|(_, n)| n).sum::<usize>(), 17);
    for (class, n) in counts {
        let name = format!("Buffer/train_phase/train_stream/Exp004/{class}");
        assert_eq!(scalars(&all, &name), [n as f64]);
    }
    let first = all
        .keys()
        .filter(|name| name.starts_with("Buffer/train_phase/train_stream/Exp000"));
    assert_eq!(first.count(), 2);
}

/// Every time is at least what the pauses add up to.
fn check_times(all: &All, pause: f64) {
    let times = |name: &str| -> Vec<f64> {
        let found = all.keys().filter(|found| found.starts_with(name));
        let times: Vec<f64> = found.flat_map(|name| scalars(all, name)).collect();
        assert!(!times.is_empty(), "no {name}");
        times
    };
    // Four iterations an epoch, two an evaluated experience, ten a stream.
    for (name, iterations) in [
        ("Time_MB/", 1.0),
        ("RunningTime_Epoch/", 1.0),
        ("Time_Epoch/", 4.0),
        ("Time_Exp/", 2.0),
        ("Time_Stream/", 10.0),
    ] {
        for time in times(name) {
            assert!(time >= pause * iterations, "{name}: {time}");
        }
    }
}

const PAUSE: Duration = Duration::from_millis(2);

#[test]
fn the_machine_is_measured_plausibly() {
    let (strategy, _) = run_slowly(EvaluationPlugin::new().metrics(machine()), PAUSE);
    let all = all(&strategy);
    check_times(&all, PAUSE.as_secs_f64());
    let train = |name: &str| scalars(&all, &format!("{name}/train_phase/train_stream/Task000"));
    assert_eq!(train("RunningTime_Epoch").len(), 60);
    for name in ["MaxRAMUsage_MB", "MaxRAMUsage_Epoch", "DiskUsage_Epoch"] {
        let values = train(name);
        assert!(
            values.iter().all(|&x| x > 1.0 && x < 1e9),
            "{name}: {values:?}"
        );
    }
    let busy = train("CPUUsage_Epoch");
    assert!(busy.iter().all(|x| (0.0..1e5).contains(x)), "{busy:?}");
}

#[test]
fn time_goes_on_over_an_interruption() {
    let evaluator = EvaluationPlugin::new().metric(Restarted::new(machine));
    let (strategy, _) = run_slowly(evaluator, PAUSE);
    check_times(&all(&strategy), PAUSE.as_secs_f64());
}

/// Multiply-adds of one image, ours and by Avalanche's formula.
fn macs(shape: [usize; 3], build: impl FnOnce(&mut Tape) -> Box<dyn Module>) -> [f64; 2] {
    let [c, h, w] = shape;
    let data = Dataset::from_u8("black", shape, vec![0; 2 * c * h * w], vec![0, 1], 2).unwrap();
    let transforms = unforget::data::TransformGroups::default();
    let benchmark = NcBenchmark::new(data.clone(), data, transforms)
        .n_experiences(1)
        .build()
        .unwrap();
    let mut tape = Tape::new(Device::Cpu).unwrap();
    let model = build(&mut tape);
    let mut strategy = Naive::builder(tape, model, Sgd::new(0.01))
        .train_mb_size(2)
        .evaluator(EvaluationPlugin::new().metrics(mac_metrics(&[At::Epoch])))
        .build()
        .unwrap();
    strategy.train(benchmark.train_stream()).unwrap();
    let all = all(&strategy);
    ["MAC_Epoch", "MAC_Avalanche_Epoch"]
        .map(|name| scalars(&all, &format!("{name}/train_phase/train_stream/Task000"))[0])
}

#[test]
fn multiply_adds_are_counted_right_and_as_avalanche_does() {
    let mlp = macs([1, 28, 28], |tape| {
        Box::new(SimpleMlp::new(tape, 10, 784, 512, 1, 0.0))
    });
    assert_eq!(mlp, [406_528.0, 406_528.0]);
    let [all, avalanche] = macs([3, 32, 32], |tape| Box::new(ResNet18::new(tape, 10, 20)));
    assert_eq!(avalanche, 1_586_240.0);
    // The first convolution alone: 20 channels of 32 x 32, each of 3 x 3 x 3.
    assert!(
        all > 20.0 * 1024.0 * 27.0 && all > 10.0 * avalanche,
        "{all}"
    );
    let [all, avalanche] = macs([3, 32, 32], |tape| Box::new(SimpleCnn::new(tape, 10)));
    assert_eq!(avalanche, 784_000.0);
    assert!(all > avalanche);
}

#[test]
#[should_panic(expected = "forgetting_metrics: expected stretches among [Experience, Stream]")]
fn a_stretch_that_a_metric_does_not_have_is_a_callers_bug() {
    forgetting_metrics(&[At::Epoch]);
}

#[test]
fn forward_transfer_without_a_first_evaluation_is_silent() {
    let benchmark = ten_classes::benchmark();
    let mut strategy = ten_classes::strategy()
        .evaluator(EvaluationPlugin::new().metrics(forward_transfer_metrics(&BOTH)))
        .build()
        .unwrap();
    strategy.train(&benchmark.train_stream()[0]).unwrap();
    strategy.eval(benchmark.test_stream()).unwrap();
    let all = all(&strategy);
    assert_eq!(
        scalars(&all, "StreamForwardTransfer/eval_phase/test_stream"),
        [0.0]
    );
    assert_eq!(all.len(), 1);
}

#[test]
fn a_stream_of_several_tasks_has_no_task_in_its_name() {
    let benchmark = ten_classes::builder().return_task_id(true).build().unwrap();
    let evaluator = EvaluationPlugin::new()
        .metrics(accuracy_metrics(&[At::Epoch, At::Experience, At::Stream]))
        .metrics(class_accuracy_metrics(&[At::Stream]));
    let mut strategy = ten_classes::strategy()
        .evaluator(evaluator)
        .build()
        .unwrap();
    strategy
        .train(&benchmark.train_stream().slice(0..2))
        .unwrap();
    strategy.eval(&benchmark.test_stream().slice(0..2)).unwrap();
    let all = all(&strategy);
    // The classes of an experience, in the benchmark's order [4, 1, 7, 5, ...].
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Top1_Acc_Epoch/train_phase/train_stream/Task000",
            "Top1_Acc_Epoch/train_phase/train_stream/Task001",
            "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000",
            "Top1_Acc_Exp/eval_phase/test_stream/Task001/Exp001",
            "Top1_Acc_Stream/eval_phase/test_stream",
            "Top1_ClassAcc_Stream/eval_phase/test_stream/Task000/1",
            "Top1_ClassAcc_Stream/eval_phase/test_stream/Task000/4",
            "Top1_ClassAcc_Stream/eval_phase/test_stream/Task001/5",
            "Top1_ClassAcc_Stream/eval_phase/test_stream/Task001/7",
        ]
    );
    let exp = |name: &str| scalars(&all, name)[0];
    let mean = (exp(names[2]) + exp(names[3])) / 2.0;
    close(exp(names[4]), mean, "ten samples each");
}

#[test]
fn an_evaluator_can_be_suspended_and_keep_only_the_last_values() {
    let benchmark = ten_classes::benchmark();
    let evaluator = EvaluationPlugin::default().collect_all(false);
    let mut strategy = ten_classes::strategy()
        .evaluator(evaluator)
        .build()
        .unwrap();
    strategy.evaluator_mut().active = false;
    strategy.train(&benchmark.train_stream()[0]).unwrap();
    assert!(strategy.state().last_metrics.is_empty());
    strategy.evaluator_mut().active = true;
    strategy.eval(&benchmark.test_stream()[0]).unwrap();
    assert!(strategy.evaluator().get_all_metrics().is_empty());
    let last = &strategy.state().last_metrics;
    let names: Vec<&str> = last.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Loss_Exp/eval_phase/test_stream/Task000/Exp000",
            "Loss_Stream/eval_phase/test_stream/Task000",
            "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000",
            "Top1_Acc_Stream/eval_phase/test_stream/Task000",
        ]
    );
    assert!(last.values().all(|value| value.scalar().is_some()));
}

#[test]
fn top_k_of_several_tasks_is_told_for_each_and_for_all() {
    let benchmark = ten_classes::builder().return_task_id(true).build().unwrap();
    let evaluator = EvaluationPlugin::new().metrics(topk_acc_metrics(
        3,
        &[At::Epoch, At::Experience, At::Stream],
    ));
    let mut strategy = ten_classes::strategy()
        .evaluator(evaluator)
        .build()
        .unwrap();
    strategy
        .train(&benchmark.train_stream().slice(0..2))
        .unwrap();
    strategy.eval(&benchmark.test_stream().slice(0..2)).unwrap();
    strategy.eval(&benchmark.test_stream()[1]).unwrap();
    let all = all(&strategy);
    let value = |name: &str, i: usize| scalars(&all, name)[i];
    let stream = "Topk_3_Acc_Stream/eval_phase/test_stream";
    let [first, second] = [0, 1].map(|task| {
        let exp = format!("Topk_3_Acc_Exp/eval_phase/test_stream/Task00{task}/Exp00{task}");
        let of_task = value(&format!("{stream}/Task00{task}"), 0);
        close(of_task, value(&exp, 0), "an experience is a task");
        of_task
    });
    close(value(stream, 0), (first + second) / 2.0, "ten samples each");
    assert_eq!(scalars(&all, stream).len(), 1);
    assert_eq!(
        scalars(&all, &format!("{stream}/Task001")).len(),
        2,
        "the second is of one task"
    );
}

/// An online stream of the same experiences forgets as much: the pieces are taken for what they are of.
#[test]
fn forgetting_knows_what_the_pieces_of_an_online_stream_are_of() {
    let benchmark = ten_classes::benchmark();
    let pieces = OnlineOptions {
        experience_size: 8,
        ..OnlineOptions::default()
    };
    let online = split_online_stream(benchmark.train_stream(), pieces).unwrap();
    let evaluator = EvaluationPlugin::new()
        .metrics(accuracy_metrics(&BOTH))
        .metrics(accuracy_metrics(&[At::TrainedExperience]))
        .metrics(forgetting_metrics(&BOTH))
        .metrics(cumulative_metrics())
        .metrics(accuracy_matrix_metrics());
    let mut strategy = ten_classes::strategy()
        .evaluator(evaluator)
        .build()
        .unwrap();
    // Two experiences of 20 samples, in three pieces each; evaluated after each piece.
    for piece in online.slice(0..6).iter() {
        strategy.train(piece).unwrap();
        strategy.eval(benchmark.test_stream()).unwrap();
    }
    let all = all(&strategy);
    let accuracy = scalars(&all, "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000");
    let forgotten = scalars(
        &all,
        "ExperienceForgetting/eval_phase/test_stream/Task000/Exp000",
    );
    // Nothing while its own pieces are trained on; then from its accuracy after the last of them.
    assert_eq!((accuracy.len(), forgotten.len()), (6, 3));
    for (i, forgotten) in forgotten.iter().enumerate() {
        close(
            *forgotten,
            accuracy[2] - accuracy[3 + i],
            "since its last piece",
        );
    }
    assert!(
        forgotten[2] > 0.1,
        "there is something to see: {forgotten:?}"
    );
    let stream = scalars(&all, "StreamForgetting/eval_phase/test_stream");
    close(stream[5], forgotten[2], "one experience has a past");
    let trained = scalars(
        &all,
        "Accuracy_On_Trained_Experiences/eval_phase/test_stream/Task000",
    );
    close(
        trained[1],
        accuracy[1],
        "experience 0 alone, after its second piece",
    );
    let matrices = all
        .iter()
        .find(|(name, _)| name.starts_with("EvalStream/Acc_Matrix"));
    let Some(MetricData::Tensor(matrix)) = matrices.and_then(|(_, (_, m))| m.last()) else {
        panic!("a matrix: {:?}", all.keys());
    };
    // As many rows as there are columns; of those after the second nothing is known yet.
    assert_eq!(matrix.shape(), [5, 5], "a row an experience, not a piece");
    let rows: Vec<f64> = matrix.outer_iter().map(|row| row.sum()).collect();
    assert!(rows[1] > 0.0 && rows[2..] == [0.0; 3], "{rows:?}");
}

#[test]
fn strict_checks_want_whole_streams() {
    let benchmark = ten_classes::benchmark();
    let evaluator = EvaluationPlugin::default().strict_checks(true);
    let mut strategy = ten_classes::strategy()
        .evaluator(evaluator)
        .build()
        .unwrap();
    let test = benchmark.test_stream();
    strategy.eval(test).unwrap();
    let error = strategy.eval(&test.slice(0..2)).unwrap_err().to_string();
    assert!(
        error.contains("all 5 experiences of the stream test"),
        "{error}"
    );
    assert!(strategy.eval(&test[0]).is_err());
}
