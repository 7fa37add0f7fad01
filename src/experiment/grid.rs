//! Many runs, side by side, each at most once.
//!
//! Every finished run leaves one record in the folder, written in one step. What has a record is not
//! done again, so a grid that was interrupted, killed or divided over machines goes on where it was.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::data::locate::Kind;
use crate::logging::Console;
use crate::{Error, Result};

use super::config::{BenchmarkName, Config, StrategyName};
use super::record::{self, Record};
use super::trial::{self, DataCache, Meter};

/// A part of a grid: run k of the list belongs to shard `k mod of + 1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Which part, from 1.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
}

impl Default for Shard {
    /// The whole.
    fn default() -> Self {
        Shard { index: 1, of: 1 }
    }
}

impl std::str::FromStr for Shard {
    type Err = Error;

    /// `i/n`, with i from 1 to n.
    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| part.parse::<usize>().ok();
        let parts = text
            .split_once('/')
            .and_then(|(i, n)| Some((number(i)?, number(n)?)));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Shard { index, of }),
            _ => Err(Error::config("--shard", "i/n with i from 1 to n", text)),
        }
    }
}

/// How a grid is carried out.
#[derive(Clone, Debug)]
pub struct GridOptions {
    /// The folder of the records and tables; what it holds already is taken up.
    pub out: PathBuf,
    /// Runs side by side; 0: one for each core.
    pub jobs: usize,
    /// The part to do.
    pub shard: Shard,
    /// Whether nothing but errors is printed.
    pub quiet: bool,
}

/// A run of a grid.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Its name, a relative path.
    pub name: String,
    /// Its configuration, resolved.
    pub config: Config,
}

impl Job {
    fn path(&self, out: &Path) -> PathBuf {
        out.join("runs").join(format!("{}.json", self.name))
    }

    /// The record of this run, if it was done before.
    pub fn record(&self, out: &Path) -> Result<Option<Record>> {
        let path = self.path(out);
        let Some(record) = Record::read(&path)? else {
            return Ok(None);
        };
        let wanted = self.config.to_table();
        // What cannot change the outcome, and options that came with a later version, do not count.
        let differs = record.config.iter().find(|(name, value)| {
            let free = ["threads", "eval-mb-size", "log-every", "data-dir"];
            !free.contains(&name.as_str()) && wanted.get(*name) != Some(value)
        });
        match differs {
            None => Ok(Some(record)),
            Some((name, value)) => Err(Error::config(
                "--out",
                format!(
                    "a folder without other runs of the same name ({} must have {name} = {}); give \
                     another folder",
                    self.name,
                    wanted
                        .get(name)
                        .map_or("nothing".into(), ToString::to_string)
                ),
                format!("{} with {name} = {value}", path.display()),
            )),
        }
    }

    /// What a run costs, up to a factor: rows of all its forward passes, and the steps themselves.
    fn cost(&self) -> f64 {
        let c = &self.config;
        // Domains show everything again, and a pixel of a photograph costs far more.
        let samples = match (c.benchmark, c.benchmark.kind()) {
            (
                BenchmarkName::PMnist
                | BenchmarkName::RMnist
                | BenchmarkName::PermutedMnist
                | BenchmarkName::RotatedMnist,
                _,
            ) => 6e4 * c.n_experiences.unwrap_or(1) as f64,
            (_, Kind::Mnist | Kind::FashionMnist) => 6e4,
            (_, Kind::TinyImageNet) => 4e8,
            _ => 5e7,
        };
        let size = c.train_mb_size as f64;
        let draws = match c.strategy {
            StrategyName::Der if c.beta > 0.0 => 2.0,
            StrategyName::Der | StrategyName::Replay => 1.0,
            _ => 0.0,
        };
        let replayed = draws * c.batch_size_mem.unwrap_or(c.train_mb_size).min(c.mem_size) as f64;
        samples * c.train_epochs as f64 * (size + replayed + 40.0) / size
    }
}

