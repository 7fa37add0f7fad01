"""Runs `benches/steps.rs` and `steps_torch.py` turn by turn and writes `benches/results/steps.csv`.

    python benches/rivals/compare.py [NAME...] [--threads 1] [--rounds 3] [--seconds 3] [--compile] [--autocast]
                                 [--rust]

Needs cargo, and PyTorch in the Python it runs under; `--rust` adds candle and burn, which take ten minutes to
build. A rival that is missing is named and left out. All start from the same weights and batches, and those that
compute in f32 must have our loss in the first step. Every variant runs once in each round, in a process of its own
(so that peak memory is its own), and the best of its rounds is kept: whatever else the machine does falls on all
alike. `ratio` is steps a second against the better of PyTorch's two memory formats, eager, f32. Rows of other names,
thread counts, variants or processors stay in the file; commit and processor stand in each row.
"""

import argparse
import csv
import importlib.util
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "benches" / "results" / "steps.csv"
FIELDS = ("name", "threads", "engine", "variant", "steps_per_s", "ratio", "wall_median_s", "peak_rss_mib",
          "percent_of_peak", "allocations", "cpu", "commit", "version")


# burn's ndarray takes seconds for a step of the slim ResNet-18 and minutes for one of the full size.
TOO_SLOW = {("burn-ndarray", "resnet18-32+32-f32"), ("burn-ndarray", "resnet18-3x32-f32")}


def output(*command, **environment):
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
                          env=os.environ | environment)
    return done.stdout.strip()


def rust_rivals(threads, seconds):
    """What runs each engine of `rust/`, built; nothing, with a note, where it does not build."""
    manifest = HERE / "rust" / "Cargo.toml"
    build = ("cargo", "build", "--release", "--locked", "--manifest-path", str(manifest))
    lines = subprocess.run((*build, "--message-format=json"), stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in lines.stdout.splitlines()]
    program = [m["executable"] for m in messages if m.get("executable")]
    if lines.returncode != 0 or not program:
        print("candle and burn left out: benches/rivals/rust does not build", file=sys.stderr)
        return {}
    packages = tomllib.loads((HERE / "rust" / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    versions = {package["name"]: package["version"] for package in packages}

    def runner(engine, package):
        def run(name):
            line = output(program[0], engine, name, f"seconds={seconds}", RAYON_NUM_THREADS=threads,
                          MATMUL_NUM_THREADS=threads)
            return json.loads(line.splitlines()[-1]) | {"version": f"{package} {versions[package]}"}
        return run

    engines = {"candle": "candle-core", "burn-flex": "burn-flex", "burn-ndarray": "burn-ndarray"}
    return {(engine, "f32"): runner(engine, package) for engine, package in engines.items()}


def same_loss(name, variant, row, ours):
    """Fails where a rival's first step is not ours. Dropout draws other units; autocast rounds."""
    if name.startswith("simple-cnn"):
        return
    tolerance = 2e-2 if variant.startswith("autocast") else 1e-4
    if not math.isclose(row["first_loss"], ours["first_loss"], rel_tol=tolerance):
        sys.exit(f"{name}, {variant}: the first loss is {row['first_loss']}, ours {ours['first_loss']}")


def cpu():
    """The processor, with its family and model: virtual machines call several generations `AMD EPYC`."""
    info = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        field, _, value = line.partition(":")
        info.setdefault(field.strip(), value.strip())
    if "model name" not in info:
        return platform.processor()
    return f"{info['model name']} (family {info.get('cpu family')} model {info.get('model')})"


def commit(bench):
    dirty = output("git", "status", "--porcelain", "--untracked-files=no", "--", "src", bench, "Cargo.lock")
    return output("git", "rev-parse", "--short=12", "HEAD") + ("+" if dirty else "")


def save(path, fields, rows):
    """Writes `rows`, in place of those that the file has for the same thing."""
    kept = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            same = [field for field in ("name", "threads", "engine", "variant", "cpu") if field in fields]
            new = {tuple(str(row[field]) for field in same) for row in rows}
            kept = [row for row in csv.DictReader(file) if tuple(row[field] for field in same) not in new]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fields, lineterminator="\n")
        table.writeheader()
        table.writerows(kept + rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--autocast", action="store_true", help="bfloat16 autocast as well")
    parser.add_argument("--rust", action="store_true", help="candle and burn as well (benches/rivals/rust)")
    options = parser.parse_args()
    names = options.names or ["mlp-10+10", "mlp-10+10-noise", "mlp-3x128", "simple-cnn-10+10", "slim-resnet18-10+10",
                              "resnet18-32+32-f32", "resnet18-3x32-f32"]
    subprocess.run(("cargo", "bench", "--bench", "steps", "--no-run"), cwd=ROOT, check=True)
    rust = output("rustc", "--version").split()[1]
    threads, seconds = str(options.threads), str(options.seconds)

    def ours(name):
        line = output("cargo", "bench", "-q", "--bench", "steps", "--", name, f"threads={threads}",
                      f"seconds={seconds}", "json")
        return json.loads(line.splitlines()[-1]) | {"version": f"rustc {rust}"}

    def torch(name, *flags):
        line = output(sys.executable, str(HERE / "steps_torch.py"), name, "--threads", threads, "--seconds", seconds,
                      *flags)
        row = json.loads(line.splitlines()[-1])
        return row | {"version": f"torch {row['torch']}"}

    variants = {("unforget", "f32"): ours}
    if importlib.util.find_spec("torch") is None:
        print("PyTorch left out: this Python has none", file=sys.stderr)
    else:
        variants["torch", "eager nchw"] = torch
        variants["torch", "eager nhwc"] = lambda name: torch(name, "--format", "nhwc")
        if options.compile:
            variants["torch", "compile nhwc"] = lambda name: torch(name, "--format", "nhwc", "--compile")
        if options.autocast:
            variants["torch", "autocast nhwc"] = lambda name: torch(name, "--format", "nhwc", "--autocast")
    if options.rust:
        variants |= rust_rivals(threads, seconds)

    processor, revision = cpu(), commit("benches/steps.rs")
    for name in names:
        best, rows = {}, []
        for _ in range(options.rounds):
            for key, run in variants.items():
                if (key[0], name) in TOO_SLOW:
                    continue
                row = run(name)
                same_loss(name, key[1], row, best.get(("unforget", "f32"), row))
                if key not in best or row["steps_per_s"] > best[key]["steps_per_s"]:
                    best[key] = row
        eager = [row["steps_per_s"] for (_, variant), row in best.items() if variant.startswith("eager")]
        for (engine, variant), row in best.items():
            ratio = round(row["steps_per_s"] / max(eager), 3) if eager else ""
            rows.append({"name": name, "threads": options.threads, "engine": engine, "variant": variant,
                         "steps_per_s": row["steps_per_s"], "ratio": ratio, "wall_median_s": row["wall_median_s"],
                         "peak_rss_mib": row["peak_rss_mib"], "percent_of_peak": row.get("percent", ""),
                         "allocations": row.get("allocations", ""), "cpu": processor, "commit": revision,
                         "version": row["version"]})
            print(f"{name:22} {engine:12} {variant:14} {row['steps_per_s']:10.2f} steps/s  ratio {ratio}", flush=True)
        save(RESULTS, FIELDS, rows)


if __name__ == "__main__":
    main()
