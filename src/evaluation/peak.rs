//! The largest of readings taken in the background: memory, GPU.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::name::{emit, metric_name};
use super::process::Process;
use super::{At, Metric, Span, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// The stretches that these metrics have.
const MAY: [At; 4] = [At::Minibatch, At::Epoch, At::Experience, At::Stream];

/// Avalanche's `ram_usage_metrics`: the most memory that the process held, in MiB (resident set),
/// read every `every` in the background and at both ends of the stretch.
///
/// Names: `MaxRAMUsage_MB`, `MaxRAMUsage_Epoch`, `MaxRAMUsage_Experience`, `MaxRAMUsage_Stream`.
/// In Avalanche a stretch shorter than `every` reads 0.
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn ram_usage_metrics(every: Duration, at: &[At]) -> Vec<Box<dyn Metric>> {
    only("ram_usage_metrics", at, &MAY);
    let peaks = Peaks::new(at.len());
    let process = Mutex::new(Process::new());
    let read = Arc::new(move || match process.lock() {
        Ok(mut process) => process.memory_mib(),
        Err(_) => 0.0,
    });
    let (stop, stopped) = channel();
    let (shared, in_background) = (Arc::clone(&peaks), Arc::clone(&read));
    let thread = std::thread::Builder::new().name("ram usage".into());
    let spawned = thread.spawn(move || {
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            shared.take(in_background());
        }
    });
    if let Err(error) = spawned {
        log::warn!("memory is read only at the ends of a stretch: no thread for it ({error})");
    }
    let source = Arc::new(Source {
        peaks,
        read: Box::new(move || read()),
        _stop: Some(stop),
        child: None,
    });
    metrics("MaxRAMUsage", at, &source)
}

/// Avalanche's `gpu_usage_metrics`: the highest utilisation of NVIDIA GPU `gpu_id` in percent, as
/// `nvidia-smi` reports it every `every`. `None` where there is no `nvidia-smi` or no such GPU; in
/// Avalanche the values are then missing or wrong.
///
/// Names: `MaxGPU{id}Usage_MB`, `MaxGPU{id}Usage_Epoch`, `MaxGPU{id}Usage_Experience`,
/// `MaxGPU{id}Usage_Stream`.
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn gpu_usage_metrics(
    gpu_id: usize,
    every: Duration,
    at: &[At],
) -> Option<Vec<Box<dyn Metric>>> {
    only("gpu_usage_metrics", at, &MAY);
    gpu_metrics("nvidia-smi".as_ref(), gpu_id, every, at)
}

