"""A whole R-MNIST run of DER++ in a plain eager PyTorch loop: the rival of `unforget reproduce r-mnist/derpp/500`.

    python rmnist_torch.py --data MNIST [--threads 1] [--tasks 20] [--seed 0]

20 tasks of MNIST turned by an angle uniform in [0, 180), one epoch each of batches of 128, MLP 784-100-100-10, SGD.
Three forward passes a step (current, two independent draws of the buffer), one reservoir over the whole stream, test
on all tasks so far after each. Images are tensors in memory before the clock starts; turning them is a gather. Draws
of the reservoir are made for a whole batch at once. Prints JSON: accuracy, seconds, and processor seconds of the
process (which another load on the machine changes little).
"""

import argparse
import gzip
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SIDE, CLASSES, BATCH = 28, 10, 128


def read(folder: pathlib.Path, name: str) -> torch.Tensor:
    """The array in an IDX file, compressed or not, in `folder` or anywhere below it."""
    path = next(p for p in sorted(folder.rglob(f"{name}*")) if p.is_file())
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        raw = file.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4).astype(int)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def turned(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Images [n, 784], counter-clockwise, nearest pixel, black outside."""
    angle, middle = math.radians(degrees), (SIDE - 1) / 2
    y, x = torch.meshgrid(torch.arange(SIDE) - middle, torch.arange(SIDE) - middle, indexing="ij")
    source_x = (math.cos(angle) * x - math.sin(angle) * y + middle).round().long()
    source_y = (math.sin(angle) * x + math.cos(angle) * y + middle).round().long()
    inside = (source_x >= 0) & (source_x < SIDE) & (source_y >= 0) & (source_y < SIDE)
    source = torch.where(inside, source_y * SIDE + source_x, 0).flatten()
    return images[:, source] * inside.flatten()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--buffer", type=int, default=500)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--beta", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train_x = read(options.data, "train-images").reshape(-1, SIDE * SIDE)
    train_y = read(options.data, "train-labels").long()
    test_x = read(options.data, "t10k-images").reshape(-1, SIDE * SIDE)
    test_y = read(options.data, "t10k-labels").long()
    angles = np.random.RandomState(options.seed).uniform(0, 180, options.tasks)

    layers = [nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, CLASSES)]
    for layer in layers[::2]:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    kept_x = torch.zeros(options.buffer, 784, dtype=torch.uint8)
    kept_y = torch.zeros(options.buffer, dtype=torch.long)
    kept_z = torch.zeros(options.buffer, CLASSES)
    offered = 0

    def draw():
        stored = min(offered, options.buffer)
        return torch.randperm(stored)[:BATCH]

    start, start_cpu, steps = time.perf_counter(), time.process_time(), 0
    tests, row = [], []
    for angle in angles:
        images = turned(train_x, float(angle))
        tests.append(turned(test_x, float(angle)).float() / 255)
        for pick in torch.randperm(len(images)).split(BATCH):
            bytes_, labels = images[pick], train_y[pick]
            optimizer.zero_grad()
            logits = model(bytes_.float() / 255)
            loss = F.cross_entropy(logits, labels)
            if offered:
                at = draw()
                loss = loss + options.alpha * F.mse_loss(model(kept_x[at].float() / 255), kept_z[at])
                at = draw()
                loss = loss + options.beta * F.cross_entropy(model(kept_x[at].float() / 255), kept_y[at])
            loss.backward()
            optimizer.step()
            count = offered + torch.arange(len(pick))
            slots = torch.where(count < options.buffer, count, (torch.rand(len(pick)) * (count + 1)).long())
            for i in torch.nonzero(slots < options.buffer).flatten().tolist():
                slot = slots[i]
                kept_x[slot], kept_y[slot], kept_z[slot] = bytes_[i], labels[i], logits[i].detach()
            offered += len(pick)
            steps += 1
        with torch.no_grad():
            row = [(model(x).argmax(1) == test_y).float().mean().item() * 100 for x in tests]
    print(json.dumps({
        "torch": torch.__version__, "threads": options.threads, "seed": options.seed, "tasks": options.tasks,
        "steps": steps, "accuracy": round(sum(row) / len(row), 2),
        "seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(time.process_time() - start_cpu, 2),
    }))


if __name__ == "__main__":
    main()
