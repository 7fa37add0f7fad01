//! Speed and memory of training steps of DER++, through the public API on made-up numbers.
//!
//! `cargo bench --bench steps -- [NAME...] [threads=N] [seconds=S] [json]`. One line for each step:
//! steps and samples a second by the least time (processor time of the thread; with more than one
//! thread wall time), the median of wall time, per cent of the peak of the multipliers measured in
//! the same process, allocations in the timed steps, most memory the process has had so far.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use unforget::experiment::bench::{self, WORKLOADS, Workload};

/// The system's allocator, counting.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract; counting touches
// an atomic and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System`, as every block does; the rest is the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory this process has had, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn measure(workload: Workload, threads: usize, budget: Duration, json: bool) {
    let before = bench::peak(workload.precision, threads).expect("a precision of the CPU");
    let mut step = workload.start().expect("memory for the step");
    let first_loss = step.run();
    (0..2).for_each(|_| _ = step.run());
    let one = bench::time(Duration::ZERO, || _ = step.run()).wall_median;
    let counted = (0.2 / one).clamp(2.0, 1000.0) as usize;
    let start = COUNT.load(Relaxed);
    (0..counted).for_each(|_| _ = step.run());
    let allocations = COUNT.load(Relaxed) - start;
    let timing = bench::time(budget, || _ = std::hint::black_box(step.run()));
    let peak =
        before.max(bench::peak(workload.precision, threads).expect("a precision of the CPU"));

    let seconds = timing.least(threads);
    let rate = workload.operations() / seconds;
    let memory = peak_memory().unwrap_or(f64::NAN);
    if json {
        println!(
            "{{\"name\":\"{}\",\"threads\":{threads},\"steps_per_s\":{:.3},\"wall_median_s\":{:.6},\
             \"peak_gflops\":{:.1},\"percent\":{:.1},\"peak_rss_mib\":{memory:.1},\
             \"allocations\":{allocations},\"first_loss\":{first_loss:.7}}}",
            workload.name,
            1.0 / seconds,
            timing.wall_median,
            peak / 1e9,
            100.0 * rate / peak,
        );
    } else {
        println!(
            "{:22} {:9.2} steps/s {:9.1} samples/s | {:9.3} ms, wall median {:9.3} ms | {:6.1} of \
             {:6.1} GFLOP/s {:5.1} % | {memory:6.0} MiB | {allocations} allocations in {counted} steps",
            workload.name,
            1.0 / seconds,
            workload.samples() as f64 / seconds,
            1e3 * seconds,
            1e3 * timing.wall_median,
            rate / 1e9,
            peak / 1e9,
            100.0 * rate / peak,
        );
    }
}

fn main() {
    let (mut threads, mut seconds, mut json) = (1, 3.0, false);
    let mut names: Vec<String> = Vec::new();
    for arg in std::env::args().skip(1).filter(|a| a != "--bench") {
        if let Some(n) = arg.strip_prefix("threads=") {
            threads = n.parse().expect("threads=N takes a number");
        } else if let Some(s) = arg.strip_prefix("seconds=") {
            seconds = s.parse().expect("seconds=S takes a number");
        } else if arg == "json" {
            json = true;
        } else {
            assert!(Workload::find(&arg).is_some(), "there is no step {arg:?}");
            names.push(arg);
        }
    }
    let wanted = |w: &&Workload| names.is_empty() || names.iter().any(|n| n == w.name);
    bench::on_threads(threads, || {
        for workload in WORKLOADS.iter().filter(wanted) {
            measure(*workload, threads, Duration::from_secs_f64(seconds), json);
        }
    })
    .expect("threads");
}
