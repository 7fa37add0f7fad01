//! The same seed gives the same bits, for any number of threads and in every run.

use crate::step::{Trainer, on_threads};
use unforget::nn::{Mlp, ResNet18};
use unforget::tape::Precision;

/// The bits of all parameters and running statistics after five steps.
fn trained(threads: usize, build: fn() -> Trainer) -> Vec<(String, Vec<u32>)> {
    on_threads(threads, || {
        let mut trainer = build();
        let _awake = trainer.tape.stay_awake();
        for _ in 0..5 {
            let loss = trainer.step();
            assert!(loss.is_finite(), "loss {loss}");
        }
        let state = trainer.tape.state_dict().into_iter();
        state
            .map(|(name, value)| (name, value.iter().map(|x| x.to_bits()).collect()))
            .collect()
    })
}

fn check(build: fn() -> Trainer) {
    let first = trained(1, build);
    for threads in [1, 2, 4] {
        for ((name, expected), (_, found)) in first.iter().zip(&trained(threads, build)) {
            let differing = expected.iter().zip(found).filter(|(a, b)| a != b).count();
            assert_eq!(
                differing, 0,
                "{name}: numbers that differ with {threads} threads"
            );
        }
    }
}

#[test]
fn an_mlp_is_the_same_on_any_number_of_threads() {
    check(|| {
        Trainer::new(300, [1, 28, 28], |tape| {
            Mlp::new(tape, &[784, 100, 100, 10])
        })
    });
}

#[test]
fn rounded_factors_are_the_same_on_any_number_of_threads() {
    check(|| {
        let mut trainer = Trainer::new(34, [3, 32, 32], |tape| ResNet18::new(tape, 10, 20));
        trainer
            .tape
            .set_precision(Precision::Bf16)
            .expect("a precision of the CPU");
        trainer
    });
}

#[test]
fn a_resnet_is_the_same_on_any_number_of_threads() {
    check(|| Trainer::new(34, [3, 32, 32], |tape| ResNet18::new(tape, 10, 20)));
}
