//! Grids of runs from the outside: killed, taken up, divided.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unforget"));
    command
        .args(line.split_whitespace())
        .current_dir(folder)
        .env("UNFORGET_DATA", folder.join("no-data"))
        .env("XDG_CACHE_HOME", folder.join("no-cache"));
    command
}

fn run(folder: &Path, line: &str) -> Output {
    command(folder, line).output().expect("the program starts")
}

#[track_caller]
fn succeeds(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The finished runs and what was written of them.
fn records(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.join("runs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "json") {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// The table that ends the output: it holds no times.
#[track_caller]
fn table(output: &str) -> String {
    let start = output.find("cell ").expect("a table");
    output[start..].to_string()
}

const CELLS: &str = "reproduce s-mnist/sgd s-mnist/er/200 s-mnist/der/200 s-mnist/derpp/500 \
                     --data embedded --seeds 3 --jobs 2";

#[test]
fn killed_ten_times_it_loses_no_finished_run_and_ends_with_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let start = Instant::now();
    let whole = succeeds(here, &format!("{CELLS} --out whole"));
    let took = start.elapsed();
    let out = here.join("cut");
    let mut before: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut cut_in_the_middle = 0;
    for kill in 0..10_u32 {
        let mut child = command(here, &format!("{CELLS} --out cut"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Moments all over the first part of the time that the whole takes: ten of them together
        // leave something to do for the last call.
        let share = f64::from(kill * 7 % 10 + 1) / 60.0;
        std::thread::sleep(Duration::from_secs_f64(share * took.as_secs_f64()));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = records(&out);
        for (path, bytes) in &before {
            let name = path.display();
            assert_eq!(
                now.get(path),
                Some(bytes),
                "{name} was finished before kill {kill}"
            );
        }
        for (path, bytes) in &now {
            let parsed: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
            assert!(parsed.is_ok(), "{} after kill {kill}", path.display());
        }
        cut_in_the_middle += u32::from((1..12).contains(&now.len()));
        before = now;
    }
    assert!(
        cut_in_the_middle > 0,
        "all kills came before or after all runs"
    );
    let last = succeeds(here, &format!("{CELLS} --out cut"));
    let done = format!("{} done before", before.len());
    assert!(last.contains(&done), "{last}");
    assert_eq!(table(&last), table(&whole));
    assert_eq!(records(&out).len(), 12);
    for (path, bytes) in &before {
        assert_eq!(&fs::read(path).unwrap(), bytes, "done once");
    }
}

#[test]
fn a_record_says_everything_about_its_run_and_the_page_about_all() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let line = "reproduce s-mnist/der/200 --data embedded --seeds 1 --out r --markdown R.md";
    let output = succeeds(here, line);
    assert!(output.contains("84.55 ± 1.64"), "{output}");
    let bytes = fs::read(here.join("r/runs/s-mnist/der/200/seed-0.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(record["benchmark"], "s-mnist");
    assert_eq!(
        (&record["buffer"], &record["seed"]),
        (&200.into(), &0.into())
    );
    assert_eq!(record["config"]["mode"], "paper");
    let rows = record["rows"].as_array().unwrap();
    let lengths: Vec<_> = rows.iter().map(|r| r.as_array().unwrap().len()).collect();
    assert_eq!(lengths, [1, 2, 3, 4, 5]);
    let last: Vec<f64> = serde_json::from_value(rows[4].clone()).unwrap();
    let mean = last.iter().sum::<f64>() / 5.0;
    let accuracy = record["accuracy"].as_f64().unwrap();
    assert!((accuracy - mean).abs() <= 1e-9, "{accuracy} for {mean}");
    // On the tenth of the data it still learns: chance is 10, forgetting all but the last task 20.
    assert!((50.0..100.0).contains(&accuracy), "{accuracy}");
    assert_eq!(record["steps"], 600);
    let page = fs::read_to_string(here.join("R.md")).unwrap();
    for part in [
        "cannot be compared",
        "## r-mnist",
        "| 5120 | DER++ |",
        "not run here",
        "unforget reproduce s-mnist/der/200 --seeds 1",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
}

#[test]
fn mistakes_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (line, wanted) in [
        ("reproduce r-mnist/dre", "r-mnist/dre"),
        (
            "reproduce s-tiny-imagenet --seeds 1",
            "unforget data get tiny",
        ),
        ("reproduce s-mnist/sgd --shard 3/2", "--shard"),
        ("reproduce s-mnist/sgd --seeds 1", "unforget data get mnist"),
        ("sweep no-such-grid.toml", "no-such-grid.toml"),
    ] {
        let output = run(folder.path(), line);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {message}");
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
        assert!(message.contains(wanted), "{line}: {message}");
    }
}
