//! The program on a GPU, and the emulator that stands in for one: it must catch what a kernel can do
//! wrong, or its green tests mean nothing.

use crate::cuda_emu;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program with the emulated driver in its loader path and this environment.
fn run(folder: &Path, driver: &Path, environment: &[(&str, &str)], line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unforget"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .env("UNFORGET_DATA", folder.join("no-data"))
        .env("XDG_CACHE_HOME", folder.join("no-cache"))
        .env("LD_LIBRARY_PATH", driver)
        .envs(environment.iter().copied())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The iterations and evaluations that a run wrote, and its summary.
fn records(run: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    (lines.lines())
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The same run on the processor and on the GPU, compared loss by loss.
fn same_run_on_both(options: &str) {
    let Some(driver) = cuda_emu::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    for device in ["cpu", "cuda"] {
        let line = format!("train {options} --log-every 1 --device {device} --out {device}");
        let output = run(here, &driver, &[], &line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }
    let (cpu, gpu) = (records(&here.join("cpu")), records(&here.join("cuda")));
    assert_eq!(cpu.len(), gpu.len());
    let mut compared = 0;
    for (a, b) in cpu.iter().zip(&gpu) {
        for key in ["loss", "loss_current", "loss_logits", "loss_replay"] {
            let (Some(a), Some(b)) = (a[key].as_f64(), b[key].as_f64()) else {
                continue;
            };
            assert!(
                (a - b).abs() <= 1e-4,
                "{key}: {a} on the processor, {b} on the GPU"
            );
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} numbers compared");
    let config = fs::read_to_string(here.join("cuda/config.toml")).expect("a configuration");
    assert!(config.contains("device = \"cuda:0\""), "{config}");
}

#[test]
fn der_on_the_gpu_has_the_losses_of_the_processor() {
    same_run_on_both("--n-experiences 2 --momentum 0.9 --train-mb-size 64 --batch-size-mem 32");
}

#[test]
fn dropout_on_the_gpu_drops_what_it_drops_on_the_processor() {
    same_run_on_both("--model simple-mlp --hidden-size 32 --n-experiences 2 --train-mb-size 100");
}

/// What each of them does to the rows of a mini-batch: rows behind, rearranged pixels, other weights, mirror
/// images.
#[test]
fn every_way_to_make_rows_has_the_losses_of_the_processor() {
    same_run_on_both("--mode paper --n-experiences 2 --train-mb-size 64");
    same_run_on_both("--benchmark rotated-mnist --n-experiences 2 --train-mb-size 128");
    same_run_on_both("--strategy mir --n-experiences 2 --train-mb-size 100");
    same_run_on_both("--strategy lwf --n-experiences 2 --train-mb-size 100");
}

/// The host makes the rows where the GPU has no room for the data set, and they are the same.
#[test]
fn a_data_set_that_does_not_fit_stays_on_the_host() {
    let Some(driver) = cuda_emu::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let left = [("roomy", "4000000000"), ("tight", "10000000")];
    let mut gathers = Vec::new();
    let left = left.map(|(name, memory)| {
        let line = format!(
            "train --device cuda --model mlp --n-experiences 2 --train-mb-size 100 --out {name}"
        );
        let environment = [("CUDA_EMU_MEMORY", memory), ("CUDA_EMU_COUNT", "1")];
        let output = run(folder.path(), &driver, &environment, &line);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let count = said
            .lines()
            .find_map(|l| l.strip_prefix("cuda-emu: gather_pixels "));
        gathers.push(count.map_or(0, |n| n.parse().expect("a number")));
        fs::read(folder.path().join(name).join("model.safetensors")).expect("the weights")
    });
    assert!(left[0] == left[1], "two ways to the same rows");
    // The test images are a sixth of the others.
    let [roomy, tight]: [usize; 2] = gathers.try_into().expect("two runs");
    assert!(tight < roomy / 2 && roomy > 100, "{tight} and {roomy}");
}

#[test]
fn a_captured_step_has_the_bits_of_one_that_is_not() {
    let Some(driver) = cuda_emu::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut left = Vec::new();
    for graphs in ["0", "1"] {
        let line = format!(
            "train --device cuda --model simple-mlp --hidden-size 16 --momentum 0.9 \
             --n-experiences 2 --train-mb-size 100 --out {graphs}"
        );
        let environment = [("UNFORGET_CUDA_GRAPHS", graphs), ("CUDA_EMU_COUNT", "1")];
        let output = run(folder.path(), &driver, &environment, &line);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let count = said
            .rsplit_once(", ")
            .and_then(|(_, rest)| rest.split_once(" graphs"));
        let count: usize = count
            .expect("a count of graphs")
            .0
            .parse()
            .expect("a number");
        let passes = said
            .lines()
            .find_map(|l| l.strip_prefix("cuda-emu: gather_pixels "));
        let passes: usize = passes.expect("a count").parse().expect("a number");
        // One for each forward pass; that of a training step holds the backward pass of the step before.
        let wanted = if graphs == "0" {
            0..1
        } else {
            passes * 3 / 4..passes + 1
        };
        assert!(
            wanted.contains(&count),
            "UNFORGET_CUDA_GRAPHS={graphs}: {count} graphs"
        );
        let file = folder.path().join(graphs).join("model.safetensors");
        left.push(fs::read(file).expect("the weights"));
    }
    assert!(
        left[0] == left[1],
        "captured and uncaptured runs leave different weights"
    );
}

#[test]
fn a_precision_is_the_gpus_and_changes_the_losses_a_little() {
    let Some(driver) = cuda_emu::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let train = |options: &str| {
        let line = format!("train --n-experiences 1 --train-mb-size 200 {options}");
        run(folder.path(), &driver, &[], &line)
    };
    let last_loss = |precision: &str| {
        let options = format!("--device cuda --precision {precision} --out {precision}");
        let output = train(&options);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let records = records(&folder.path().join(precision));
        let mut losses = records.iter().filter(|r| r["type"] == "iteration");
        losses.next_back().expect("an iteration")["loss"]
            .as_f64()
            .expect("a loss")
    };
    let full = last_loss("f32");
    for (precision, near) in [("tf32", 1e-2), ("bf16", 5e-2)] {
        let off = (last_loss(precision) - full).abs();
        assert!(
            off > 0.0 && off <= near,
            "{precision}: {off} away from {full}"
        );
    }
    let message = text(&train("--precision tf32").stderr);
    assert!(message.contains("needs a GPU"), "{message}");
    let message = text(&train("--device cuda --precision high").stderr);
    assert!(message.contains("is a CPU's"), "{message}");
}

#[test]
fn whatever_is_missing_is_said_in_one_line() {
    let Some(driver) = cuda_emu::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    for (variable, value, device, wanted) in [
        ("CUDA_EMU_FAIL", "cuInit:100", "cuda", "finds no GPU"),
        ("CUDA_EMU_DEVICES", "0", "cuda", "finds no GPU"),
        ("CUDA_EMU_FAIL", "cuInit:999", "cuda", "CUDA_ERROR_UNKNOWN"),
        (
            "CUDA_EMU_VERSION",
            "11080",
            "cuda",
            "supports CUDA 11.8; 12.0 or later",
        ),
        ("CUDA_EMU_CC", "75", "cuda", "compute capability 7.5; 8.0"),
        ("CUDA_EMU_DEVICES", "1", "cuda:7", "there is only cuda:0"),
        ("CUDA_EMU_DEVICES", "3", "cuda:7", "only cuda:0 to cuda:2"),
        ("CUDA_EMU_MEMORY", "600000", "cuda", "no memory for"),
        (
            "CUDA_EMU_FAIL",
            "cuModuleLoadData:222",
            "cuda",
            "too old for the kernels",
        ),
        (
            "CUDA_EMU_FAIL",
            "cuLaunchKernel:719",
            "cuda",
            "CUDA_ERROR_LAUNCH_FAILED",
        ),
    ] {
        let line = format!("train --device {device} --n-experiences 1");
        let output = run(folder.path(), &driver, &[(variable, value)], &line);
        let message = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{variable}={value}: {message}"
        );
        assert!(
            message.starts_with("error: ") && message.lines().count() == 1,
            "{message}"
        );
        assert!(message.contains(wanted), "{variable}={value}: {message}");
        assert!(
            message.contains("--device c"),
            "what to do instead: {message}"
        );
    }
}

#[test]
fn without_a_driver_it_says_so_and_auto_takes_the_processor() {
    // A machine with a GPU has a driver in the loader's own path.
    // SAFETY: the initialisers of NVIDIA's driver library ask for nothing.
    #[allow(unsafe_code)]
    if unsafe { libloading::Library::new("libcuda.so.1") }.is_ok() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("nowhere");
    let options = "--n-experiences 1 --train-mb-size 500";
    let output = run(
        folder.path(),
        &nowhere,
        &[],
        &format!("train --device cuda {options}"),
    );
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("no NVIDIA driver found"), "{message}");
    let output = run(
        folder.path(),
        &nowhere,
        &[],
        &format!("train --device auto --out a {options}"),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config = fs::read_to_string(folder.path().join("a/config.toml")).expect("a configuration");
    assert!(config.contains("device = \"cpu\""), "{config}");
}

/// The emulator with the kernels of `planted.cu`.
struct Planted {
    _folder: tempfile::TempDir,
    program: PathBuf,
}

impl Planted {
    fn new() -> Option<Self> {
        cuda_emu::folder()?;
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("planted");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let inputs =
            ["emu.cpp", "planted/planted.cpp"].map(|f| root.join("tests/cuda_emu").join(f));
        cuda_emu::compile(&inputs, &[], &program);
        Some(Planted {
            _folder: folder,
            program,
        })
    }

    /// Runs a kernel with the threads in this order.
    fn run(&self, kernel: &str, order: u32) -> Output {
        let mut command = Command::new(&self.program);
        command.args([kernel, &order.to_string()]);
        command.output().expect("the emulator starts")
    }
}

const REVERSED: fn(usize) -> f64 = |i| 63.0 - i as f64;

/// Whether a run ended well and printed 63 .. 0.
fn reverses(output: &Output) -> bool {
    let numbers: Vec<f64> = (text(&output.stdout).split_whitespace())
        .map(|word| word.parse().expect("a number"))
        .collect();
    output.status.success()
        && numbers.len() == 64
        && numbers.iter().enumerate().all(|(i, &x)| x == REVERSED(i))
}

#[test]
fn the_emulator_runs_correct_kernels_in_any_order() {
    let Some(planted) = Planted::new() else {
        return;
    };
    for kernel in ["correct", "correct_copy"] {
        for order in 0..8 {
            let output = planted.run(kernel, order);
            assert!(reverses(&output), "{kernel} in order {order}: {output:?}");
        }
    }
}

#[test]
fn the_emulator_catches_every_planted_bug() {
    let Some(planted) = Planted::new() else {
        return;
    };
    // Wrong numbers, whatever the order; NaN where a number was never written.
    for kernel in ["missing_barrier", "wrong_wait_count", "never_written"] {
        for order in 0..8 {
            let output = planted.run(kernel, order);
            assert!(!reverses(&output), "{kernel} passes in order {order}");
        }
    }
    for kernel in ["missing_barrier", "wrong_wait_count", "never_written"] {
        let output = text(&planted.run(kernel, 0).stdout);
        assert!(output.contains("nan"), "{kernel}: {output}");
    }
    // An end with the name of kernel, block and thread.
    for (kernel, wanted) in [
        ("read_behind", "bad access"),
        ("write_behind", "bad access"),
        ("divergent_barrier", "__syncthreads"),
        ("lane_outside_of_mask", "lacks the lane"),
        ("behind_static_shared", "static shared memory"),
        ("behind_dynamic_shared", "dynamic shared memory"),
    ] {
        let output = planted.run(kernel, 0);
        let message = text(&output.stderr);
        assert!(!output.status.success(), "{kernel} passes");
        assert!(message.contains(wanted), "{kernel}: {message}");
        assert!(
            message.contains(&format!("kernel {kernel}, block (0, 0, 0)")),
            "{message}"
        );
    }
}
