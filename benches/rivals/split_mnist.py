"""The whole Split-MNIST run of DER++, in `unforget` and in Avalanche, turn by turn.

    python benches/rivals/split_mnist.py --mnist DIR [--unforget target/release/unforget] [--rounds 3] [--threads 1]

DIR has MNIST's four IDX files, plain or .gz; Avalanche must be installed in this Python. Both do the same 6,001 steps:
784-100-100-10, lr 0.03, 200 stored samples, batches of 10 + 10, alpha 0.2, beta 0.5, one pass over each of the five
experiences, evaluation of the whole test stream after each (accuracy, loss, forgetting), seed 1.

Each run is a process of its own. `wall` and `cpu` are seconds of the whole process; for Avalanche also `run`: reading
the data, training, evaluation and the buffer, without the seconds in which Python imports PyTorch and Avalanche. The
ratios are between the least seconds of each over all rounds.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RATE, MEMORY, BATCH, EVAL_BATCH, ALPHA, BETA, SEED = 0.03, 200, 10, 256, 0.2, 0.5, 1


def avalanche(folder, threads):
    """One run in this process; prints its seconds and its accuracy as JSON."""
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import torch
    from avalanche.benchmarks.classic import SplitMNIST
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
    from avalanche.training import DER
    from avalanche.training.plugins import EvaluationPlugin
    from mnist import dataset_root
    from models import build

    torch.set_num_threads(threads)
    with dataset_root(folder) as root:
        start = time.perf_counter()
        benchmark = SplitMNIST(5, seed=SEED, dataset_root=root)
        torch.manual_seed(SEED)
        model = build("mlp")
        evaluator = EvaluationPlugin(
            accuracy_metrics(experience=True, stream=True), loss_metrics(experience=True, stream=True),
            forgetting_metrics(stream=True), loggers=None,
        )
        strategy = DER(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=RATE), mem_size=MEMORY, train_mb_size=BATCH,
            batch_size_mem=BATCH, alpha=ALPHA, beta=BETA, train_epochs=1, eval_mb_size=EVAL_BATCH, evaluator=evaluator,
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
            found = strategy.eval(benchmark.test_stream)
        seconds = time.perf_counter() - start
    accuracy = found["Top1_Acc_Stream/eval_phase/test_stream/Task000"]
    print(json.dumps({"run": seconds, "accuracy": accuracy, "steps": strategy.clock.train_iterations}))


def timed(command):
    """Runs it; wall and processor seconds of the process, and what it wrote."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": wall, "cpu": cpu}, done.stdout


def ours(program, folder, threads):
    with tempfile.TemporaryDirectory() as out:
        command = [
            program, "train", "--strategy", "der", "--data-dir", folder, "--model", "mlp", "--lr", RATE, "--mem-size",
            MEMORY, "--train-mb-size", BATCH, "--batch-size-mem", BATCH, "--eval-mb-size", EVAL_BATCH, "--alpha", ALPHA,
            "--beta", BETA, "--seed", SEED, "--benchmark-seed", SEED, "--threads", threads, "--out", f"{out}/run",
        ]
        seconds, _ = timed([str(word) for word in command])
        lines = pathlib.Path(out, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    summary = json.loads(lines[-1])
    return seconds | {"accuracy": summary["accuracy_stream"], "steps": summary["steps"]}


def theirs(folder, threads):
    script = str(pathlib.Path(__file__).resolve())
    seconds, text = timed([sys.executable, script, "--mnist", folder, "--threads", str(threads), "--avalanche"])
    return seconds | json.loads(text.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, metavar="DIR")
    parser.add_argument("--unforget", default=str(ROOT / "target" / "release" / "unforget"), metavar="PROGRAM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--avalanche", action="store_true", help="only one run of Avalanche's, in this process")
    options = parser.parse_args()
    if options.avalanche:
        avalanche(options.mnist, options.threads)
        return
    if not pathlib.Path(options.unforget).is_file():
        sys.exit(f"--unforget {options.unforget}: there is no such program; `cargo build --release` makes it")
    if importlib.util.find_spec("avalanche") is None:
        sys.exit(f"{sys.executable} has no Avalanche: pip install avalanche-lib==0.6.0")
    runs = {"unforget": [], "avalanche": []}
    for _ in range(options.rounds):
        runs["unforget"].append(ours(options.unforget, options.mnist, options.threads))
        runs["avalanche"].append(theirs(options.mnist, options.threads))
        for name, rounds in runs.items():
            values = (f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
                      for key, value in rounds[-1].items())
            print(f"{name:10}", *values, sep="  ", flush=True)
    if len({run["steps"] for rounds in runs.values() for run in rounds}) != 1:
        sys.exit("the runs differ in their numbers of steps")

    def least(name, key):
        return min(run[key] for run in runs[name])

    mine = least("unforget", "wall")
    print(f"ratio  whole processes: wall {least('avalanche', 'wall') / mine:.1f}, "
          f"cpu {least('avalanche', 'cpu') / least('unforget', 'cpu'):.1f};  "
          f"Avalanche without imports, unforget's whole process: {least('avalanche', 'run') / mine:.1f}")


if __name__ == "__main__":
    main()
