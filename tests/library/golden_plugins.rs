//! Short runs with plugins, each of whose losses is known from Avalanche (`golden/make_plugins.py`).

use crate::formula::{self, Record};
use serde_json::Value;
use unforget::prelude::*;
use unforget::training::*;

/// How far a loss may be off, relative to its size (or absolutely, below 1): the two trajectories
/// differ by roundings in f32, which grow a little with each step.
const TOLERANCE: f64 = 2e-6;

fn golden(case: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/plugins.json");
    let text = std::fs::read_to_string(path).expect("plugins.json");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    all["cases"][case].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|x| x.as_f64().expect("a number")).collect()
}

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: how many");
    let worst = (got.iter().zip(want))
        .map(|(g, w)| (g - w).abs() / w.abs().max(1.0))
        .fold(0.0, f64::max);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g - w).abs() / w.abs().max(1.0);
        let fits = error <= tolerance;
        assert!(
            fits,
            "{what}: number {i} is {g}, Avalanche has {w}; worst {worst:e}"
        );
    }
}

/// How a case differs from two epochs of shuffled data without evaluation.
#[derive(Default)]
struct Run {
    epochs: Option<usize>,
    eval_every: Option<usize>,
    in_order: bool,
    multi_task: bool,
}

#[track_caller]
fn check(case: &str, builder: StrategyBuilder, run: Run) {
    let record = Record::default();
    let mut strategy = builder
        .train_mb_size(5)
        .eval_mb_size(8)
        .train_epochs(run.epochs.unwrap_or(2))
        .eval_every(run.eval_every)
        .loader(LoaderOptions {
            shuffle: !run.in_order,
            ..LoaderOptions::default()
        })
        .plugin(record.clone())
        .build()
        .unwrap();
    let benchmark = formula::benchmark(run.multi_task);
    for experience in benchmark.train_stream().iter() {
        let test: &dyn Experiences = benchmark.test_stream();
        strategy.train_with(experience, &[test]).unwrap();
    }
    let want = golden(case);
    let (losses, rates): (Vec<f64>, Vec<f64>) = (record.get().into_iter())
        .map(|(loss, rate)| (f64::from(loss), f64::from(rate)))
        .unzip();
    let want_rates = numbers(&want["rates"]);
    if !want_rates.is_empty() {
        close(&format!("{case}: rates"), &rates, &want_rates, 1e-8);
    }
    close(
        &format!("{case}: losses"),
        &losses,
        &numbers(&want["losses"]),
        TOLERANCE,
    );
    let tape = &strategy.state().tape;
    let first = tape.parameter_value(tape.parameters()[0]);
    let row: Vec<f64> = first.iter().take(6).map(|&x| f64::from(x)).collect();
    close(
        &format!("{case}: weights"),
        &row,
        &numbers(&want["weights"]),
        3e-6,
    );
}

fn sgd() -> Sgd {
    Sgd::new(0.1).momentum(0.9)
}

fn naive(plugin: impl Plugin + 'static) -> StrategyBuilder {
    let (tape, model) = formula::model();
    Naive::builder(tape, model, sgd()).plugin(plugin)
}

fn der(plugin: impl Plugin + 'static) -> StrategyBuilder {
    let (tape, model) = formula::model();
    Der::builder(tape, model, sgd())
        .mem_size(10)
        .batch_size_mem(4)
        .alpha(0.2)
        .beta(0.5)
        .plugin(plugin)
}

#[test]
fn ewc() {
    let online = EwcMode::Online { decay_factor: 0.7 };
    check("ewc", naive(Ewc::new(30.0)), Run::default());
    check(
        "ewc-online",
        naive(Ewc::new(30.0).mode(online)),
        Run::default(),
    );
    check("ewc-der", der(Ewc::new(30.0)), Run::default());
    let (tape, model) = formula::model();
    check(
        "ewc",
        Ewc::new(30.0).builder(tape, model, sgd()),
        Run::default(),
    );
}

#[test]
fn lwf() {
    check("lwf", naive(Lwf::new(2.0, 2.0)), Run::default());
    check(
        "lwf-alphas",
        naive(Lwf::new(0.0, 1.5).alphas([0.0, 0.5, 3.0])),
        Run::default(),
    );
    check("lwf-der", der(Lwf::new(2.0, 2.0)), Run::default());
}

#[test]
fn synaptic_intelligence() {
    let si = SynapticIntelligence::new;
    check("si", naive(si(2000.0)), Run::default());
    let some = si(0.0)
        .si_lambdas([1.0, 3000.0])
        .eps(0.01)
        .excluded_parameters(["classifier"]);
    check("si-excluded", naive(some), Run::default());
    check("si-der", der(si(2000.0)), Run::default());
}

#[test]
fn mas() {
    check("mas", naive(Mas::new(0.5, 0.3)), Run::default());
}

#[test]
fn from_scratch() {
    check(
        "from-scratch",
        naive(FromScratchTraining::default()),
        Run::default(),
    );
}

fn growing(plugin: impl Plugin + 'static) -> StrategyBuilder {
    let (mut tape, model) = formula::model();
    let model = with_incremental_head(&mut tape, model, 2);
    Naive::builder(tape, model, sgd()).plugin(plugin)
}

