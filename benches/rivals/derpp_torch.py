"""Steps per second of DER++ in plain eager PyTorch: the rival of this crate's training-step benchmark.

    python derpp_torch.py [--threads 1] [--steps 3000] [--repeats 5]

MLP 784-100-100-10, SGD 0.03, 10 current and 10 replayed rows in one forward pass; data is made beforehand and
replay rows are gathered from a buffer of 200 on every step. Prints JSON with the median and the best.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

ROWS, BUFFER, BATCHES, CLASSES = 10, 200, 64, 10
ALPHA, BETA, LR = 0.2, 0.5, 0.03


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layers = (nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, CLASSES))
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    images, labels = torch.rand(BATCHES, ROWS, 784), torch.randint(0, CLASSES, (BATCHES, ROWS))
    kept, kept_labels = torch.rand(BUFFER, 784), torch.randint(0, CLASSES, (BUFFER,))
    with torch.no_grad():
        kept_logits = model(kept)

    def steps(n: int) -> float:
        start = time.perf_counter()
        for i in range(n):
            at = i % BATCHES
            pick = torch.randint(0, BUFFER, (ROWS,))
            optimizer.zero_grad()
            y = model(torch.cat([kept[pick], images[at]]))
            old, new = y[:ROWS], y[ROWS:]
            loss = F.cross_entropy(new, labels[at])
            loss = loss + ALPHA * F.mse_loss(old, kept_logits[pick]) + BETA * F.cross_entropy(old, kept_labels[pick])
            loss.backward()
            optimizer.step()
        loss.item()
        return n / (time.perf_counter() - start)

    steps(200)
    rates = [steps(options.steps) for _ in range(options.repeats)]
    print(json.dumps({
        "torch": torch.__version__, "threads": options.threads, "steps": options.steps,
        "steps_per_s_median": round(statistics.median(rates), 1), "steps_per_s_best": round(max(rates), 1),
    }))


if __name__ == "__main__":
    main()
