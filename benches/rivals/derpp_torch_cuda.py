"""Microseconds of a step of DER++ in PyTorch on a GPU: the rival of benches/cuda.rs.

    python derpp_torch_cuda.py [--precisions f32,tf32,bf16] [--compile]

The same step: host batch copied over, forward, loss read back, backward, SGD; replayed and current rows in one forward
pass (a+b), or the paper's three passes (a+b+c). Eager; eager with channels last; and the whole step captured as one
CUDA graph (inputs copied into fixed tensors). Before them products and convolutions of cuBLAS and cuDNN. With --compile
nothing but torch.compile, which takes minutes: rows are printed as they come. bf16 is autocast. Prints Markdown tables.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import nn

CLASSES, ALPHA, BETA = 10, 0.2, 0.5


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.skip = nn.Sequential()
        if stride != 1 or inputs != outputs:
            skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip = nn.Sequential(skip, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.norm_a(self.a(x)))
        return F.relu(self.norm_b(self.b(y)) + self.skip(x))


def resnet18():
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for outputs, stride in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]:
        layers.append(Block(width, outputs, stride))
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


def mlp():
    sizes = [784, 100, 100]
    hidden = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(100, CLASSES))


def measure(step):
    for _ in range(10):
        step()
    best = float("inf")
    for _ in range(3):
        torch.cuda.synchronize()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < 0.05:
            step()
            calls += 1
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / calls)
    return best * 1e6


def run(build, groups, each, shape, bf16, channels_last, graph=False, compiled=False):
    """Of two groups the replayed rows come first and go through the model with the others; of three each by itself."""
    torch.manual_seed(0)
    model = build().cuda()
    rows = groups * each
    host = torch.rand(rows, *shape).pin_memory()
    labels = torch.randint(0, CLASSES, (rows,)).pin_memory()
    kept = torch.rand(each, CLASSES).pin_memory()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    x = host.cuda().to(memory_format=layout)
    y, z = labels.cuda(), kept.cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    if compiled:
        model = torch.compile(model)

    def compute():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
            out = [model(part) for part in x.split(each if groups == 3 else rows)]
        if groups == 3:
            (current, logits, replay), (y_current, _, y_replay) = out, y.split(each)
        else:
            logits, current = out[0].split(each)
            replay, (y_replay, y_current) = logits, y.split(each)
        loss = F.cross_entropy(current.float(), y_current) + ALPHA * F.mse_loss(logits.float(), z)
        loss = loss + BETA * F.cross_entropy(replay.float(), y_replay)
        loss.backward()
        optimizer.step()
        return loss

    def copy():
        x.copy_(host, non_blocking=True)
        y.copy_(labels, non_blocking=True)
        z.copy_(kept, non_blocking=True)

    if not graph:
        return measure(lambda: (copy(), compute().item()))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(5):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        loss = compute()
    return measure(lambda: (copy(), captured.replay(), loss.item()))


def kernels(bf16):
    """GFLOP/s of the products and convolutions that benches/cuda.rs times."""
    dtype = torch.bfloat16 if bf16 else torch.float32

    def row(name, multiply_adds, work):
        us = measure(work)
        print(f"| {name} | {us:.1f} | {2 * multiply_adds / us / 1e3:.0f} |", flush=True)

    print("| kernel | µs | GFLOP/s |\n|---|---|---|")
    for n in (256, 512, 1024, 2048, 4096):
        a, b = (torch.rand(n, n, device="cuda", dtype=dtype) for _ in range(2))
        row(f"product {n} x {n} x {n}", n**3, lambda: torch.mm(a, b))
    for c, h in [(64, 32), (128, 16), (256, 8), (512, 4)]:
        x = torch.rand(64, c, h, h, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
        w = torch.rand(c, c, 3, 3, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
        row(f"{c} channels {h}x{h}, forward", x.numel() * 9 * c, lambda: F.conv2d(x, w, padding=1))
    print()


def steps(precision, ways):
    print(f"| step of DER++, {precision} | batch | " + " | ".join(f"{name} µs" for name, _ in ways) + " |")
    print("|---" * (2 + len(ways)) + "|")
    for name, build, shape, sizes in [
        ("MLP 784-100-100-10", mlp, (1, 28, 28), [(2, 10), (2, 32), (3, 32), (2, 128)]),
        ("ResNet-18 (CIFAR)", resnet18, (3, 32, 32), [(2, 32), (3, 32), (2, 128)]),
    ]:
        for groups, each in sizes:
            # Images of one channel lie the same either way.
            times = [
                run(build, groups, each, shape, precision == "bf16", last and build is resnet18, *rest)
                for _, (last, *rest) in ways
            ]
            batch = "+".join([str(each)] * groups)
            print(f"| {name} | {batch} | " + " | ".join(f"{t:.1f}" for t in times) + " |", flush=True)
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", default="f32,tf32,bf16")
    parser.add_argument("--compile", action="store_true", help="time torch.compile and nothing else")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}\n")
    for precision in args.precisions.split(","):
        assert precision in ("f32", "tf32", "bf16"), precision
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        if args.compile:
            steps(precision, [("torch.compile", (True, False, True))])
            continue
        print(f"{precision}:\n")
        kernels(precision == "bf16")
        steps(precision, [("eager", (False,)), ("channels last", (True,)), ("CUDA graph", (True, True))])


if __name__ == "__main__":
    main()
