//! A warm training step allocates no memory, on any thread.

#[path = "common/counting.rs"]
mod counting;
#[path = "common/step.rs"]
mod step;

use std::sync::atomic::Ordering::SeqCst;

use counting::{ARMED, COUNT};
use step::{Trainer, on_threads};
use unforget::nn::{Mlp, ResNet18};
use unforget::tape::Precision;

/// The allocations of `steps` steps after `warm` steps, inside a pool of `threads` threads. On a busy
/// machine a thread may take part for the first time, and get its scratch, long after the others;
/// therefore up to ten rounds, of which the best counts: what each step allocates is in all of them.
fn allocations(threads: usize, warm: usize, steps: usize, build: fn() -> Trainer) -> usize {
    on_threads(threads, || {
        let mut trainer = build();
        for _ in 0..warm {
            trainer.step();
        }
        let mut fewest = usize::MAX;
        for _ in 0..10 {
            COUNT.store(0, SeqCst);
            ARMED.store(true, SeqCst);
            let loss = (0..steps).map(|_| trainer.step()).last();
            ARMED.store(false, SeqCst);
            assert!(loss.is_some_and(f32::is_finite), "loss {loss:?}");
            fewest = fewest.min(COUNT.load(SeqCst));
            if fewest == 0 {
                break;
            }
        }
        fewest
    })
}

#[test]
fn a_warm_step_allocates_nothing() {
    let mlp = || Trainer::new(20, [1, 28, 28], |tape| Mlp::new(tape, &[784, 100, 100, 10]));
    let resnet = || Trainer::new(8, [3, 32, 32], |tape| ResNet18::new(tape, 10, 20));
    let rounded = || {
        let mut trainer = Trainer::new(20, [3, 32, 32], |tape| ResNet18::new(tape, 10, 20));
        let precision = trainer.tape.set_precision(Precision::Bf16);
        precision.expect("a precision of the CPU");
        trainer
    };
    for threads in [1, 2] {
        assert_eq!(
            allocations(threads, 12, 5, rounded),
            0,
            "resnet in bf16, {threads} threads"
        );
        assert_eq!(
            allocations(threads, 20, 50, mlp),
            0,
            "mlp, {threads} threads"
        );
        assert_eq!(
            allocations(threads, 12, 5, resnet),
            0,
            "resnet, {threads} threads"
        );
    }
}
