"""Runs `benches/kernels.rs` and `kernels_torch.py` one after the other and writes `benches/results/kernels.csv`.

    python benches/rivals/compare_kernels.py [gemm] [conv] [slim] [--threads 1] [--rounds 2]

Needs PyTorch in the Python it runs under, and cargo. The best of the rounds is kept on both sides. `ratio` is against
the better of PyTorch's two memory formats, and `percent` of what the multipliers do without touching memory: above 100
where Winograd's transforms save multiplications.
"""

import argparse
import json
import subprocess
import sys

from compare import HERE, ROOT, commit, cpu, output, save

RESULTS = ROOT / "benches" / "results" / "kernels.csv"
FIELDS = ("name", "threads", "gflops", "percent", "torch_nchw", "torch_nhwc", "ratio", "isa", "cpu", "commit",
          "version", "torch")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    groups = options.groups or ["gemm", "conv", "slim"]
    subprocess.run(("cargo", "bench", "--bench", "kernels", "--no-run"), cwd=ROOT, check=True)
    rust, processor = "rustc " + output("rustc", "--version").split()[1], cpu()
    revision, best = commit("benches/kernels.rs"), {}
    for _ in range(options.rounds):
        lines = output("cargo", "bench", "-q", "--bench", "kernels", "--", *groups, f"threads={options.threads}", "json")
        ours = [json.loads(line) for line in lines.splitlines()]
        lines = output(sys.executable, str(HERE / "kernels_torch.py"), "--threads", str(options.threads),
                       *(row["name"] for row in ours))
        for own, line in zip(ours, lines.splitlines(), strict=True):
            rival = json.loads(line)
            row = best.setdefault(own["name"], {
                "name": own["name"], "threads": options.threads, "gflops": 0, "isa": own["isa"], "cpu": processor,
                "commit": revision, "version": rust, "torch": rival["torch"]})
            if own["gflops"] > row["gflops"]:
                row |= {"gflops": own["gflops"], "percent": own["percent"]}
            for layout, rate in rival["gflops"].items():
                field = "torch_nhwc" if layout == "nhwc" else "torch_nchw"
                row[field] = max(rate, row.get(field, 0))
    for row in best.values():
        row["ratio"] = round(row["gflops"] / max(row["torch_nchw"], row.get("torch_nhwc", 0)), 2)
        print(f"{row['name']:34} {row['gflops']:7.1f} GFLOP/s  ratio {row['ratio']}", flush=True)
    save(RESULTS, FIELDS, list(best.values()))


if __name__ == "__main__":
    main()