/// As [`gpu_usage_metrics`], asking `program`: once whether there is the GPU, then for readings
/// without end.
fn gpu_metrics(
    program: &OsStr,
    gpu_id: usize,
    every: Duration,
    at: &[At],
) -> Option<Vec<Box<dyn Metric>>> {
    let mut ask = Command::new(program);
    ask.arg("--query-gpu=utilization.gpu")
        .arg("--format=csv,noheader,nounits")
        .arg(format!("--id={gpu_id}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let once = ask.output().ok().filter(|answer| answer.status.success())?;
    let first = percent(std::str::from_utf8(&once.stdout).ok()?.lines().next()?)?;
    ask.arg(format!("--loop-ms={}", every.as_millis().max(1)));
    let mut child = ask.stdout(Stdio::piped()).spawn().ok()?;
    let output = child.stdout.take();
    let peaks = Peaks::new(at.len());
    peaks.take(first);
    let source = Arc::new(Source {
        peaks: Arc::clone(&peaks),
        read: {
            let peaks = Arc::clone(&peaks);
            Box::new(move || f64::from_bits(peaks.latest.load(Relaxed)))
        },
        _stop: None,
        child: Some(Mutex::new(child)),
    });
    let lines = BufReader::new(output?).lines();
    let thread = std::thread::Builder::new().name("gpu usage".into());
    thread
        .spawn(move || {
            let readings = lines.map_while(|line| line.ok());
            readings
                .filter_map(|line| percent(&line))
                .for_each(|reading| peaks.take(reading));
        })
        .ok()?;
    Some(metrics(&format!("MaxGPU{gpu_id}Usage"), at, &source))
}

/// A reading of `nvidia-smi`.
fn percent(line: &str) -> Option<f64> {
    line.trim().parse().ok().filter(|x: &f64| *x >= 0.0)
}

fn metrics(base: &str, at: &[At], source: &Arc<Source>) -> Vec<Box<dyn Metric>> {
    (at.iter().enumerate())
        .map(|(reader, &at)| {
            let name = match at {
                At::Experience => format!("{base}_Experience"),
                _ => at.named("", base),
            };
            Box::new(PeakMetric {
                name,
                span: Span::new(at),
                source: Arc::clone(source),
                reader,
            }) as Box<dyn Metric>
        })
        .collect()
}

/// The largest reading for each reader since its reset. Readings are not negative, so their bits are
/// in the same order as they.
struct Peaks {
    readers: Vec<AtomicU64>,
    latest: AtomicU64,
}

impl Peaks {
    fn new(readers: usize) -> Arc<Self> {
        Arc::new(Peaks {
            readers: (0..readers).map(|_| AtomicU64::new(0)).collect(),
            latest: AtomicU64::new(0),
        })
    }

    fn take(&self, reading: f64) {
        let bits = reading.max(0.0).to_bits();
        self.latest.store(bits, Relaxed);
        for peak in &self.readers {
            peak.fetch_max(bits, Relaxed);
        }
    }
}

/// Where readings come from; the background ends with it.
struct Source {
    peaks: Arc<Peaks>,
    read: Box<dyn Fn() -> f64 + Send + Sync>,
    /// Dropped with the source, which wakes the thread.
    _stop: Option<Sender<()>>,
    child: Option<Mutex<Child>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(Ok(mut child)) = self.child.take().map(Mutex::into_inner) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct PeakMetric {
    name: String,
    span: Span,
    source: Arc<Source>,
    reader: usize,
}

impl PeakMetric {
    fn peak(&self) -> &AtomicU64 {
        &self.source.peaks.readers[self.reader]
    }
}

impl Metric for PeakMetric {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            self.peak().store((self.source.read)().to_bits(), Relaxed);
        }
        if now.emits {
            let bits = (self.source.read)().to_bits();
            let largest = self.peak().fetch_max(bits, Relaxed).max(bits);
            let name = metric_name(&self.name, s, self.span.at().of_experience());
            emit(out, s, name, MetricData::Scalar(f64::from_bits(largest)));
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("peak", &f64::from_bits(self.peak().load(Relaxed)));
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        let peak: f64 = from.get("peak")?;
        self.peak().store(peak.max(0.0).to_bits(), Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_the_background_until_the_last_metric_is_gone() {
        let every = Duration::from_millis(1);
        let metrics = ram_usage_metrics(every, &[At::Epoch, At::Stream]);
        assert_eq!(metrics.len(), 2);
        drop(metrics);
        let peaks = Peaks::new(2);
        peaks.take(2.0);
        peaks.take(1.0);
        let read = |bits: &AtomicU64| f64::from_bits(bits.load(Relaxed));
        assert_eq!((read(&peaks.readers[1]), read(&peaks.latest)), (2.0, 1.0));
        assert!(Process::new().memory_mib() > 1.0);
    }

    #[test]
    fn what_is_no_reading_is_left_out() {
        assert_eq!([" 37 ", "[N/A]", ""].map(percent), [Some(37.0), None, None]);
    }

    /// A program that answers as `nvidia-smi` does for GPU 1 only, then with more readings.
    #[cfg(unix)]
    #[test]
    fn readings_of_a_gpu_are_taken_until_the_last_metric_is_gone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let (program, alive) = (folder.path().join("smi"), folder.path().join("alive"));
        let script = format!(
            "#!/bin/sh\n\
             [ \"$3\" = --id=1 ] || {{ echo 'No devices were found'; exit 6; }}\n\
             [ \"$4\" = --loop-ms=20 ] || {{ echo 12; exit 0; }}\n\
             echo 40; echo 75; echo '[N/A]'; echo 30\n\
             touch {}\n\
             exec sleep 600\n",
            alive.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let (program, every) = (program.as_os_str(), Duration::from_millis(20));
        assert!(gpu_metrics(program, 0, every, &[At::Epoch]).is_none());
        assert!(gpu_metrics("no such program".as_ref(), 1, every, &[At::Epoch]).is_none());
        assert!(gpu_usage_metrics(9999, every, &[At::Epoch]).is_none());

        let (sender, gone) = channel::<()>();
        let mut metrics = gpu_metrics(program, 1, every, &[At::Epoch]).expect("a GPU");
        let mut saved = Snapshot::default();
        let mut peak = || {
            metrics[0].save(&mut saved);
            saved.get::<f64>("peak").unwrap()
        };
        while peak() < 75.0 || !alive.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(peak(), 75.0);
        // Dropping the metric ends the program, which would sleep on.
        std::thread::spawn(move || {
            metrics.clear();
            drop(sender);
        });
        let ended = gone.recv_timeout(Duration::from_secs(60));
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    }
}
