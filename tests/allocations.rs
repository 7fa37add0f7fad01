//! A warm training step allocates no memory, on any thread.
//!
//! One test in a binary of its own: the counter sees the whole process.
#![allow(unsafe_code)]

#[path = "common/step.rs"]
mod step;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use step::{Trainer, on_threads};
use unforget::nn::{Mlp, ResNet18};
use unforget::tape::Precision;

/// The system's allocator, counting while [`ARMED`].
struct Counting;

static ARMED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn count() {
    if ARMED.load(SeqCst) {
        COUNT.fetch_add(1, SeqCst);
    }
}

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract; counting touches
// two atomics and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `ptr` came from `System`, as every block does; the rest is the caller's contract.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System`, as every block does; the rest is the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