/// Carries out what of `jobs` belongs to the shard and is not done yet. Returns the records of all
/// jobs that have one, in the order of the jobs.
///
/// # Errors
/// [`Error::Interrupted`] when `interrupt` was raised; otherwise, after everything else was done,
/// the first error of a run.
pub(super) fn run(
    jobs: &[Job],
    options: &GridOptions,
    interrupt: &Arc<AtomicBool>,
) -> Result<Vec<Option<Record>>> {
    let mut records = Vec::with_capacity(jobs.len());
    for job in jobs {
        records.push(job.record(&options.out)?);
    }
    let Shard { index, of } = options.shard;
    let todo: Vec<usize> = (0..jobs.len())
        .filter(|k| k % of == index - 1 && records[*k].is_none())
        .collect();
    let before = records.iter().flatten().count();
    let console = Console {
        quiet: options.quiet,
    };
    console.line(format_args!(
        "{} runs: {before} done before, {} to do here, records in {}",
        jobs.len(),
        todo.len(),
        options.out.display()
    ));
    let out = &options.out;
    std::fs::create_dir_all(out).map_err(|e| Error::io("create the folder", out, e))?;
    let mut failures = Vec::new();
    work(jobs, &todo, options, interrupt, |k, result, ahead| {
        let job = &jobs[k];
        match result {
            Ok(record) => {
                let path = job.path(&options.out);
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)
                        .map_err(|e| Error::io("create the folder", folder, e))?;
                }
                record.write(&path)?;
                let outcome = match record.accuracy {
                    Some(accuracy) => format!("{accuracy:6.2} %"),
                    None => "diverged".into(),
                };
                console.line(format_args!(
                    "{:<40} {outcome}  {:7.1} s   {ahead}",
                    job.name, record.seconds
                ));
                records[k] = Some(record);
            }
            Err(Error::Interrupted(_)) => {}
            Err(error) => {
                console.line(format_args!("{:<40} failed: {error}", job.name));
                failures.push((k, error));
            }
        }
        Ok(())
    })?;
    if interrupt.load(Ordering::Relaxed) {
        return Err(Error::Interrupted(format!(
            "interrupted with {} of {} runs done; the same command goes on",
            records.iter().flatten().count(),
            jobs.len()
        )));
    }
    failures.sort_by_key(|(k, _)| *k);
    match failures.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(records),
    }
}

