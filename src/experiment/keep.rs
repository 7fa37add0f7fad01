//! Checkpoints of a run: when they are written, and what the run itself adds to them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::checkpoint::write_snapshot;
use crate::logging::MetricsFile;
use crate::snapshot::Snapshot;
use crate::training::{Keeper, State};
use crate::{Error, Result};

use super::summary::Scores;

/// How far a run has come, beyond what its strategy knows.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub scores: Scores,
    /// Samples of each class in the buffer, after each experience.
    pub buffer: Vec<Vec<(u32, usize)>>,
    /// Time spent training in finished experiences, and in the running one before it was cut.
    pub training: Duration,
    /// Samples trained on in finished experiences.
    pub samples: usize,
    /// Length of `metrics.jsonl`.
    pub metrics_bytes: u64,
}

/// Writes the checkpoints of a run.
#[derive(Clone)]
pub(super) struct Checkpoints {
    pub path: PathBuf,
    /// Steps from one to the next; 0: by time.
    pub every: u64,
    pub interrupt: Arc<AtomicBool>,
    pub progress: Arc<Mutex<Progress>>,
    pub metrics: Arc<Mutex<MetricsFile>>,
    /// When the running experience began.
    pub started: Arc<Mutex<Instant>>,
    last: Instant,
}

/// Often enough that little is lost, rarely enough to cost nothing.
const INTERVAL: Duration = Duration::from_secs(30);

impl Checkpoints {
    pub fn new(
        path: PathBuf,
        every: u64,
        interrupt: Arc<AtomicBool>,
        progress: Progress,
        metrics: MetricsFile,
    ) -> Self {
        Checkpoints {
            path,
            every,
            interrupt,
            progress: Arc::new(Mutex::new(progress)),
            metrics: Arc::new(Mutex::new(metrics)),
            started: Arc::new(Mutex::new(Instant::now())),
            last: Instant::now(),
        }
    }

    /// Writes `snapshot` with the state of the run. `running`: in the middle of an experience.
    pub fn write(&mut self, mut snapshot: Snapshot, running: bool) -> Result<()> {
        let mut progress = lock(&self.progress);
        progress.metrics_bytes = lock(&self.metrics).position()?;
        let before = progress.training;
        if running {
            progress.training += lock(&self.started).elapsed();
        }
        snapshot.child("run").put("progress", &*progress);
        progress.training = before;
        self.last = Instant::now();
        write_snapshot(&self.path, &snapshot)
    }

    /// Whether a checkpoint is due when so many steps have been made.
    pub fn is_due(&self, steps: u64) -> bool {
        match self.every {
            0 => self.last.elapsed() >= INTERVAL,
            every => steps.is_multiple_of(every),
        }
    }
}

impl Keeper for Checkpoints {
    fn due(&mut self, s: &State) -> bool {
        self.interrupt.load(Ordering::Relaxed) || self.is_due(s.clock.train_iterations)
    }

    fn keep(&mut self, snapshot: Snapshot) -> Result<()> {
        self.write(snapshot, true)?;
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted("interrupted".into()));
        }
        Ok(())
    }
}

/// A panic elsewhere leaves complete lines and values behind, so its poison changes nothing here.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
