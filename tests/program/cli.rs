//! The program as its users meet it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unforget"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .env("UNFORGET_DATA", folder.join("no-data"))
        .env("XDG_CACHE_HOME", folder.join("no-cache"))
        .output()
        .expect("the program starts")
}

#[track_caller]
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output in UTF-8")
}

#[track_caller]
fn succeeds(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{line}");
    text(&output.stdout)
}

/// One line on standard error that starts with `error:` and says `wanted`, and exit 1.
#[track_caller]
fn fails(folder: &Path, line: &str, wanted: &str) {
    let output = run(folder, line);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}: {message}");
    assert!(message.starts_with("error: "), "{line}: {message}");
    assert_eq!(message.lines().count(), 1, "{line}: {message}");
    assert!(message.contains(wanted), "{line}: {message}");
}

fn records(run: &Path) -> Vec<serde_json::Value> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn without_arguments_it_trains_reports_and_leaves_a_folder_that_repeats_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let output = succeeds(here, "");
    for word in [
        "DER++",
        "experience 4",
        "class-incremental",
        "forgetting",
        "samples/s",
    ] {
        assert!(output.contains(word), "{word} in {output}");
    }
    assert!(!output.contains('\u{1b}'), "no terminal, no escapes");
    let runs: Vec<_> = fs::read_dir(here.join("runs")).unwrap().collect();
    assert_eq!(runs.len(), 1);
    let first = runs[0].as_ref().unwrap().path();
    assert!(
        fs::read_to_string(first.join("report.html"))
            .unwrap()
            .contains("DER++")
    );

    let lines = records(&first);
    let of = |kind: &str| {
        lines
            .iter()
            .filter(|l| l["type"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of("iteration").len(), of("eval").len(), of("summary").len()),
        (60, 25, 1)
    );
    assert_eq!(of("iteration")[1]["step"], 10);
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["type"], &summary["steps"]),
        (&"summary".into(), &600.into())
    );
    let accuracy = summary["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.6, "DER++ remembers: {accuracy}");

    let config = first.join("config.toml");
    succeeds(
        here,
        &format!("train --config {} --out again --quiet", config.display()),
    );
    let options =
        |path: &Path| toml::from_str::<toml::Table>(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(options(&config), options(&here.join("again/config.toml")));
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
    assert!(
        weights(&first) == weights(&here.join("again")),
        "the same run, the same bits"
    );

    let tested = succeeds(here, &format!("eval --model {}", first.display()));
    let stream = 100.0 * summary["accuracy_stream"].as_f64().unwrap();
    let last = tested.lines().last().unwrap();
    assert!(
        last.contains(&format!("{stream:.2} %")),
        "{last} says {stream}"
    );
}

#[test]
fn loggers_leave_what_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let names = |run: &str| {
        let entries = fs::read_dir(here.join(run)).unwrap();
        let mut names: Vec<_> = (entries)
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    let base = "checkpoint.safetensors config.toml metrics.jsonl model.safetensors report.html";
    succeeds(here, "--n-experiences 2 --loggers none --out none --quiet");
    assert_eq!(names("none"), base);
    succeeds(here, "--n-experiences 2 --loggers text --out text --quiet");
    let log = fs::read_to_string(here.join("text/log.txt")).unwrap();
    assert!(
        log.starts_with("-- >> Start of training phase << --\n"),
        "{log}"
    );
    assert!(
        log.contains("\tTop1_Acc_Stream/eval_phase/test_stream/Task000 = 0."),
        "{log}"
    );

    assert_eq!(succeeds(here, "--n-experiences 2 --out both --quiet"), "");
    assert_eq!(
        names("both"),
        "checkpoint.safetensors config.toml eval_results.csv metrics.csv metrics.jsonl \
         model.safetensors report.html \
         tensorboard training_results.csv"
    );
    let rows = |name: &str| {
        let text = fs::read_to_string(here.join("both").join(name)).unwrap();
        text.lines().map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(rows("training_results.csv").len(), 1 + 2);
    let evaluations = rows("eval_results.csv");
    assert_eq!(evaluations.len(), 1 + 4);
    let forgetting: f64 = evaluations[3].rsplit(',').next().unwrap().parse().unwrap();
    assert!(forgetting > 0.0, "{evaluations:?}");
    let steps = rows("metrics.csv");
    let losses: Vec<_> = steps
        .iter()
        .filter(|row| row.contains(",Loss_MB/"))
        .collect();
    assert_eq!(losses.len(), 60, "every tenth of 600 steps");
    assert!(losses[1].starts_with("10,Loss_MB/train_phase/train_stream/Task000,"));
    let first = records(&here.join("both"))[1]["loss"].as_f64().unwrap();
    let written: f64 = losses[1].rsplit(',').next().unwrap().parse().unwrap();
    assert!((written - first).abs() <= 1e-7 * first, "{written} {first}");
    let events: Vec<_> = fs::read_dir(here.join("both/tensorboard"))
        .unwrap()
        .collect();
    assert_eq!(events.len(), 1);
    let weights = |run: &str| fs::read(here.join(run).join("model.safetensors")).unwrap();
    assert!(weights("both") == weights("none"), "loggers change no bit");
    fails(here, "--loggers none,csv", "--loggers");
}

#[test]
fn options_go_before_the_file_and_the_file_before_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(
        here.join("c.toml"),
        "strategy = \"naive\"\nlr = 0.01\nseed = 7\n",
    )
    .unwrap();
    let line = "train --config c.toml --lr 0.02 --n-experiences 2 --out o --quiet";
    assert_eq!(succeeds(here, line), "", "quiet prints nothing");
    let config: toml::Table =
        toml::from_str(&fs::read_to_string(here.join("o/config.toml")).unwrap()).unwrap();
    assert_eq!(config["strategy"].as_str(), Some("naive"));
    assert_eq!(config["lr"].as_float(), Some(0.02));
    assert_eq!(config["benchmark-seed"].as_integer(), Some(7));
    assert_eq!(config["beta"].as_float(), Some(0.5));
}

#[test]
fn every_strategy_trains() {
    let folder = tempfile::tempdir().unwrap();
    for (strategy, evaluations) in [
        ("cumulative", 4),
        ("joint", 2),
        ("replay", 4),
        ("er-ace", 4),
        ("mir", 4),
        ("icarl", 4),
        ("gdumb", 4),
        ("agem --patterns-per-exp 50 --sample-size 20", 4),
        ("gem --patterns-per-exp 20 --memory-strength 0", 4),
        ("ewc --ewc-lambda 5", 4),
        ("ewc --decay-factor 0.5", 4),
        ("si", 4),
        ("mas --alpha 0.5", 4),
        ("lwf --alpha 1 --temperature 1.5", 4),
        ("from-scratch", 4),
    ] {
        let options = format!("--strategy {strategy} --n-experiences 2 --quiet");
        let strategy = strategy.replace(' ', "");
        let line = format!("{options} --out {strategy}");
        succeeds(folder.path(), &line);
        let lines = records(&folder.path().join(&strategy));
        let count = lines.iter().filter(|l| l["type"] == "eval").count();
        assert_eq!(count, evaluations, "{strategy}");
        assert_eq!(
            lines.last().unwrap()["forgetting"].is_null(),
            strategy == "joint"
        );
    }
}

#[test]
fn the_other_benchmarks_train() {
    let folder = tempfile::tempdir().unwrap();
    for options in [
        "--benchmark permuted-mnist",
        "--benchmark rotated-mnist --rotations-list 0,-45.5",
        "--fixed-class-order 9,8,7,6,5,4,3,2,1,0 --class-ids-from-zero-in-each-exp",
    ] {
        let name = options.len();
        succeeds(
            folder.path(),
            &format!("{options} --n-experiences 2 --out {name} --quiet"),
        );
    }
}

/// The first line of a written configuration names the run's own folder.
fn config_but_its_name(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("config.toml")).unwrap();
    text.lines().skip(1).map(String::from).collect()
}

