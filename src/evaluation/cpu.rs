//! How busy the process keeps the processor.

use super::name::{emit, metric_name};
use super::process::Process;
use super::timing::Stopwatch;
use super::{At, Metric, Span, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `cpu_usage_metrics`: processor time of all threads over elapsed time, in percent (two
/// busy threads are 200).
///
/// Names: `CPUUsage_MB`, `CPUUsage_Epoch`, `RunningCPUUsage_Epoch`, `CPUUsage_Exp`,
/// `CPUUsage_Stream`. Avalanche weighs samples taken after each iteration by their time, which comes
/// to the same. The system's clock is coarse (0.01 s on Linux), so a short mini-batch reads 0 or far
/// too much.
///
/// # Panics
/// For [`At::TrainedExperience`].
#[track_caller]
pub fn cpu_usage_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    let may = [
        At::Minibatch,
        At::Epoch,
        At::EpochRunning,
        At::Experience,
        At::Stream,
    ];
    only("cpu_usage_metrics", at, &may);
    (at.iter())
        .map(|&at| {
            Box::new(CpuUsage {
                name: at.named("", "CPUUsage"),
                span: Span::new(at),
                process: Process::new(),
                watch: Stopwatch::start(),
                began: 0.0,
            }) as Box<dyn Metric>
        })
        .collect()
}

struct CpuUsage {
    name: String,
    span: Span,
    process: Process,
    watch: Stopwatch,
    /// The processor time at which the stretch began.
    began: f64,
}

impl Metric for CpuUsage {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            self.watch = Stopwatch::start();
            self.began = self.process.cpu_seconds();
        }
        if now.emits {
            let busy = (self.process.cpu_seconds() - self.began).max(0.0);
            let elapsed = self.watch.seconds();
            let percent = if elapsed > 0.0 {
                100.0 * busy / elapsed
            } else {
                0.0
            };
            let name = metric_name(&self.name, s, self.span.at().of_experience());
            emit(out, s, name, MetricData::Scalar(percent));
        }
    }

    fn save(&self, out: &mut Snapshot) {
        let busy = Process::new().cpu_seconds() - self.began;
        out.put("span", &self.span);
        out.put("busy", &busy);
        out.put("seconds", &self.watch.seconds());
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.began = self.process.cpu_seconds() - from.get::<f64>("busy")?;
        self.watch = Stopwatch::resume(from.get("seconds")?);
        Ok(())
    }
}
