"""The steps of `benches/steps.rs` in PyTorch: the same networks, batches, loss and update.

    python steps_torch.py NAME... [--threads 1] [--seconds 5] [--format nchw|nhwc] [--compile] [--autocast]

Prints a line of JSON for each name: steps a second by the least processor time of the thread (on several threads:
by the least wall time), the median of wall time, the most memory the process has had, the loss of the first step.
Weights and batches are those of `benches/steps.rs`, so without dropout that loss is too. Batches lie ready as tensors
and replay rows already stand in front of the current ones. Where the batch is in three parts, each has a forward pass
of its own, as in the authors' code, so that batch normalisation sees the parts one by one; the MLP, which has none,
takes them in one pass.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

CLASSES, ALPHA, BETA, LR, BATCHES = 10, 0.2, 0.5, 1e-3, 8


class Block(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet(width):
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        for i in range(2):
            layers.append(Block(inputs, width << stage, 2 if stage > 0 and i == 0 else 1))
            inputs = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


def mlp():
    sizes = (nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, CLASSES))
    return nn.Sequential(nn.Flatten(), *sizes)


def simple_cnn():
    def conv(*args, **kwargs):
        return nn.Conv2d(*args, **kwargs), nn.ReLU()

    return nn.Sequential(
        *conv(3, 32, 3, padding=1), *conv(32, 32, 3), nn.MaxPool2d(2), nn.Dropout(0.25),
        *conv(32, 64, 3, padding=1), *conv(64, 64, 3), nn.MaxPool2d(2), nn.Dropout(0.25),
        *conv(64, 64, 1), nn.AdaptiveMaxPool2d(1), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(64, CLASSES),
    )


# Network, image, rows of each part, a forward pass for each part.
STEPS = {
    "mlp-10+10": (mlp, (1, 28, 28), (10, 10), False),
    "mlp-3x128": (mlp, (1, 28, 28), (128, 128, 128), False),
    "simple-cnn-10+10": (simple_cnn, (3, 32, 32), (10, 10), False),
    "slim-resnet18-10+10": (lambda: resnet(20), (3, 32, 32), (10, 10), False),
    "resnet18-32+32-f32": (lambda: resnet(64), (3, 32, 32), (32, 32), False),
    "resnet18-3x32-f32": (lambda: resnet(64), (3, 32, 32), (32, 32, 32), True),
}


def peak_memory():
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return float("nan")


def measure(name, options):
    build, image, parts, apart = STEPS[name]
    torch.manual_seed(0)
    model, n = build(), sum(parts)
    channels_last = options.format == "nhwc"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        model = model.to(memory_format=layout)
    forward = torch.compile(model) if options.compile else model
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    batches = []
    torch.manual_seed(1)
    for i in range(BATCHES):
        x = (2 * torch.rand(n, *image) - 1).contiguous(memory_format=layout)
        batches.append((x, (torch.arange(n) * 7 + i) % CLASSES, 2 * torch.rand(n, CLASSES) - 1))
    done = 0

    def step():
        nonlocal done
        x, labels, kept = batches[done % BATCHES]
        done += 1
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.autocast):
            if apart:
                y = torch.cat([forward(part) for part in x.split(parts)])
            else:
                y = forward(x)
        y = y.float()
        if len(parts) == 2:
            old = new = parts[0]
            loss = F.cross_entropy(y[new:], labels[new:])
            loss = loss + ALPHA * F.mse_loss(y[:old], kept[:old]) + BETA * F.cross_entropy(y[:old], labels[:old])
        else:
            a, b = parts[0], parts[0] + parts[1]
            loss = F.cross_entropy(y[:a], labels[:a])
            loss = loss + ALPHA * F.mse_loss(y[a:b], kept[a:b]) + BETA * F.cross_entropy(y[b:], labels[b:])
        loss.backward()
        optimizer.step()
        return loss

    first_loss = step().item()
    step()
    step()
    start = time.perf_counter()
    step()
    batch = max(1, round(1e-3 / (time.perf_counter() - start)))
    least, walls, start = float("inf"), [], time.perf_counter()
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    while time.perf_counter() - start < options.seconds or len(walls) < 3:
        wall, cpu = time.perf_counter(), clock()
        for _ in range(batch):
            loss = step()
        least = min(least, (clock() - cpu) / batch)
        walls.append((time.perf_counter() - wall) / batch)
    assert loss.isfinite(), loss
    print(json.dumps({
        "name": name, "threads": options.threads, "format": options.format, "compile": options.compile,
        "autocast": options.autocast, "torch": torch.__version__, "steps_per_s": round(1 / least, 3),
        "wall_median_s": round(statistics.median(walls), 6), "peak_rss_mib": round(peak_memory(), 1),
        "first_loss": first_loss,
    }), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--format", choices=("nchw", "nhwc"), default="nchw")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--autocast", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.names or STEPS:
        measure(name, options)


if __name__ == "__main__":
    main()
