//! Fewer values of the metrics of mini-batches.

use crate::Result;
use crate::evaluation::Metric;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricValue, State};

/// Metrics of training mini-batches, but only of the iterations 0, `n`, `2n`, ... of the run: a curve
/// needs no more points, and the files of the loggers stay small.
///
/// ```
/// use unforget::evaluation::{At, EvaluationPlugin, loss_metrics};
/// use unforget::logging::every;
///
/// let evaluator = EvaluationPlugin::default()
///     .metrics(every(10, loss_metrics(&[At::Minibatch])));
/// ```
pub fn every(n: u64, metrics: Vec<Box<dyn Metric>>) -> Vec<Box<dyn Metric>> {
    let thin = |metric| {
        Box::new(Thin {
            metric,
            n: n.max(1),
        }) as Box<dyn Metric>
    };
    metrics.into_iter().map(thin).collect()
}

struct Thin {
    metric: Box<dyn Metric>,
    n: u64,
}

impl Metric for Thin {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let counted = s.clock.train_iterations.is_multiple_of(self.n);
        if counted || event != Event::AfterTrainingIteration {
            self.metric.on(event, s, out);
        }
    }

    fn save(&self, out: &mut Snapshot) {
        self.metric.save(out);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.metric.load(from)
    }
}
