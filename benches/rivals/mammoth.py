"""A whole R-MNIST run of DER++ in Mammoth, the authors' own framework, timed from outside.

    python mammoth.py --checkout MAMMOTH [--buffer 500] [--seed 0] [--threads 2]

MAMMOTH is a checkout of https://github.com/aimagelab/mammoth with its requirements installed in this Python. Nothing is
fetched here; MNIST is expected where Mammoth keeps it (or Mammoth fetches it itself). Prints JSON: seconds and
processor seconds of the whole command, and the accuracy that Mammoth reports last.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=pathlib.Path, required=True)
    parser.add_argument("--buffer", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    program = options.checkout / "main.py"
    if not program.is_file():
        sys.exit(f"{program}: expected Mammoth's main.py, found none; give the folder of a checkout with --checkout")
    # The authors' best for each buffer: learning rate, alpha, beta.
    best = {200: ("0.1", "1.0", "0.5"), 500: ("0.2", "0.5", "1.0"), 5120: ("0.2", "0.5", "0.5")}
    if options.buffer not in best:
        sys.exit(f"--buffer: expected one of {sorted(best)}, found {options.buffer}")
    lr, alpha, beta = best[options.buffer]
    command = [
        sys.executable, "main.py", "--model", "derpp", "--dataset", "rot-mnist", "--buffer_size", str(options.buffer),
        "--lr", lr, "--alpha", alpha, "--beta", beta, "--batch_size", "128", "--minibatch_size", "128",
        "--n_epochs", "1", "--seed", str(options.seed), "--num_workers", "0", "--non_verbose", "1",
    ]
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads), CUDA_VISIBLE_DEVICES="", WANDB_MODE="disabled")
    start = time.perf_counter()
    done = subprocess.run(command, cwd=options.checkout, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"Mammoth ended with {done.returncode}:\n{done.stderr[-2000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # "Accuracy for 20 task(s): [Domain-IL]: 92.77 %"
    found = re.findall(r"\[Domain-IL\]:\s*([0-9.]+)", done.stdout + done.stderr)
    print(json.dumps({
        "threads": options.threads, "buffer": options.buffer, "seed": options.seed,
        "accuracy": float(found[-1]) if found else None,
        "seconds": round(seconds, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
    }))


if __name__ == "__main__":
    main()
