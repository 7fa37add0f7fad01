//! The progress bars, on a terminal and elsewhere. A terminal is made by `script` (util-linux).

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use unforget::data::TransformGroups;
use unforget::prelude::*;

const COLUMNS: usize = 100;

/// Makes an iteration last long enough for the bar to be seen.
struct Slow;

impl Plugin for Slow {
    fn before_forward(&mut self, _: &mut State) -> Result<()> {
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    }

    fn before_eval_forward(&mut self, _: &mut State) -> Result<()> {
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    }
}

/// A program for the tests below: two epochs of 40 iterations and an evaluation of 20.
#[test]
#[ignore = "run by the other tests, on a terminal of their own"]
fn a_run_with_the_interactive_logger() {
    let data = |n: usize| {
        let labels = (0..n as u32).map(|i| i % 2).collect();
        Dataset::from_u8("dots", [1, 1, 4], vec![7; n * 4], labels, 2).unwrap()
    };
    let benchmark = NcBenchmark::new(data(80), data(40), TransformGroups::default());
    let benchmark = benchmark.n_experiences(1).build().unwrap();
    let mut tape = Tape::new(Device::Cpu).unwrap();
    let model = Mlp::new(&mut tape, &[4, 2]);
    let mut strategy = Naive::builder(tape, model, Sgd::new(0.01))
        .train_mb_size(2)
        .train_epochs(2)
        .eval_mb_size(2)
        .evaluator(default_evaluator())
        .plugin(Slow)
        .build()
        .unwrap();
    strategy.train(benchmark.train_stream()).unwrap();
    strategy.eval(benchmark.test_stream()).unwrap();
}

/// The command line of that program.
fn logger() -> String {
    let program = std::env::current_exe().unwrap();
    let name = "progress::a_run_with_the_interactive_logger";
    format!("{} --exact {name} --ignored --nocapture", program.display())
}

fn shell(line: &str) -> Output {
    let output = Command::new("sh").args(["-c", line]).output();
    output.expect("a shell")
}

/// What a terminal of so many columns is sent, and how long it took; `None` if there is no `script`, which
/// `UNFORGET_REQUIRE=terminal` makes an error.
fn on_terminal(line: &str, columns: usize) -> Option<(String, Duration)> {
    if !shell("command -v script").status.success() {
        let required = std::env::var("UNFORGET_REQUIRE").unwrap_or_default();
        assert!(!required.contains("terminal"), "there is no `script`");
        eprintln!("skipped: there is no `script` to make a terminal with");
        return None;
    }
    let start = Instant::now();
    let line = format!("script -qec 'stty cols {columns} rows 30; {line}' /dev/null </dev/null");
    let output = shell(&line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    Some((text, start.elapsed()))
}

/// The lines as they were drawn one over the other, without colours and movements.
fn drawn(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            // `ESC [ ... letter`; whatever moves or erases begins a new line here.
            let letter = rest.by_ref().skip(1).find(char::is_ascii_alphabetic);
            if letter != Some('m') {
                plain.push('\n');
            }
        } else {
            plain.push(c);
        }
    }
    let lines = plain.split(['\r', '\n']).map(str::trim_end);
    lines.filter(|l| !l.is_empty()).map(String::from).collect()
}

/// The bars among the lines; none is too long, and they come no oftener than the eye can follow.
fn bars(text: &str, took: Duration, columns: usize) -> Vec<String> {
    let lines = drawn(text);
    for line in &lines {
        assert!(line.chars().count() <= columns, "{line:?}");
    }
    let bars: Vec<String> = lines.into_iter().filter(|l| l.contains("%|")).collect();
    // 20 a second, and at the beginning and end of each.
    let most = 20.0 * took.as_secs_f64() + 40.0;
    assert!(
        (bars.len() as f64) <= most,
        "{} bars in {took:?}",
        bars.len()
    );
    bars
}

/// The seconds left that a bar tells.
fn seconds_left(bar: &str) -> f64 {
    let inside = bar.split_once('[').expect("figures").1;
    let eta = inside.split(',').next().unwrap_or_default();
    let seconds = eta.strip_suffix('s').and_then(|s| s.parse().ok());
    seconds.unwrap_or_else(|| panic!("{bar}"))
}

