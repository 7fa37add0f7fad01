//! What the loggers write during the golden run, beside what Avalanche's wrote (text log and CSV files,
//! line by line, numbers to the last of their four decimals), and what a resumed run adds to it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use unforget::data::{Dataset, Transform, TransformGroups};
use unforget::evaluation::{
    At, EvaluationPlugin, Logger, accuracy_metrics, forgetting_metrics, loss_metrics,
};
use unforget::logging::{CsvLogger, JsonLinesLogger, TextLogger, every};
use unforget::prelude::*;
use unforget::snapshot::Snapshot;
use unforget::training::{Event, MetricValue};

/// Features and labels by formula, computed in f64 and stored in f32.
fn samples(n: usize, offset: usize) -> Dataset {
    let mut x = Vec::new();
    for i in 0..n {
        for j in 0..6 {
            let wave = (((i + offset) * 7 + 13 * j) % 17) as f64 / 17.0 - 0.5;
            x.push((wave + if j == i % 6 { 0.5 } else { 0.0 }) as f32);
        }
    }
    let y = (0..n).map(|i| (i % 6) as u32).collect();
    Dataset::from_f32("formula", [6, 1, 1], x, y, 6).unwrap()
}

fn benchmark(task_labels: bool) -> Benchmark {
    let transforms = TransformGroups::same(Transform::default());
    NcBenchmark::new(samples(60, 0), samples(24, 5), transforms)
        .n_experiences(3)
        .seed(0)
        .return_task_id(task_labels)
        .build()
        .unwrap()
}

fn strategy(evaluator: EvaluationPlugin, eval_every: Option<usize>, epochs: usize) -> Strategy {
    let mut tape = Tape::new(Device::Cpu).unwrap();
    tape.manual_seed(123);
    let model = SimpleMlp::new(&mut tape, 6, 6, 8, 1, 0.0);
    Der::builder(tape, model, Sgd::new(0.1).momentum(0.9))
        .mem_size(10)
        .batch_size_mem(4)
        .train_mb_size(5)
        .train_epochs(epochs)
        .alpha(0.2)
        .beta(0.5)
        .eval_mb_size(8)
        .eval_every(eval_every)
        .evaluator(evaluator)
        .build()
        .unwrap()
}

/// A line's numbers, and the text around them.
fn apart(line: &str) -> (String, Vec<f64>) {
    let mut numbers = Vec::new();
    let fields = line.split_inclusive([',', ' ']).map(|field| {
        let (text, end) = match field.strip_suffix([',', ' ']) {
            Some(text) => (text, &field[text.len()..]),
            None => (field, ""),
        };
        match text.parse::<f64>() {
            Ok(number) if text.contains('.') => {
                numbers.push(number);
                format!("#{end}")
            }
            _ => field.to_string(),
        }
    });
    let text = fields.collect();
    (text, numbers)
}

#[track_caller]
fn same_lines(found: &str, wanted: &str, what: &str) {
    for (i, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        let ((text, numbers), (text_wanted, numbers_wanted)) = (apart(found), apart(wanted));
        assert_eq!(text, text_wanted, "{what}, line {}", i + 1);
        for (a, b) in numbers.iter().zip(&numbers_wanted) {
            let fits = (a - b).abs() <= 1.001e-4;
            assert!(fits, "{what}, line {}: {found}, expected {wanted}", i + 1);
        }
    }
    assert_eq!(
        found.lines().count(),
        wanted.lines().count(),
        "lines of {what}"
    );
}

fn check(name: &str, eval_every: Option<usize>, epochs: usize, tasks: bool, first: bool) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/loggers")
        .join(name);
    let folder = tempfile::tempdir().unwrap();
    let at = [At::Epoch, At::Experience, At::Stream];
    let evaluator = EvaluationPlugin::new()
        .metrics(accuracy_metrics(&[At::Minibatch]))
        .metrics(accuracy_metrics(&at))
        .metrics(loss_metrics(&at))
        .metrics(forgetting_metrics(&[At::Experience]))
        .logger(TextLogger::file(folder.path().join("log.txt")).unwrap())
        .logger(CsvLogger::new(folder.path()).unwrap());
    let mut strategy = strategy(evaluator, eval_every, epochs);
    let benchmark = benchmark(tasks);
    if first {
        strategy.eval(benchmark.test_stream()).unwrap();
    }
    for experience in benchmark.train_stream() {
        strategy
            .train_with(experience, &[benchmark.test_stream()])
            .unwrap();
        strategy.eval(benchmark.test_stream()).unwrap();
    }
    for file in ["log.txt", "training_results.csv", "eval_results.csv"] {
        let found = fs::read_to_string(folder.path().join(file)).unwrap();
        let mut wanted = fs::read_to_string(golden.join(file)).unwrap();
        if tasks {
            // Here, a metric of a stream with several tasks has no task in its name.
            for metric in ["Loss", "Top1_Acc"] {
                let start = format!("{metric}_Stream/eval_phase/test_stream");
                wanted = wanted.replace(&format!("{start}/Task002"), &start);
            }
        }
        same_lines(&found, &wanted, &format!("{name}/{file}"));
    }
}

