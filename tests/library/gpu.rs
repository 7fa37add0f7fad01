//! Tapes on a GPU in this process: the machine's, or the emulated one.

use crate::cuda_emu;
use std::sync::{Arc, Mutex};

use unforget::data::{Transform, TransformGroups};
use unforget::evaluation::{
    At, ConfusionMatrix, EvaluationPlugin, accuracy_matrix_metrics, accuracy_metrics, amca_metrics,
    class_accuracy_metrics, confusion_matrix_metrics, forgetting_metrics, loss_metrics,
    task_incremental_accuracy_metrics, topk_acc_metrics,
};
use unforget::nn::{Mlp, Module};
use unforget::optim::Sgd;
use unforget::prelude::*;
use unforget::tape::{Device, Mode, Tape};
use unforget::training::Icarl;

/// A little training on a tape of its own, opened and closed again: the weights at the end.
fn weights_after_training(seed: u64) -> Vec<f32> {
    let mut tape = Tape::new(Device::Cuda(0)).expect("a GPU");
    tape.manual_seed(seed);
    let model = Mlp::new(&mut tape, &[6, 8, 3]);
    let sgd = Sgd::new(0.1).momentum(0.9);
    let x: Vec<f32> = (0..24).map(|i| (i * 7 % 11) as f32 / 11.0).collect();
    for _ in 0..5 {
        tape.begin(Mode::Train);
        let x = tape.input(&[4, 1, 2, 3], &x);
        let logits = model.forward(&mut tape, x);
        let loss = tape.cross_entropy(logits, &[0, 1, 2, 0]);
        tape.backward(loss);
        sgd.step(&mut tape);
        assert!(tape.item(loss).is_finite());
    }
    let mut weights = Vec::new();
    tape.parameters_flat(&mut weights);
    weights
}

/// One thread captures its steps while the other gets and gives back memory.
#[test]
fn tapes_in_several_threads_share_a_gpu() {
    if !cuda_emu::ready() {
        return;
    }
    let alone = [1, 2].map(weights_after_training);
    assert_ne!(alone[0], alone[1]);
    std::thread::scope(|scope| {
        for (seed, want) in (1..).zip(&alone) {
            scope.spawn(move || {
                for round in 0..20 {
                    assert_eq!(&weights_after_training(seed), want, "round {round}");
                }
            });
        }
    });
}

/// Inputs, logits and loss of a mini-batch as a plugin sees them.
struct Seen {
    inputs: Vec<f32>,
    logits: Vec<f32>,
    loss: f32,
}

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Seen>>>);

impl Plugin for Watch {
    fn after_training_iteration(&mut self, state: &mut State) -> unforget::Result<()> {
        self.0.lock().unwrap().push(Seen {
            inputs: state.mb_x().iter().copied().collect(),
            logits: state.mb_logits().unwrap().iter().copied().collect(),
            loss: state.loss().total,
        });
        Ok(())
    }
}

/// DER++ with a small ResNet-18 on colour images of 16 x 16, cropped and mirrored at random.
fn varied_run(device: Device) -> (Vec<Seen>, EvalResult) {
    let pixels = (0..24 * 768).map(|p| (p % 768 * 7 + p / 768 * 5) as u8);
    let targets = (0..24).map(|i| i % 4).collect();
    let images = Dataset::from_u8("images", [3, 16, 16], pixels.collect(), targets, 4).unwrap();
    let eval = Transform::cifar10();
    let train = (eval.clone().random_crop(16, 16, 2)).random_horizontal_flip(0.5);
    let benchmark = NcBenchmark::new(images.clone(), images, TransformGroups { train, eval });
    let benchmark = benchmark.n_experiences(2).build().unwrap();
    let mut tape = Tape::new(device).unwrap();
    tape.manual_seed(3);
    let model = ResNet18::new(&mut tape, 4, 2);
    let watch = Watch::default();
    // At some rates an input of a ReLU comes so near to zero that rounding decides, and one bit of a loss becomes a
    // thousandth two steps later; at this one none does, with any instruction set.
    let mut strategy = Der::builder(tape, model, Sgd::new(0.0005))
        .mem_size(6)
        .batch_size_mem(4)
        .train_mb_size(6)
        .train_epochs(2)
        .eval_mb_size(8)
        .plugin(watch.clone())
        .build()
        .unwrap();
    strategy.train(benchmark.train_stream()).unwrap();
    let result = strategy.eval(benchmark.test_stream()).unwrap();
    (std::mem::take(&mut *watch.0.lock().unwrap()), result)
}

