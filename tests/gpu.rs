//! Tapes on a GPU in this process: the machine's, or the emulated one.
#![cfg(target_os = "linux")]

#[path = "cuda_emu/mod.rs"]
mod cuda_emu;

use unforget::nn::{Mlp, Module};
use unforget::optim::Sgd;
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
