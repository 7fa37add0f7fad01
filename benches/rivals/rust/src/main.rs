//! `rivals ENGINE NAME... [seconds=S]`: training steps of DER++ in candle and burn, timed as
//! `benches/steps.rs` times ours. A line of JSON for each name. Threads: `RAYON_NUM_THREADS`, which
//! both engines read, and `MATMUL_NUM_THREADS` for burn's ndarray (1 if not set). burn-cpu is not here:
//! building it downloads a copy of LLVM.

mod burn;
mod candle;
mod case;

use std::time::Instant;

use ::burn::tensor::Device;
use rustix::time::{ClockId, clock_gettime};
use unforget::experiment::bench;

use case::{CASES, Case};

const ENGINES: [&str; 3] = ["candle", "burn-ndarray", "burn-flex"];

// `Device::ndarray` is deprecated in favour of `flex`; here both are measured.
#[allow(deprecated)]
fn start(engine: &str, case: Case) -> Box<dyn FnMut() -> f32 + Send> {
    match engine {
        "candle" => {
            let mut step = candle::start(case).expect("candle's network");
            Box::new(move || step().expect("candle's step"))
        }
        "burn-ndarray" => Box::new(burn::start(case, Device::ndarray())),
        "burn-flex" => Box::new(burn::start(case, Device::flex())),
        _ => panic!("there is no engine {engine:?}: {ENGINES:?}"),
    }
}

/// The most memory this process has had, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Seconds of processor time of this process, whichever of its threads an engine computes on.
fn process_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// The least time of a step, processor time for one thread and wall time for several, and the median of
/// wall time, in seconds; short steps are timed a millisecond at a time. A step that takes longer than
/// all of `seconds` is timed once.
fn time(threads: usize, seconds: f64, step: &mut dyn FnMut() -> f32) -> (f64, f64) {
    let (start, mut batch) = (Instant::now(), 1);
    let (mut least, mut walls) = (f64::INFINITY, Vec::new());
    while walls.is_empty() || start.elapsed().as_secs_f64() < seconds {
        let (wall, cpu) = (Instant::now(), process_seconds());
        (0..batch).for_each(|_| _ = step());
        let cpu = (process_seconds() - cpu) / batch as f64;
        let wall = wall.elapsed().as_secs_f64() / batch as f64;
        least = f64::min(least, if threads == 1 { cpu } else { wall });
        walls.push(wall);
        batch = (1e-3 / wall).ceil() as usize;
    }
    walls.sort_by(f64::total_cmp);
    (least, walls[walls.len() / 2])
}

fn measure(engine: &str, case: Case, threads: usize, seconds: f64) {
    let mut step = start(engine, case);
    let first_loss = step();
    let (least, median) = time(threads, seconds, &mut step);
    println!(
        "{{\"name\":\"{}\",\"threads\":{threads},\"engine\":\"{engine}\",\"first_loss\":{first_loss:.7},\
         \"steps_per_s\":{:.4},\"wall_median_s\":{median:.6},\"peak_rss_mib\":{:.1}}}",
        case.name,
        1.0 / least,
        peak_memory().unwrap_or(f64::NAN),
    );
}

fn main() {
    let mut args = std::env::args().skip(1);
    let engine = args.next().unwrap_or_default();
    let (mut seconds, mut names) = (3.0, Vec::new());
    for arg in args {
        match arg.strip_prefix("seconds=") {
            Some(s) => seconds = s.parse().expect("seconds=S takes a number"),
            None => names.push(arg),
        }
    }
    let threads = std::env::var("RAYON_NUM_THREADS").map_or(1, |n| n.parse().expect("a number"));
    bench::on_threads(threads, || {
        for name in &names {
            let case = CASES.into_iter().find(|case| case.name == name);
            let case = case.unwrap_or_else(|| panic!("there is no step {name:?}"));
            measure(&engine, case, threads, seconds);
        }
    })
    .expect("threads");
}

#[cfg(test)]
mod tests {
    use super::*;
    use unforget::experiment::bench::Workload;

    fn ours(name: &str) -> f32 {
        let workload = Workload::find(name).expect("a step of this name");
        workload.start().expect("memory").run()
    }

    #[test]
    fn every_engine_computes_our_first_loss() {
        for engine in ENGINES {
            for case in CASES.into_iter().take(3) {
                let (theirs, ours) = (start(engine, case)(), ours(case.name));
                let close = (theirs - ours).abs() <= 1e-4 * ours.abs();
                assert!(close, "{engine} {}: {theirs}, ours {ours}", case.name);
            }
        }
    }

    #[test]
    fn losses_fall() {
        for engine in ENGINES {
            let mut step = start(engine, CASES[0]);
            let mut round = || (0..8).map(|_| step()).sum::<f32>();
            let (first, second) = (round(), round());
            assert!(second < first, "{engine}: {first}, then {second}");
        }
    }
}
