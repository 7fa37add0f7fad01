//! A thousand warm steps of DER++ on a ResNet leave the memory of the process where it was.

#[path = "common/counting.rs"]
mod counting;
#[path = "common/step.rs"]
mod step;

use std::sync::atomic::Ordering::SeqCst;

use counting::{ARMED, COUNT};
use step::{Trainer, on_threads};
use unforget::nn::ResNet18;

const STEPS: usize = 1000;
const KIB: usize = 1024;

/// The bytes of memory that this process holds now, counted page by page; `None` where the system does
/// not tell. (`/proc/self/statm` is cheaper, but each thread enters its pages there in batches of its own.)
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = pages.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * KIB)
}

/// What a thousand steps did.
struct Stretch {
    allocations: usize,
    /// Bytes of resident memory afterwards less those before.
    growth: Option<isize>,
}

fn stretch(trainer: &mut Trainer) -> Stretch {
    let before = resident();
    COUNT.store(0, SeqCst);
    ARMED.store(true, SeqCst);
    let loss = (0..STEPS).map(|_| trainer.step()).last();
    ARMED.store(false, SeqCst);
    assert!(loss.is_some_and(f32::is_finite), "loss {loss:?}");
    Stretch {
        allocations: COUNT.load(SeqCst),
        growth: resident()
            .zip(before)
            .map(|(now, before)| now as isize - before as isize),
    }
}

/// Once a thread has taken part, nothing is allocated and nothing grows. A thread of a busy machine may
/// come late and get its scratch in one stretch, hence three; a leak is in all of them.
#[test]
fn a_thousand_warm_steps_hold_no_more_memory() {
    if resident().is_none() {
        eprintln!("skipped: resident memory is read from /proc/self/smaps_rollup, as Linux has it");
        return;
    }
    for threads in [1, 2] {
        on_threads(threads, || {
            let mut trainer = Trainer::new(8, [3, 16, 16], |tape| ResNet18::new(tape, 10, 8));
            (0..20).for_each(|_| _ = trainer.step());
            // The first reading loads what reading needs.
            let mut seen = Vec::with_capacity(3);
            resident();
            for _ in 0..3 {
                let Stretch {
                    allocations,
                    growth,
                } = stretch(&mut trainer);
                seen.push((allocations, growth.expect("read a moment ago")));
                // Pages of the program itself may come and go: a few, not one a step.
                if allocations == 0 && growth.is_some_and(|bytes| bytes <= 64 * KIB as isize) {
                    return;
                }
            }
            panic!("{threads} threads: allocations and bytes of {STEPS} steps, thrice: {seen:?}");
        });
    }
}