#[test]
fn varied_images_are_those_of_the_processor() {
    if !cuda_emu::ready() {
        return;
    }
    let (cpu, cpu_result) = varied_run(Device::Cpu);
    let (gpu, gpu_result) = varied_run(Device::Cuda(0));
    assert_eq!((cpu.len(), gpu.len()), (8, 8));
    for (step, (a, b)) in cpu.iter().zip(&gpu).enumerate() {
        assert_eq!(a.inputs, b.inputs, "step {step}");
        let close = |a: f32, b: f32, by: f32| (a - b).abs() <= by;
        assert!(
            close(a.loss, b.loss, 1e-5),
            "step {step}: {} and {}",
            a.loss,
            b.loss
        );
        assert_eq!(a.logits.len(), b.logits.len());
        let all = a
            .logits
            .iter()
            .zip(&b.logits)
            .all(|(&a, &b)| close(a, b, 1e-4));
        assert!(all, "step {step}: {:?} and {:?}", a.logits, b.logits);
    }
    for (a, b) in cpu_result.experiences.iter().zip(&gpu_result.experiences) {
        assert!(
            (a.loss - b.loss).abs() <= 1e-5 * (1.0 + a.loss),
            "{a:?} and {b:?}"
        );
    }
}

/// Grey images of 2 x 3 in six classes, `n` of each: a bright pixel in noise.
fn small_images(n: usize) -> Dataset {
    let noise = |p: usize| p / 6 * 37 + p % 6 * 11 + p / 36 * 3;
    let bright = |p: usize| 150 * usize::from(p / 6 % 6 == p % 6);
    let pixels = (0..6 * n * 6).map(|p| (noise(p) % 100 + bright(p)) as u8);
    let targets = (0..6 * n).map(|i| (i % 6) as u32).collect();
    Dataset::from_u8("small", [1, 2, 3], pixels.collect(), targets, 6).unwrap()
}

/// Metrics that need nothing but outcomes.
fn of_outcomes() -> EvaluationPlugin {
    let at = [At::Experience, At::Stream, At::TrainedExperience];
    EvaluationPlugin::new()
        .metrics(accuracy_metrics(&at))
        .metrics(task_incremental_accuracy_metrics(&at))
        .metrics(loss_metrics(&at))
        .metrics(class_accuracy_metrics(&[At::Experience, At::Stream]))
        .metrics(amca_metrics(&["test"]))
        .metrics(confusion_matrix_metrics())
        .metrics(forgetting_metrics(&[At::Experience, At::Stream]))
        .metrics(accuracy_matrix_metrics())
}

/// DER++ trained for a little on three experiences of small images, with evaluations of `per_class` images of
/// each class in mini-batches of `size`.
fn small_run(
    device: Device,
    per_class: usize,
    size: usize,
    evaluator: EvaluationPlugin,
    plugin: impl Plugin + 'static,
) -> (Strategy, Benchmark) {
    let test = small_images(per_class);
    let builder = NcBenchmark::new(small_images(8), test, TransformGroups::default());
    let benchmark = builder.n_experiences(3).build().unwrap();
    let mut tape = Tape::new(device).unwrap();
    tape.manual_seed(5);
    let model = Mlp::new(&mut tape, &[6, 16, 6]);
    let mut strategy = Der::builder(tape, model, Sgd::new(0.1))
        .mem_size(12)
        .train_mb_size(4)
        .train_epochs(2)
        .eval_mb_size(size)
        .evaluator(evaluator)
        .plugin(plugin)
        .build()
        .unwrap();
    strategy.train(benchmark.train_stream()).unwrap();
    (strategy, benchmark)
}