#[test]
fn workers_change_nothing_and_are_kept_in_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let options = "--n-experiences 2 --train-epochs 2 --quiet --out";
    succeeds(here, &format!("{options} alone"));
    succeeds(
        here,
        &format!("--num-workers 2 --prefetch-factor 3 {options} helped"),
    );
    let [alone, helped] = ["alone", "helped"].map(|run| here.join(run));
    for file in ["model.safetensors", "eval_results.csv"] {
        let read = |run: &Path| fs::read(run.join(file)).unwrap();
        assert!(read(&alone) == read(&helped), "{file} differs");
    }
    let [alone, helped] = [&alone, &helped].map(|run| config_but_its_name(run));
    let new: Vec<&String> = helped.iter().filter(|l| !alone.contains(l)).collect();
    assert_eq!(new, ["num-workers = 2", "prefetch-factor = 3"]);
    fails(
        here,
        "--num-workers 1025",
        "--num-workers: expected at most 1024",
    );
    fails(here, "--num-workers -1", "--num-workers");
    fails(here, "--prefetch-factor 0", "--prefetch-factor");
    // It may be another number when a run goes on.
    succeeds(here, "train --resume helped --num-workers 0 --quiet");
}

#[test]
fn heads_that_grow_are_an_option() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (head, more) in [("incremental", ""), ("multi-head", "--return-task-id")] {
        let options = format!("--head {head} {more} --n-experiences 2 --out {head} --quiet");
        succeeds(here, &options);
        let summary = records(&here.join(head)).pop().unwrap();
        let accuracy = summary["accuracy_stream"].as_f64().unwrap();
        let tested = succeeds(here, &format!("eval --model {head}"));
        let wanted = format!("{:.2} %", 100.0 * accuracy);
        assert!(tested.lines().last().unwrap().contains(&wanted), "{tested}");
    }
    fails(here, "--model mt-simple-mlp --head multi-head", "--head");
}

