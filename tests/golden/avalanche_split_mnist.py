"""Avalanche's own DER on full Split-MNIST -> avalanche_split_mnist.json.

    python avalanche_split_mnist.py --mnist DIR

The run that the parity test repeats, the same run in f64 (the trajectory without rounding noise) and
in other summation orders (how far Avalanche drifts from itself), and naive fine-tuning.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import torch
from avalanche.benchmarks.classic import SplitMNIST
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
from avalanche.training import DER, Naive
from avalanche.training.plugins import EvaluationPlugin
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from common import HERE, provenance, significant, write_json
from mnist import dataset_root
from models import build

CONFIG = {
    "benchmark": "SplitMNIST", "n_experiences": 5, "benchmark_seed": 1, "seed": 1, "model": "mlp", "lr": 0.03,
    "mem_size": 200, "train_mb_size": 10, "batch_size_mem": 10, "alpha": 0.2, "beta": 0.5, "train_epochs": 1,
    "eval_mb_size": 10,
}
TIMED_RUNS = 3  # the fastest is reported; all must give the same bits
FIRST_LOSSES = 500  # of the whole run
REPLAY_LOSSES = 200  # of experience 1, the first with replay


def leaf_index(data, i: int) -> int:
    """Follow Avalanche's nested subsets and concatenations down to the index in the full dataset."""
    while True:
        if hasattr(data, "_flat_data"):
            data = data._flat_data
        if isinstance(data, torch.utils.data.ConcatDataset):
            assert len(data.datasets) == 1
            data = data.datasets[0]
        elif hasattr(data, "_get_idx"):
            which, i = data._get_idx(i)
            data = data._datasets[which]
        else:
            return i


class Recorder(SupervisedPlugin):
    """Losses of every iteration, the sample indices of each experience's first batches, the buffers."""

    def __init__(self):
        super().__init__()
        self.losses, self.batches, self.buffers, self.seconds = [], [], [], 0.0
        self._fetches = None

    def fetched(self, dataset, indices):
        if self._fetches is not None:
            self._fetches.append([leaf_index(dataset, int(i)) for i in indices])

    def before_training_exp(self, strategy, **_):
        self.losses.append([])
        self._fetches = []
        self._start = time.perf_counter()

    def after_training_iteration(self, strategy, **_):
        self.losses[-1].append(strategy.loss.item())
        if self._fetches is not None:
            current, replay = (self._fetches + [None])[:2]
            self.batches.append({"current": current, "replay": replay})
            self._fetches = None

    def after_training_epoch(self, strategy, **_):
        self.seconds += time.perf_counter() - self._start

    def after_training_exp(self, strategy, **_):
        if isinstance(strategy, DER):
            self.buffers.append(buffer_content(strategy))


def buffer_content(strategy) -> list:
    data = strategy.experience.dataset
    position = {leaf_index(data, i): i for i in range(len(data))}
    assert len(position) == len(data)
    full = strategy.experience.benchmark.golden_train_set
    groups = []
    for label, group in strategy.storage_policy.buffer_groups.items():
        train = [leaf_index(group.buffer, i) for i in range(len(group.buffer))]
        for i, index in enumerate(train):
            x, y, *_ = group.buffer.eval()[i]
            pixels = (full.data[index].float() / 255.0 - 0.1307) / 0.3081
            assert y == label == int(full.targets[index]) and torch.equal(x[0], pixels)
        keys = group._buffer_weights
        decimal = [significant(k) for k in keys.tolist()]
        assert torch.equal(torch.tensor(decimal), keys)
        assert keys.unique().numel() == keys.numel(), "tied keys: order would depend on the sort"
        here = [position[index] for index in train if index in position]
        assert len(here) in (0, len(train))
        group = {"class": label, "train_index": train, "keys": decimal}
        groups.append(group | ({"experience_index": here} if here else {}))
    return groups


