"""Runs `benches/steps.rs` and `steps_torch.py` turn by turn and writes `benches/results/steps.csv`.

    python benches/rivals/compare.py [NAME...] [--threads 1] [--rounds 3] [--seconds 3] [--compile] [--autocast]

Needs PyTorch in the Python it runs under, and cargo. Every variant runs once in each round, in a process of its own
(so that peak memory is its own), and the best of its rounds is kept: whatever else the machine does falls on all
alike. `ratio` is steps a second against the better of PyTorch's two memory formats, eager, f32. Rows of other names
or thread counts stay in the file; commit and processor stand in each row.
"""

import argparse
import csv
import json
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "benches" / "results" / "steps.csv"
FIELDS = ("name", "threads", "engine", "variant", "steps_per_s", "ratio", "wall_median_s", "peak_rss_mib",
          "percent_of_peak", "allocations", "cpu", "commit", "version")


def output(*command):
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def commit(bench):
    dirty = output("git", "status", "--porcelain", "--untracked-files=no", "--", "src", bench, "Cargo.lock")
    return output("git", "rev-parse", "--short=12", "HEAD") + ("+" if dirty else "")


def save(path, fields, rows):
    """Writes `rows`, in place of those of the same name and threads that the file has."""
    kept = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            new = {(row["name"], str(row["threads"])) for row in rows}
            kept = [row for row in csv.DictReader(file) if (row["name"], row["threads"]) not in new]
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
    options = parser.parse_args()
    names = options.names or ["mlp-10+10", "mlp-3x128", "simple-cnn-10+10", "slim-resnet18-10+10",
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

    variants = {("unforget", "f32"): ours,
                ("torch", "eager nchw"): torch,
                ("torch", "eager nhwc"): lambda name: torch(name, "--format", "nhwc")}
    if options.compile:
        variants["torch", "compile nhwc"] = lambda name: torch(name, "--format", "nhwc", "--compile")
    if options.autocast:
        variants["torch", "autocast nhwc"] = lambda name: torch(name, "--format", "nhwc", "--autocast")

    processor, revision, rows = cpu(), commit("benches/steps.rs"), []
    for name in names:
        best = {}
        for _ in range(options.rounds):
            for key, run in variants.items():
                row = run(name)
                if key not in best or row["steps_per_s"] > best[key]["steps_per_s"]:
                    best[key] = row
        rival = max(best["torch", v]["steps_per_s"] for v in ("eager nchw", "eager nhwc"))
        for (engine, variant), row in best.items():
            ratio = round(row["steps_per_s"] / rival, 2)
            rows.append({"name": name, "threads": options.threads, "engine": engine, "variant": variant,
                         "steps_per_s": row["steps_per_s"], "ratio": ratio, "wall_median_s": row["wall_median_s"],
                         "peak_rss_mib": row["peak_rss_mib"], "percent_of_peak": row.get("percent", ""),
                         "allocations": row.get("allocations", ""), "cpu": processor, "commit": revision,
                         "version": row["version"]})
            print(f"{name:22} {engine:9} {variant:14} {row['steps_per_s']:10.2f} steps/s  ratio {ratio}", flush=True)

    save(RESULTS, FIELDS, rows)


if __name__ == "__main__":
    main()