#[test]
fn without_evaluation_in_training() {
    check("never", None, 2, false, true);
}

#[test]
fn with_an_evaluation_at_the_end() {
    check("end", Some(0), 2, false, false);
}

#[test]
fn with_an_evaluation_after_each_epoch() {
    check("each", Some(1), 2, false, false);
}

#[test]
fn with_an_evaluation_after_every_second_epoch() {
    check("second", Some(2), 3, false, false);
}

#[test]
fn with_task_labels() {
    check("tasks", Some(1), 1, true, false);
}

/// Loggers that hear only some of a run's events, counted from 0, and note their state after one.
struct Part {
    loggers: Vec<Box<dyn Logger>>,
    hears: Range<usize>,
    notes_after: usize,
    notes: Arc<Mutex<Vec<Snapshot>>>,
    events: usize,
}

impl Logger for Part {
    fn on(&mut self, event: Event, s: &State, values: &[MetricValue]) -> Result<()> {
        for logger in &mut self.loggers {
            if self.hears.contains(&self.events) {
                logger.on(event, s, values)?;
            }
            if self.events == self.notes_after {
                let mut note = Snapshot::default();
                logger.save(&mut note);
                self.notes.lock().unwrap().push(note);
            }
        }
        self.events += 1;
        Ok(())
    }
}

fn loggers(folder: &Path) -> Vec<Box<dyn Logger>> {
    vec![
        Box::new(TextLogger::file(folder.join("log.txt")).unwrap()),
        Box::new(CsvLogger::new(folder).unwrap()),
        Box::new(JsonLinesLogger::new(folder.join("values.jsonl")).unwrap()),
    ]
}

/// Runs everything; returns the notes.
fn run(loggers: Vec<Box<dyn Logger>>, hears: Range<usize>, notes_after: usize) -> Vec<Snapshot> {
    let notes = Arc::default();
    let part = Part {
        loggers,
        hears,
        notes_after,
        notes: Arc::clone(&notes),
        events: 0,
    };
    let at = [At::Epoch, At::Experience, At::Stream];
    let evaluator = EvaluationPlugin::new()
        .metrics(every(3, accuracy_metrics(&[At::Minibatch])))
        .metrics(accuracy_metrics(&at))
        .logger(part);
    let mut strategy = strategy(evaluator, Some(1), 2);
    let benchmark = benchmark(false);
    for experience in benchmark.train_stream() {
        strategy
            .train_with(experience, &[benchmark.test_stream()])
            .unwrap();
        strategy.eval(benchmark.test_stream()).unwrap();
    }
    std::mem::take(&mut *notes.lock().unwrap())
}

/// All files; the text log without the lines that say that it goes on.
fn files(folder: &Path) -> BTreeMap<String, String> {
    (fs::read_dir(folder).unwrap())
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let lines = text
                .split_inclusive('\n')
                .filter(|l| !l.starts_with("[TextLogger] Resuming"));
            (
                path.file_name().unwrap().to_str().unwrap().to_string(),
                lines.collect(),
            )
        })
        .collect()
}

#[test]
fn a_resumed_run_leaves_the_files_of_one_that_was_never_cut() {
    let whole = tempfile::tempdir().unwrap();
    run(loggers(whole.path()), 0..usize::MAX, usize::MAX);
    let wanted = files(whole.path());
    assert_eq!(wanted.len(), 5);
    let iterations = wanted["values.jsonl"]
        .lines()
        .filter(|l| l.contains("Top1_Acc_MB"));
    assert_eq!(iterations.count(), 8, "every third of 24 iterations");
    for noted in [0, 3, 60, 61, 200, 333, 500] {
        let folder = tempfile::tempdir().unwrap();
        let notes = run(loggers(folder.path()), 0..noted + 1 + noted / 2, noted);
        let mut resumed = loggers(folder.path());
        for (logger, note) in resumed.iter_mut().zip(&notes) {
            logger.load(note).unwrap();
        }
        run(resumed, noted + 1..usize::MAX, usize::MAX);
        let log = fs::read_to_string(folder.path().join("log.txt")).unwrap();
        assert_eq!(
            log.matches("Resuming from checkpoint. Current time is 20")
                .count(),
            1
        );
        assert_eq!(files(folder.path()), wanted, "after event {noted}");
    }
}