class DoublePrecision(torch.nn.Module):
    """The same weights and inputs, everything after them in f64."""

    def __init__(self, model):
        super().__init__()
        self.model = model.double()

    def forward(self, x):
        return self.model(x.double())


def run(root: str, threads: int = 1, kind: str = "der", eval_mb_size: int = CONFIG["eval_mb_size"], double=False) -> dict:
    torch.set_num_threads(threads)
    benchmark = SplitMNIST(CONFIG["n_experiences"], seed=CONFIG["benchmark_seed"], dataset_root=root)
    leaf = benchmark.train_stream[0].dataset
    while not hasattr(leaf, "targets") or hasattr(leaf, "_flat_data") or hasattr(leaf, "_datasets"):
        leaf = (leaf._flat_data if hasattr(leaf, "_flat_data") else leaf)._datasets[0]
    benchmark.golden_train_set = leaf

    torch.manual_seed(CONFIG["seed"])
    model = build(CONFIG["model"])
    if double:
        model = DoublePrecision(model)
    recorder = Recorder()
    evaluator = EvaluationPlugin(
        accuracy_metrics(experience=True, stream=True),
        loss_metrics(experience=True, stream=True),
        forgetting_metrics(stream=True),
        loggers=None,
    )
    common = {
        "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=CONFIG["lr"]),
        "train_mb_size": CONFIG["train_mb_size"], "train_epochs": CONFIG["train_epochs"],
        "eval_mb_size": eval_mb_size, "plugins": [recorder], "evaluator": evaluator,
    }
    if kind == "der":
        replay = {k: CONFIG[k] for k in ("mem_size", "batch_size_mem", "alpha", "beta")}
        strategy = DER(**common, **replay)
    else:
        strategy = Naive(**common)
    if double:
        strategy._make_empty_loss = lambda: torch.zeros(1, dtype=torch.float64)

    fetch = _MapDatasetFetcher.fetch

    def recorded(self, indices):
        recorder.fetched(self.dataset, indices)
        return fetch(self, indices)

    _MapDatasetFetcher.fetch = recorded
    evals, start = [], time.perf_counter()
    try:
        for experience in benchmark.train_stream:
            strategy.train(experience)
            found = strategy.eval(benchmark.test_stream)
            tail = "eval_phase/test_stream/Task000"
            evals.append({
                "accuracy": [found[f"Top1_Acc_Exp/{tail}/Exp{e:03}"] for e in range(CONFIG["n_experiences"])],
                "stream_accuracy": found[f"Top1_Acc_Stream/{tail}"],
                "loss": [significant(found[f"Loss_Exp/{tail}/Exp{e:03}"]) for e in range(CONFIG["n_experiences"])],
                "stream_loss": significant(found[f"Loss_Stream/{tail}"]),
                "stream_forgetting": significant(found["StreamForgetting/eval_phase/test_stream"]),
            })
    finally:
        _MapDatasetFetcher.fetch = fetch
    wall = time.perf_counter() - start
    losses = recorder.losses
    flat = [v for part in losses for v in part]
    return {
        "class_order": list(map(int, benchmark.classes_order)),
        "experiences": [
            {"classes": list(map(int, c)), "train_samples": len(e.dataset), "test_samples": len(t.dataset)}
            for c, e, t in zip(benchmark.original_classes_in_exp, benchmark.train_stream, benchmark.test_stream)
        ],
        "first_batches": recorder.batches,
        "buffers": recorder.buffers,
        "losses": flat,
        "iterations": [len(part) for part in losses],
        "mean_loss": [significant(sum(part) / len(part)) for part in losses],
        "evaluations": evals,
        "time": {
            "wall_s": significant(wall, 4), "train_s": significant(recorder.seconds, 4),
            "train_steps_per_s": significant(len(flat) / recorder.seconds, 4), "threads": threads,
        },
    }