#[test]
fn a_head_for_each_task_is_trained_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let options = "--model mt-simple-mlp --hidden-size 32 --return-task-id --out heads --quiet";
    succeeds(here, options);
    let summary = records(&here.join("heads")).pop().unwrap();
    let accuracy = summary["accuracy_stream"].as_f64().unwrap();
    assert!(accuracy > 0.5, "{accuracy}");
    let tested = succeeds(here, "eval --model heads");
    let last = tested.lines().last().unwrap();
    assert!(
        last.contains(&format!("{:.2} %", 100.0 * accuracy)),
        "{last} says {accuracy}"
    );
}

#[test]
fn impossible_values_are_one_line_that_names_the_option_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("typo.toml"), "learning-rate = 1").unwrap();
    fs::write(here.join("file"), "in the way").unwrap();
    for (line, wanted) in [
        ("--mem-size -1", "--mem-size"),
        ("--train-mb-size 0", "--train-mb-size"),
        ("--eval-mb-size 0", "--eval-mb-size"),
        ("--lr NaN", "--lr"),
        ("--alpha NaN", "--alpha"),
        ("--train-epochs 0", "--train-epochs"),
        ("--n-experiences 0", "--n-experiences"),
        ("--n-experiences 3", "3"),
        ("--seed -1", "--seed"),
        ("--fixed-class-order 1,1", "class"),
        ("--config missing.toml", "missing.toml"),
        ("--config typo.toml", "learning-rate"),
        ("--data-dir missing", "missing"),
        ("--data full", "unforget data get mnist"),
        ("--out file/below", "file/below"),
        ("eval --model missing.safetensors", "missing.safetensors"),
        ("eval --model file", "safetensors"),
        ("data path mnist", "unforget data get mnist"),
    ] {
        fails(here, line, wanted);
    }
    assert!(!here.join("runs").exists(), "nothing was started");
}