/// Importances, anchors and teachers follow the units of a head that grows.
#[test]
fn growing_heads() {
    let online = EwcMode::Online { decay_factor: 0.7 };
    check("ewc-growing", growing(Ewc::new(30.0)), Run::default());
    check(
        "ewc-online-growing",
        growing(Ewc::new(30.0).mode(online)),
        Run::default(),
    );
    check("lwf-growing", growing(Lwf::new(2.0, 2.0)), Run::default());
    check(
        "si-growing",
        growing(SynapticIntelligence::new(2000.0)),
        Run::default(),
    );
    check("mas-growing", growing(Mas::new(0.5, 0.3)), Run::default());
}

fn heads(plugin: impl Plugin + 'static) -> StrategyBuilder {
    let mut tape = Tape::new(Device::Cpu).unwrap();
    tape.manual_seed(123);
    let model = SimpleMlp::multi_task(&mut tape, 6, 8, 0.0);
    Naive::builder(tape, model, sgd()).plugin(plugin)
}

#[test]
fn a_head_for_each_task() {
    let tasks = |in_order| Run {
        multi_task: true,
        in_order,
        ..Run::default()
    };
    check("ewc-heads", heads(Ewc::new(30.0)), tasks(false));
    check("lwf-heads", heads(Lwf::new(2.0, 2.0)), tasks(false));
    check("mas-heads", heads(Mas::new(0.5, 0.3)), tasks(false));
    check("gem-heads", heads(Gem::new(20, 0.3)), tasks(true));
}

#[test]
fn gdumb() {
    check("gdumb", naive(GDumb::new(20)), Run::default());
}

fn in_order() -> Run {
    Run {
        in_order: true,
        ..Run::default()
    }
}

#[test]
fn agem() {
    check("agem", naive(Agem::new(20, 40)), in_order());
}

#[test]
fn gem() {
    check("gem", naive(Gem::new(20, 0.3)), in_order());
    check("gem-der", der(Gem::new(20, 0.3)), in_order());
}

#[test]
fn er_ace() {
    let (tape, model) = formula::model();
    let builder = ErAce::builder(tape, model, sgd());
    check(
        "er-ace",
        builder.mem_size(12).batch_size_mem(4),
        Run::default(),
    );
}

/// The losses, and the accuracies of the classifier by nearest means.
#[test]
fn icarl() {
    let (tape, model) = formula::model();
    let record = Record::default();
    let mut strategy = Icarl::builder(tape, model, Sgd::new(0.05).momentum(0.9))
        .mem_size(24)
        .train_mb_size(5)
        .eval_mb_size(8)
        .train_epochs(2)
        .plugin(record.clone())
        .build()
        .unwrap();
    let benchmark = formula::ascending();
    let mut accuracies = Vec::new();
    for experience in benchmark.train_stream().iter() {
        strategy.train(experience).unwrap();
        accuracies.push(strategy.eval(benchmark.test_stream()).unwrap().accuracy());
    }
    let want = golden("icarl");
    let losses: Vec<f64> = record
        .get()
        .into_iter()
        .map(|(loss, _)| f64::from(loss))
        .collect();
    close(
        "icarl: losses",
        &losses,
        &numbers(&want["losses"]),
        TOLERANCE,
    );
    close(
        "icarl: accuracies",
        &accuracies,
        &numbers(&want["accuracies"]),
        1e-8,
    );
}

#[test]
fn clipping() {
    check(
        "clip-norm",
        der(GradientClipping::norm(0.4)),
        Run::default(),
    );
    check(
        "clip-value",
        der(GradientClipping::value(0.05)),
        Run::default(),
    );
}

fn epochs(epochs: usize) -> Run {
    Run {
        epochs: Some(epochs),
        ..Run::default()
    }
}

#[test]
fn learning_rates() {
    let iteration = StepGranularity::Iteration;
    let step = |step_size, gamma| LrScheduler::new(Schedule::Step { step_size, gamma });
    check("lr-step", der(step(2, 0.5)), epochs(5));
    let kept = step(2, 0.7).reset_scheduler(false).reset_lr(false);
    check("lr-step-kept", naive(kept), epochs(3));
    let multi = LrScheduler::new(Schedule::MultiStep {
        milestones: vec![2, 3, 3, 7],
        gamma: 0.6,
    });
    check(
        "lr-multistep",
        naive(multi.step_granularity(iteration)),
        Run::default(),
    );
    let exponential = LrScheduler::new(Schedule::Exponential { gamma: 0.8 })
        .first_epoch_only(true)
        .step_granularity(iteration);
    check("lr-exponential", naive(exponential), Run::default());
    let cosine = LrScheduler::new(Schedule::Cosine {
        t_max: 3,
        eta_min: 0.01,
    });
    check(
        "lr-cosine",
        naive(cosine.step_granularity(iteration)),
        epochs(3),
    );
    check(
        "lr-first-exp",
        naive(step(1, 0.5).first_exp_only(true)),
        Run::default(),
    );
}

#[test]
fn learning_rates_on_a_plateau() {
    let plateau = Plateau {
        threshold: 0.2,
        cooldown: 1,
        ..Plateau::new(0.5, 1)
    };
    check(
        "lr-plateau",
        naive(LrScheduler::new(Schedule::Plateau(plateau))),
        epochs(8),
    );
    let plateau = Plateau {
        threshold: 0.02,
        min_lr: 0.02,
        ..Plateau::new(0.5, 0)
    };
    let watching = LrScheduler::new(Schedule::Plateau(plateau)).metric(SchedulerMetric::ValLoss);
    let run = Run {
        eval_every: Some(1),
        ..epochs(5)
    };
    check("lr-plateau-val", naive(watching), run);
}