def difference(a: dict, b: dict) -> dict:
    """How far two runs of the same program with the same seed are apart."""
    absolute = [abs(x - y) for x, y in zip(a["losses"], b["losses"])]
    relative = [d / abs(x) for d, x in zip(absolute, a["losses"])]
    replay = slice(a["iterations"][0], a["iterations"][0] + REPLAY_LOSSES)
    last = slice(-100, None)
    mean = [sum(r["losses"][last]) / 100 for r in (a, b)]
    return {
        "first_500": {
            "max_absolute": significant(max(absolute[:FIRST_LOSSES]), 3),
            "max_relative": significant(max(relative[:FIRST_LOSSES]), 3),
            "max_relative_where_loss_above_0.01": significant(
                max(r for r, x in zip(relative[:FIRST_LOSSES], a["losses"]) if x > 0.01), 3),
        },
        "first_200_with_replay": {
            "max_absolute": significant(max(absolute[replay]), 3),
            "max_relative": significant(max(relative[replay]), 3),
        },
        "first_iteration_above_1e-3": next((i for i, r in enumerate(relative) if r > 1e-3), None),
        "max_relative_last_100": significant(max(relative[last]), 3),
        "mean_loss_last_100": [significant(m, 6) for m in mean],
        "same_buffers": a["buffers"] == b["buffers"],
        "final_stream_accuracy": [r["evaluations"][-1]["stream_accuracy"] for r in (a, b)],
        "max_accuracy_difference": significant(max(
            abs(x - y)
            for p, q in zip(a["evaluations"], b["evaluations"])
            for x, y in zip(p["accuracy"] + [p["stream_accuracy"]], q["accuracy"] + [q["stream_accuracy"]])
        ), 4),
    }


def run_elsewhere(folder: str, **environment) -> dict:
    """The same run in a fresh process whose environment changes PyTorch's kernels."""
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--mnist", folder, "--print-run"]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, metavar="DIR", help="folder with MNIST's IDX files")
    parser.add_argument("--print-run", action="store_true", help="one run as JSON on stdout, write nothing")
    options = parser.parse_args()
    with dataset_root(options.mnist) as root:
        reference = run(root)
        if options.print_run:
            print(json.dumps(reference))
            return
        for _ in range(TIMED_RUNS - 1):
            again = run(root)
            assert (again["losses"], again["buffers"]) == (reference["losses"], reference["buffers"])
            reference["time"] = min(reference["time"], again["time"], key=lambda t: t["wall_s"])
        double = run(root, double=True)
        others = {
            "f64": double,
            "two_threads": run(root, threads=2),
            "eval_mb_size_500": run(root, eval_mb_size=500),
        }
        naive = run(root, kind="naive")
    others["avx2_kernels"] = run_elsewhere(
        options.mnist, ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2")
    others["unfused_kernels"] = run_elsewhere(options.mnist, ATEN_CPU_CAPABILITY="default")

    def losses(result: dict, digits: int) -> dict:
        values, at = result["losses"], result["iterations"][0]
        replay = [significant(v, digits) for v in values[at : at + REPLAY_LOSSES]]
        return {
            "losses_first": [significant(v, digits) for v in values[:FIRST_LOSSES]],
            "losses_replay": {"first_iteration": at, "losses": replay},
        }

    drift = {name: difference(reference, other) | {"time": other["time"]} for name, other in others.items()}
    record = {k: v for k, v in reference.items() if k != "losses"} | losses(reference, 9)
    record |= {"drift": drift, "naive": {k: naive[k] for k in ("mean_loss", "evaluations", "time")}}
    record["f64"] = losses(double, 11) | {k: double[k] for k in ("mean_loss", "evaluations")}
    scripts = ("avalanche_split_mnist.py", "common.py", "mnist.py", "models.py")
    made = provenance(*scripts) | {"avalanche": "0.6.0", "python": platform.python_version(), "cpu": cpu_model()}
    path = HERE / "avalanche_split_mnist.json"
    write_json(path, {"provenance": made, "config": CONFIG} | record)


if __name__ == "__main__":
    main()