/// What the GPU reports is what the processor reports.
fn same_metrics(cpu: &Strategy, gpu: &Strategy) {
    let [cpu, gpu] = [cpu, gpu].map(|strategy| &strategy.state().last_metrics);
    assert!(
        cpu.len() > 10 && cpu.keys().eq(gpu.keys()),
        "{cpu:?} and {gpu:?}"
    );
    for (name, a) in cpu {
        let b = &gpu[name];
        match (a.scalar(), b.scalar()) {
            (Some(x), Some(y)) if name.contains("Loss") => {
                assert!((x - y).abs() <= 1e-4, "{name}: {x} and {y}");
            }
            _ => assert_eq!(a, b, "{name}"),
        }
    }
}

/// Entry points of the driver that are counted.
const CALLS: [&str; 5] = [
    "cuStreamSynchronize",
    "cuMemcpyDtoHAsync_v2",
    "cuGraphLaunch",
    "cuLaunchKernel",
    "cuEventSynchronize",
];

/// How often `work` calls each of [`CALLS`]; `None` on a real driver, which does not count.
fn calls_of(work: impl FnOnce()) -> Option<[u64; 5]> {
    let before = CALLS.map(cuda_emu::calls);
    work();
    let after = CALLS.map(cuda_emu::calls);
    let counted = before[0].is_some();
    counted.then(|| std::array::from_fn(|i| after[i].unwrap_or(0) - before[i].unwrap_or(0)))
}

/// Looks at nothing.
struct Nobody;

impl Plugin for Nobody {}

#[test]
fn an_evaluation_waits_once_for_each_experience() {
    if !cuda_emu::ready() {
        return;
    }
    let [(mut cpu, benchmark), (mut gpu, _)] = [Device::Cpu, Device::Cuda(0)]
        .map(|device| small_run(device, 35, 5, of_outcomes(), Nobody));
    let mut calls = None;
    // What comes again in the second evaluation becomes a graph there.
    for _ in 0..3 {
        let wanted = cpu.eval(benchmark.test_stream()).unwrap();
        calls = calls_of(|| {
            let found = gpu.eval(benchmark.test_stream()).unwrap();
            for (a, b) in wanted.experiences.iter().zip(&found.experiences) {
                assert_eq!((a.correct, a.correct_task), (b.correct, b.correct_task));
                assert!((a.loss - b.loss).abs() <= 1e-4, "{a:?} and {b:?}");
            }
        });
        same_metrics(&cpu, &gpu);
        assert!(wanted.accuracy() > 0.2, "{wanted}");
    }
    // Three experiences of two classes: 70 images each, in 14 mini-batches. Two of these go off before the
    // host has to make sure that the GPU has read what it was given.
    if let Some([waits, copies, graphs, launches, events]) = calls {
        assert_eq!((waits, copies), (3, 3), "waits and copies to the host");
        assert_eq!(
            (graphs, launches),
            (3 * 14, 0),
            "graphs, and kernels outside of them"
        );
        assert_eq!(events, 3 * 12);
    }
}

#[test]
fn outcomes_come_in_pieces_where_there_are_many() {
    if !cuda_emu::ready() {
        return;
    }
    // 40 000 images of two classes, two numbers for each: the list on the GPU holds 65 536.
    let [(mut cpu, benchmark), (mut gpu, _)] = [Device::Cpu, Device::Cuda(0)]
        .map(|device| small_run(device, 20_000, 5000, of_outcomes(), Nobody));
    let first = &benchmark.test_stream()[0];
    let wanted = cpu.eval(first).unwrap();
    let calls = calls_of(|| {
        let found = gpu.eval(first).unwrap();
        let (a, b) = (&wanted.experiences[0], &found.experiences[0]);
        assert_eq!((a.correct, a.correct_task), (b.correct, b.correct_task));
        assert!((a.loss - b.loss).abs() <= 1e-4, "{a:?} and {b:?}");
    });
    same_metrics(&cpu, &gpu);
    if let Some([waits, ..]) = calls {
        assert_eq!(waits, 2);
    }
}

