//! Tapes on a GPU in this process: the machine's, or the emulated one.
#![cfg(target_os = "linux")]

#[path = "cuda_emu/mod.rs"]
mod cuda_emu;

use std::sync::{Arc, Mutex};

use unforget::data::{Transform, TransformGroups};
use unforget::nn::{Mlp, Module};
use unforget::optim::Sgd;
use unforget::prelude::*;
use unforget::tape::{Device, Mode, Tape};

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
            loss: state.loss.total,
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
    let mut strategy = Der::builder(tape, model, Sgd::new(0.002))
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
            close(a.loss, b.loss, 1e-4),
            "step {step}: {} and {}",
            a.loss,
            b.loss
        );
        assert_eq!(a.logits.len(), b.logits.len());
        let all = a
            .logits
            .iter()
            .zip(&b.logits)
            .all(|(&a, &b)| close(a, b, 1e-3));
        assert!(all, "step {step}: {:?} and {:?}", a.logits, b.logits);
    }
    for (a, b) in cpu_result.experiences.iter().zip(&gpu_result.experiences) {
        assert!(
            (a.loss - b.loss).abs() <= 1e-4 * (1.0 + a.loss),
            "{a:?} and {b:?}"
        );
    }
}
