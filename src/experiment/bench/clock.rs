//! Clocks, and the least and the median time of something done again and again.

use std::time::{Duration, Instant};

/// Seconds of processor time that the calling thread has used: what neighbours on a busy machine
/// disturb least. Wall time where the system does not tell.
fn thread_seconds() -> f64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let t = clock_gettime(ClockId::ThreadCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
    }
    #[cfg(not(unix))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    }
}

/// How long one call takes, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Least processor time of the calling thread.
    pub thread_min: f64,
    /// Least wall time.
    pub wall_min: f64,
    /// Median wall time.
    pub wall_median: f64,
}

impl Timing {
    /// The steadiest figure: processor time of a single thread, wall time of several.
    pub fn least(&self, threads: usize) -> f64 {
        if threads == 1 {
            self.thread_min
        } else {
            self.wall_min
        }
    }
}

/// Calls of the shortest work timed together, in seconds: far longer than a clock takes to read.
const BATCH: f64 = 500e-6;

/// Times `f` for at least `budget`, and at least three times, after two calls that warm it up.
pub fn time(budget: Duration, mut f: impl FnMut()) -> Timing {
    f();
    let warm = Instant::now();
    f();
    let one = warm.elapsed().as_secs_f64();
    let batch = (BATCH / one.max(1e-9)).ceil().max(1.0) as usize;
    let start = Instant::now();
    let (mut thread_min, mut walls) = (f64::INFINITY, Vec::new());
    while start.elapsed() < budget || walls.len() < 3 {
        let (thread, wall) = (thread_seconds(), Instant::now());
        for _ in 0..batch {
            f();
        }
        walls.push(wall.elapsed().as_secs_f64() / batch as f64);
        thread_min = thread_min.min((thread_seconds() - thread) / batch as f64);
    }
    walls.sort_by(f64::total_cmp);
    Timing {
        thread_min,
        wall_min: walls[0],
        wall_median: walls[walls.len() / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_work_is_timed_per_call() {
        let mut calls = 0;
        let short = time(Duration::from_millis(5), || calls += 1);
        assert!(calls > 100 && short.wall_median < 1e-4, "{short:?}");
        let pause = Duration::from_millis(2);
        let long = time(Duration::ZERO, || std::thread::sleep(pause));
        assert!(long.wall_min >= 2e-3 && long.wall_median >= long.wall_min);
        #[cfg(unix)]
        assert!(long.thread_min < 2e-3, "sleeping takes no processor time");
    }
}
