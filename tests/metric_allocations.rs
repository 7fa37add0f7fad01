//! Metrics allocate no memory in a training iteration in which they emit nothing.

#[path = "common/counting.rs"]
mod counting;
#[path = "common/ten_classes.rs"]
mod ten_classes;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use counting::{ARMED, COUNT};
use unforget::evaluation::*;
use unforget::prelude::*;
use unforget::training::{Event, MetricValue};

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

/// What the metrics allocate in the iterations of a training.
fn allocations() -> usize {
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
    COUNT.swap(0, SeqCst)
}

/// On a busy machine a thread of the pool may begin, and get its place in a queue, while the metrics
/// are counted; therefore up to ten trainings, of which the best counts: what metrics allocate is in
/// all of them.
#[test]
fn metrics_of_epochs_allocate_nothing_in_an_iteration() {
    let mut counts = Vec::new();
    while counts.len() < 10 && counts.last() != Some(&0) {
        counts.push(allocations());
    }
    assert_eq!(counts.last(), Some(&0), "{counts:?}");
}
