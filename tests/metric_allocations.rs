//! Metrics allocate no memory in a training iteration in which they emit nothing.
//!
//! One test in a binary of its own: the counter sees the whole process.
#![allow(unsafe_code)]

#[path = "common/ten_classes.rs"]
mod ten_classes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use unforget::evaluation::*;
use unforget::prelude::*;
use unforget::training::{Event, MetricValue};

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

/// Counts what its metrics allocate in iterations, from the second epoch of each experience on: in
/// the first they meet its classes.
struct Watched {
    metrics: Vec<Box<dyn Metric>>,
    iterations: std::sync::Arc<AtomicUsize>,
}

impl Metric for Watched {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let in_iteration = matches!(
            event,
            Event::BeforeTrainingIteration
                | Event::BeforeForward
                | Event::AfterForward
                | Event::BeforeBackward
                | Event::AfterBackward
                | Event::BeforeUpdate
                | Event::AfterUpdate
                | Event::AfterTrainingIteration
        );
        let armed = in_iteration && s.clock.train_exp_epochs > 0;
        let emitted = out.len();
        ARMED.store(armed, SeqCst);
        for metric in &mut self.metrics {
            metric.on(event, s, out);
        }
        ARMED.store(false, SeqCst);
        if armed && event == Event::AfterTrainingIteration {
            assert_eq!(out.len(), emitted, "{out:?}");
            self.iterations.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn metrics_of_epochs_allocate_nothing_in_an_iteration() {
    let at = [At::Epoch, At::Experience, At::Stream];
    let both = [At::Experience, At::Stream];
    let paths: [&str; 0] = [];
    let metrics: Vec<Box<dyn Metric>> = [
        accuracy_metrics(&at),
        topk_acc_metrics(3, &at),
        task_incremental_accuracy_metrics(&at),
        class_accuracy_metrics(&at),
        loss_metrics(&at),
        loss_term_metrics(&at),
        calibration_metrics(&at),
        labels_repartition_metrics(&at),
        mean_scores_metrics(true, true),
        confusion_matrix_metrics(),
        cumulative_metrics(),
        amca_metrics(&["test"]),
        forgetting_metrics(&both),
        forward_transfer_metrics(&both),
        accuracy_matrix_metrics(),
        timing_metrics(&at),
        cpu_usage_metrics(&at),
        disk_usage_metrics(&paths, &at),
        mac_metrics(&[At::Epoch]),
        images_samples_metrics(1, 1, true, false),
        buffer_metrics(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let iterations = std::sync::Arc::default();
    let watched = Watched {
        metrics,
        iterations: std::sync::Arc::clone(&iterations),
    };
    let benchmark = ten_classes::benchmark();
    let mut strategy = ten_classes::strategy()
        .evaluator(EvaluationPlugin::new().metric(watched))
        .build()
        .unwrap();
    strategy.train(benchmark.train_stream()).unwrap();
    // Five experiences, two epochs each, four iterations each.
    assert_eq!(iterations.load(SeqCst), 40);
    assert_eq!(COUNT.load(SeqCst), 0);
}