#[test]
fn the_interactive_logger_draws_bars_between_its_lines() {
    let Some((text, took)) = on_terminal(&logger(), COLUMNS) else {
        return;
    };
    let bars = bars(&text, took, COLUMNS);
    for (name, length) in [
        ("train 0, epoch 1/2", 40),
        ("train 0, epoch 2/2", 40),
        ("eval 0", 20),
    ] {
        let own: Vec<&String> = bars.iter().filter(|bar| bar.starts_with(name)).collect();
        assert!(own.len() >= 3, "{name}: {own:?}");
        assert!(own.iter().all(|bar| bar.contains(&format!("/{length} ["))));
        let middle = own[own.len() / 2];
        assert!(middle.contains("it/s]") && middle.contains('█'), "{middle}");
        assert!(seconds_left(middle) <= 5.0, "{middle}");
        // Counts rise, and the last drawing is not long before the end: an iteration takes at least 10 ms,
        // 50 ms after a drawing comes the next, and the terminal may skip one.
        let count = |bar: &str| -> usize {
            let count = bar.rsplit_once("| ").expect("a count").1;
            count.split('/').next().unwrap().parse().unwrap()
        };
        let counts: Vec<usize> = own.iter().map(|bar| count(bar)).collect();
        assert!(counts.is_sorted(), "{own:?}");
        let done = counts[counts.len() - 1];
        assert!((length - 10..=length).contains(&done), "{own:?}");
    }
    // Whole lines of text stand between the bars, and the last bar is erased.
    let lines = drawn(&text);
    for wanted in ["-- >> Start of training phase << --", "Epoch 1 ended."] {
        assert!(
            lines.iter().any(|line| line == wanted),
            "{wanted}: {lines:?}"
        );
    }
    let end = text.rsplit("%|").next().unwrap();
    assert!(end.contains("\x1b[2K"), "{end:?}");
}

#[test]
fn elsewhere_the_interactive_logger_writes_text_alone() {
    let output = shell(&logger());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Epoch 1 ended."), "{text}");
    assert!(
        !text.contains(['\r', '\x1b']) && !text.contains("%|"),
        "{text:?}"
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// A run of three epochs of 600 steps.
fn run(options: &str, folder: &std::path::Path) -> String {
    let program = env!("CARGO_BIN_EXE_unforget");
    let out = folder.display();
    format!(
        "{program} train --n-experiences 1 --train-epochs 3 --hidden-size 300 --out {out}/run {options}"
    )
}

#[test]
fn the_program_draws_a_bar_with_the_loss_and_the_time_left() {
    let folder = tempfile::tempdir().unwrap();
    let Some((text, took)) = on_terminal(&run("", folder.path()), COLUMNS) else {
        return;
    };
    let bars = bars(&text, took, COLUMNS);
    // The first drawing of each epoch knows nothing yet.
    let running: Vec<&String> = bars.iter().filter(|bar| !bar.contains(" 0/600 ")).collect();
    assert!(running.len() >= 6, "{bars:?}");
    for bar in running {
        assert!(
            bar.starts_with("exp 0, epoch ") && bar.contains("it/s"),
            "{bar}"
        );
        assert!(bar.contains(", loss "), "{bar}");
        assert!(seconds_left(bar) <= 60.0, "{bar}");
    }
    let end = text.rsplit("%|").next().unwrap();
    assert!(
        end.contains("\x1b[2K") && end.contains("written to"),
        "{end:?}"
    );
}

#[test]
fn on_a_narrow_terminal_there_are_share_and_time_left() {
    let folder = tempfile::tempdir().unwrap();
    let Some((text, _)) = on_terminal(&run("", folder.path()), 40) else {
        return;
    };
    let lines = drawn(&text);
    let bars: Vec<&String> = lines.iter().filter(|l| l.starts_with("exp ")).collect();
    assert!(bars.len() >= 3, "{lines:?}");
    assert!(bars.iter().all(|bar| bar.chars().count() <= 40), "{bars:?}");
    assert!(bars.iter().all(|bar| bar.contains("% ")), "{bars:?}");
}

#[test]
fn a_quiet_run_and_a_run_into_a_pipe_draw_nothing() {
    let folder = tempfile::tempdir().unwrap();
    if let Some((text, _)) = on_terminal(&run("--quiet", folder.path()), COLUMNS) {
        assert_eq!(text, "");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = shell(&run("", folder.path()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("written to") && !text.contains(['\r', '\x1b']),
        "{text:?}"
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