/// Hands the runs `todo` out to threads and their results, with a word on the time left, to `finish`
/// on this one.
fn work(
    jobs: &[Job],
    todo: &[usize],
    options: &GridOptions,
    interrupt: &Arc<AtomicBool>,
    mut finish: impl FnMut(usize, Result<Record>, &str) -> Result<()>,
) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match options.jobs {
        0 => cores,
        jobs => jobs,
    }
    .min(todo.len());
    let (data, next, commit) = (DataCache::default(), AtomicUsize::new(0), record::commit());
    let meters: Vec<Arc<Meter>> = todo.iter().map(|_| Arc::default()).collect();
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let sender = sender.clone();
            let (data, next, commit, meters) = (&data, &next, &commit, &meters);
            scope.spawn(move || {
                while !interrupt.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(&k), Some(meter)) = (todo.get(at), meters.get(at)) else {
                        break;
                    };
                    let Job { name, config } = &jobs[k];
                    let result = trial::run(name, config, data, meter, interrupt);
                    let commit = commit.clone();
                    let result = result.map(|record| Record { commit, ..record });
                    // Nobody listens any more if a record could not be written.
                    if sender.send((k, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut clock = Clock::new(jobs, todo, &meters, options.quiet);
        loop {
            match results.recv_timeout(Duration::from_millis(500)) {
                Ok((k, result)) => {
                    let ahead = clock.ahead();
                    let finished = clock.bar.suspend(|| finish(k, result, &ahead));
                    if finished.is_err() {
                        interrupt.store(true, Ordering::Relaxed);
                        return finished;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    clock.ahead();
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        clock.bar.finish_and_clear();
        Ok(())
    })
}

/// Estimates the time left from the shares of the runs that are done.
struct Clock<'a> {
    start: Instant,
    costs: Vec<f64>,
    meters: &'a [Arc<Meter>],
    bar: ProgressBar,
}

impl<'a> Clock<'a> {
    fn new(jobs: &[Job], todo: &[usize], meters: &'a [Arc<Meter>], quiet: bool) -> Self {
        let bar = if (Console { quiet }).shows_progress() {
            ProgressBar::new(1000)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{bar:40} {msg}");
        bar.set_style(style.expect("the template is a constant that parses"));
        Clock {
            start: Instant::now(),
            costs: todo.iter().map(|&k| jobs[k].cost()).collect(),
            meters,
            bar,
        }
    }

    /// Moves the bar and says what lies ahead: "34 % done, 12 min left".
    fn ahead(&mut self) -> String {
        let all: f64 = self.costs.iter().sum();
        let parts = self.costs.iter().zip(self.meters);
        let done: f64 = parts.map(|(cost, meter)| cost * meter.share()).sum();
        let share = if all > 0.0 { done / all } else { 1.0 };
        let left = self.start.elapsed().as_secs_f64() * (1.0 - share) / share.max(1e-9);
        let left = match left {
            _ if share <= 0.0 => "unknown time".to_string(),
            seconds if seconds < 90.0 => format!("{seconds:.0} s"),
            seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
            seconds => format!("{:.1} h", seconds / 3600.0),
        };
        let text = format!("{:.0} % done, {left} left", 100.0 * share);
        self.bar.set_position((1000.0 * share) as u64);
        self.bar.set_message(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_strictly() {
        let read = |text: &str| text.parse::<Shard>().ok();
        assert_eq!(read("2/8"), Some(Shard { index: 2, of: 8 }));
        for bad in ["0/8", "9/8", "1", "1/0", "-1/2", "a/b", "1/2/3"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    fn jobs(out: &Path) -> (Vec<Job>, GridOptions) {
        let job = |seed| Job {
            name: format!("tiny/seed-{seed}"),
            config: Config {
                n_experiences: Some(2),
                train_mb_size: 500,
                seed,
                ..Config::default()
            }
            .resolve()
            .unwrap(),
        };
        let options = GridOptions {
            out: out.to_path_buf(),
            jobs: 2,
            shard: Shard::default(),
            quiet: true,
        };
        ((0..3).map(job).collect(), options)
    }

    #[test]
    fn shards_share_the_work_and_what_is_done_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, mut options) = jobs(folder.path());
        let interrupt = Arc::default();
        options.shard = Shard { index: 2, of: 2 };
        let found = run(&jobs, &options, &interrupt).unwrap();
        let done: Vec<_> = found.iter().map(Option::is_some).collect();
        assert_eq!(done, [false, true, false]);
        let first = found[1].clone().unwrap();
        assert_eq!(
            (first.seed, first.rows.len(), first.rows[1].len()),
            (1, 2, 2)
        );
        assert!(first.accuracy > Some(10.0), "{first:?}");
        options.shard = Shard::default();
        let found = run(&jobs, &options, &interrupt).unwrap();
        assert_eq!(found[1], Some(first), "not done again");
        let seeds: Vec<_> = found.iter().flatten().map(|r| r.seed).collect();
        assert_eq!(seeds, [0, 1, 2]);
    }

    #[test]
    fn records_of_another_configuration_are_not_taken_for_these() {
        let folder = tempfile::tempdir().unwrap();
        let (mut jobs, options) = jobs(folder.path());
        jobs.truncate(1);
        run(&jobs, &options, &Arc::default()).unwrap();
        jobs[0].config.threads = 2;
        assert!(run(&jobs, &options, &Arc::default()).unwrap()[0].is_some());
        jobs[0].config.lr = 0.5;
        let error = run(&jobs, &options, &Arc::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("lr = 0.5") && error.contains("lr = 0.03"),
            "{error}"
        );
    }

    #[test]
    fn a_run_that_diverges_is_recorded_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut jobs, options) = jobs(folder.path());
        jobs[0].config.lr = 1e30;
        let found = run(&jobs, &options, &Arc::default()).unwrap();
        let first = found[0].clone().unwrap();
        assert!(
            first
                .diverged
                .as_ref()
                .is_some_and(|why| why.contains("loss"))
        );
        assert_eq!((first.accuracy, first.forgetting), (None, None));
        assert!(found[2].as_ref().unwrap().accuracy > Some(10.0));
        let again = run(&jobs, &options, &Arc::default()).unwrap();
        assert_eq!(again[0], Some(first), "not done again");
    }

    #[test]
    fn an_interrupted_grid_keeps_no_half_run() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, options) = jobs(folder.path());
        let raised = Arc::new(AtomicBool::new(true));
        let error = run(&jobs, &options, &raised).unwrap_err();
        assert!(matches!(error, Error::Interrupted(_)), "{error}");
        assert!(!folder.path().join("runs").exists());
    }
}