#[test]
fn a_precision_that_this_cpu_lacks_is_computed_in_f32_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = |precision: &str| {
        let options = format!("--precision {precision} --out {precision}");
        let line = format!("train --n-experiences 1 --train-mb-size 300 --threads 1 {options}");
        Command::new(env!("CARGO_BIN_EXE_unforget"))
            .args(line.split_whitespace())
            .current_dir(here)
            .env("UNFORGET_ISA", "avx2")
            .output()
            .expect("the program starts")
    };
    for (precision, missing) in [
        ("bf16", "AVX512-BF16 and AMX"),
        ("high", "AMX"),
        ("f32", ""),
    ] {
        let output = train(precision);
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        if missing.is_empty() {
            assert_eq!(message, "");
        } else {
            let start = format!("warning: precision {precision}: {missing}");
            assert!(message.starts_with(&start), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
    let weights =
        |precision: &str| fs::read(here.join(precision).join("model.safetensors")).unwrap();
    assert!(weights("bf16") == weights("f32") && weights("high") == weights("f32"));
    fails(here, "train --precision tf32", "--precision high");
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "--benchmark split-moon",
        "--strategy magic",
        "--lr fast",
        "--nonsense",
        "data get moon",
    ] {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{line}");
        assert!(text(&output.stderr).starts_with("error: "), "{line}");
    }
    let names = text(&run(folder.path(), "--benchmark split-moon").stderr);
    assert!(names.contains("rotated-mnist"), "{names}");
}

#[test]
fn broken_data_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    fs::create_dir(&data).unwrap();
    let labels = |n: u8, values: &[u8]| [&[0, 0, 8, 1, 0, 0, 0, n][..], values].concat();
    let images = |magic: u8, n: u8, pixels: usize| {
        let mut bytes = vec![0, 0, magic, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28];
        bytes.resize(16 + pixels, 0);
        bytes
    };
    let write = |name: &str, bytes: &[u8]| fs::write(data.join(name), bytes).unwrap();
    let line = "--data-dir d --n-experiences 1";
    write("t10k-images-idx3-ubyte", &images(8, 1, 784));
    write("t10k-labels-idx1-ubyte", &labels(1, &[3]));
    write("train-labels-idx1-ubyte", &labels(2, &[0, 1]));
    write("train-images-idx3-ubyte", &images(8, 2, 784));
    fails(folder.path(), line, "train-images");
    write("train-images-idx3-ubyte", &images(9, 2, 1568));
    fails(folder.path(), line, "train-images");
    write("train-images-idx3-ubyte", &images(8, 2, 1568));
    write("train-labels-idx1-ubyte", &labels(2, &[0, 200]));
    fails(folder.path(), line, "train-labels");
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn an_earlier_run_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mine");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("metrics.jsonl"), "precious").unwrap();
    fails(folder.path(), "--out mine --quiet", "--out");
    assert_eq!(
        fs::read_to_string(out.join("metrics.jsonl")).unwrap(),
        "precious"
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn weights_of_another_network_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeeds(
        here,
        "--n-experiences 1 --hidden-size 8 --out small --quiet",
    );
    succeeds(here, "eval --model small");
    fails(
        here,
        "eval --model small/model.safetensors --n-experiences 1",
        "small/model.safetensors",
    );
    let model = here.join("small/model.safetensors");
    let whole = fs::read(&model).unwrap();
    fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    fails(here, "eval --model small", "model.safetensors");
}

#[test]
fn it_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let version = format!("unforget {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(succeeds(folder.path(), "--version"), version);
    let help = succeeds(folder.path(), "train --help");
    for option in [
        "--mem-size",
        "--batch-size-mem",
        "--benchmark-seed",
        "--config",
        "--quiet",
    ] {
        assert!(help.contains(option), "{option}");
    }
    assert!(succeeds(folder.path(), "data list").contains("fashion-mnist"));
}

/// Two images of each class in CIFAR-10's files.
fn cifar10(dir: &Path) {
    let records = |labels: &[u8]| {
        let record = |&label: &u8| [vec![label], vec![20 * label; 3072]].concat();
        labels.iter().flat_map(record).collect::<Vec<u8>>()
    };
    fs::create_dir_all(dir).unwrap();
    for i in 0..5u8 {
        let name = format!("data_batch_{}.bin", i + 1);
        fs::write(
            dir.join(name),
            records(&[2 * i, 2 * i + 1, 2 * i, 2 * i + 1]),
        )
        .unwrap();
    }
    let all: Vec<u8> = (0..10).collect();
    fs::write(dir.join("test_batch.bin"), records(&all)).unwrap();
}

#[test]
fn other_data_sets_come_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    cifar10(&here.join("no-data/cifar10"));
    assert!(succeeds(here, "data path cifar10").contains("cifar10"));
    let line = "--benchmark split-cifar10 --hidden-size 4 --out run --train-mb-size 2";
    assert!(succeeds(here, line).contains("experience 4"));
    let config = fs::read_to_string(here.join("run/config.toml")).unwrap();
    assert!(config.contains("data = \"full\""), "{config}");
    fails(
        here,
        "--benchmark split-cifar10 --data embedded",
        "full for split-cifar10",
    );
    fails(
        here,
        "--benchmark split-cifar100",
        "unforget data get cifar100",
    );
    fails(
        here,
        "--benchmark split-tinyimagenet",
        "unforget data get tiny-imagenet",
    );
    fails(here, "data get core50", "vlomonaco.github.io/core50");
    assert!(succeeds(here, "data list").contains("not here; get it from"));
}
