//! How long it takes.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::name::{emit, metric_name};
use super::{At, Metric, Span, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `timing_metrics`, in seconds of a monotonic clock: a training iteration (`Time_MB`,
/// from `before_training_iteration` to `after_training_iteration`), an epoch up to its last
/// iteration (`Time_Epoch`), the mean iteration of the epoch so far (`RunningTime_Epoch`), the
/// evaluation of an experience (`Time_Exp`) and of a stream (`Time_Stream`) up to its last
/// iteration. Evaluations in the middle of an epoch count for the epoch, not for the iteration.
///
/// Avalanche's running value is the time of the first iteration divided by their number, because
/// its clock is not started again; here it is the mean that its documentation promises.
///
/// # Panics
/// For [`At::TrainedExperience`].
#[track_caller]
pub fn timing_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    let may = [
        At::Minibatch,
        At::Epoch,
        At::EpochRunning,
        At::Experience,
        At::Stream,
    ];
    only("timing_metrics", at, &may);
    (at.iter())
        .map(|&at| {
            Box::new(Timing {
                name: at.named("", "Time"),
                span: Span::new(at),
                watch: Stopwatch::start(),
                times: Times::default(),
            }) as Box<dyn Metric>
        })
        .collect()
}

/// Seconds since its start, over interruptions of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    before: f64,
    since: Instant,
}

impl Stopwatch {
    /// Begins at 0.
    pub fn start() -> Self {
        Self::resume(0.0)
    }

    /// Goes on from what [`seconds`](Self::seconds) was.
    pub fn resume(seconds: f64) -> Self {
        Stopwatch {
            before: seconds,
            since: Instant::now(),
        }
    }

    /// The seconds so far.
    pub fn seconds(&self) -> f64 {
        self.before + self.since.elapsed().as_secs_f64()
    }
}

struct Timing {
    name: String,
    span: Span,
    watch: Stopwatch,
    times: Times,
}

/// What was measured up to the last iteration that counts.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Times {
    until: f64,
    iterations: u64,
    in_iterations: f64,
    began: f64,
}

impl Metric for Timing {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        let times = &mut self.times;
        if now.begins {
            self.watch = Stopwatch::start();
            *times = Times::default();
        }
        if event == Event::BeforeTrainingIteration {
            times.began = self.watch.seconds();
        }
        if now.counts {
            times.until = self.watch.seconds();
            times.iterations += 1;
            times.in_iterations += times.until - times.began;
        }
        if now.emits {
            let seconds = match self.span.at() {
                At::EpochRunning => times.in_iterations / times.iterations.max(1) as f64,
                _ => times.until,
            };
            let name = metric_name(&self.name, s, self.span.at().of_experience());
            emit(out, s, name, MetricData::Scalar(seconds));
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("seconds", &self.watch.seconds());
        out.put("times", &self.times);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.watch = Stopwatch::resume(from.get("seconds")?);
        self.times = from.get("times")?;
        Ok(())
    }
}