/// What a plugin sees of evaluation: labels, logits, and the loss of each mini-batch.
#[derive(Clone, Default)]
struct Look(Arc<Mutex<Vec<Seen>>>);

impl Plugin for Look {
    fn after_eval_forward(&mut self, state: &mut State) -> unforget::Result<()> {
        self.0.lock().unwrap().push(Seen {
            inputs: state.mb_y.iter().map(|&label| label as f32).collect(),
            logits: state.mb_logits().unwrap().iter().copied().collect(),
            loss: f32::NAN,
        });
        Ok(())
    }

    fn after_eval_iteration(&mut self, state: &mut State) -> unforget::Result<()> {
        self.0.lock().unwrap().last_mut().unwrap().loss = state.loss().total;
        Ok(())
    }
}

#[test]
fn who_looks_at_a_mini_batch_of_evaluation_sees_it() {
    if !cuda_emu::ready() {
        return;
    }
    let runs = [Device::Cpu, Device::Cuda(0)].map(|device| {
        // These two look at logits.
        let evaluator = of_outcomes()
            .metrics(topk_acc_metrics(2, &[At::Experience, At::Stream]))
            .metric(ConfusionMatrix::default().num_classes(4));
        let look = Look::default();
        let (mut strategy, benchmark) = small_run(device, 10, 6, evaluator, look.clone());
        look.0.lock().unwrap().clear();
        strategy.eval(benchmark.test_stream()).unwrap();
        let seen = std::mem::take(&mut *look.0.lock().unwrap());
        (strategy, seen)
    });
    let [(cpu, a), (gpu, b)] = &runs;
    same_metrics(cpu, gpu);
    assert_eq!((a.len(), b.len()), (12, 12));
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.inputs, b.inputs);
        assert_eq!(a.logits.len(), b.logits.len());
        let mut off = a.logits.iter().zip(&b.logits).map(|(a, b)| (a - b).abs());
        assert!(off.all(|d| d <= 1e-3), "{:?} and {:?}", a.logits, b.logits);
        assert!((a.loss - b.loss).abs() <= 1e-4, "{} and {}", a.loss, b.loss);
    }
}

/// iCaRL puts distances to means of features in the place of logits, which the host computes.
#[test]
fn an_output_that_the_host_computes_is_that_of_the_processor() {
    if !cuda_emu::ready() {
        return;
    }
    let [cpu, gpu] = [Device::Cpu, Device::Cuda(0)].map(|device| {
        let test = small_images(20);
        let builder = NcBenchmark::new(small_images(8), test, TransformGroups::default());
        let benchmark = builder.n_experiences(3).build().unwrap();
        let mut tape = Tape::new(device).unwrap();
        tape.manual_seed(5);
        let model = Mlp::new(&mut tape, &[6, 16, 6]);
        let look = Look::default();
        let mut strategy = Icarl::builder(tape, model, Sgd::new(0.1))
            .mem_size(12)
            .train_mb_size(4)
            .eval_mb_size(7)
            .plugin(look.clone())
            .build()
            .unwrap();
        strategy.train(benchmark.train_stream()).unwrap();
        let result = strategy.eval(benchmark.test_stream()).unwrap();
        (std::mem::take(&mut *look.0.lock().unwrap()), result)
    });
    for (step, (a, b)) in cpu.0.iter().zip(&gpu.0).enumerate() {
        let mut off = a.logits.iter().zip(&b.logits).map(|(a, b)| (a - b).abs());
        assert!(
            off.all(|d| d <= 1e-4),
            "{step}: {:?} and {:?}",
            a.logits,
            b.logits
        );
    }
    for (a, b) in cpu.1.experiences.iter().zip(&gpu.1.experiences) {
        assert_eq!((a.correct, a.correct_task), (b.correct, b.correct_task));
        assert!((a.loss - b.loss).abs() <= 1e-4, "{a:?} and {b:?}");
    }
}
