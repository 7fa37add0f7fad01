"""Microseconds of a step of DER++ in PyTorch on a GPU: the rival of benches/cuda.rs.

    python derpp_torch_cuda.py [--precision f32|tf32|bf16] [--compile]

The same step: host batch copied over, one forward pass of replayed and current rows, loss read back, backward, SGD.
Eager; eager with channels last; and the whole step captured as one CUDA graph (inputs copied into fixed tensors);
with --compile also through torch.compile, which takes minutes to start. Before them products and convolutions
of cuBLAS and cuDNN. bf16 is autocast. Prints Markdown tables.
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
    for _ in range(20):
        step()
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < 0.1:
            step()
            calls += 1
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / calls)
    return best * 1e6


def run(build, rows, shape, bf16, channels_last, graph=False, compiled=False):
    torch.manual_seed(0)
    model = build().cuda()
    host = torch.rand(rows, *shape).pin_memory()
    labels = torch.randint(0, CLASSES, (rows,)).pin_memory()
    kept = torch.rand(rows // 2, CLASSES).pin_memory()
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
            out = model(x)
        out = out.float()
        half = rows // 2
        loss = F.cross_entropy(out[half:], y[half:]) + ALPHA * F.mse_loss(out[:half], z)
        loss = loss + BETA * F.cross_entropy(out[:half], y[:half])
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    args = parser.parse_args()
    bf16 = args.precision == "bf16"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}, {args.precision}\n")
    kernels(bf16)
    ways = [("eager", (False,)), ("channels last", (True,)), ("CUDA graph", (True, True))]
    if args.compile:
        ways.append(("torch.compile", (True, False, True)))
    print("| step of DER++ | batch | " + " | ".join(f"{name} µs" for name, _ in ways) + " |")
    print("|---" * (2 + len(ways)) + "|")
    mnist, cifar = (1, 28, 28), (3, 32, 32)
    for name, build, rows, shape in [
        *[("MLP 784-100-100-10", mlp, rows, mnist) for rows in (20, 64, 256)],
        *[("ResNet-18 (CIFAR)", resnet18, rows, cifar) for rows in (64, 256)],
    ]:
        # Images of one channel lie the same either way.
        times = [run(build, rows, shape, bf16, last and build is resnet18, *rest) for _, (last, *rest) in ways]
        print(f"| {name} | {rows // 2}+{rows // 2} | " + " | ".join(f"{t:.1f}" for t in times) + " |", flush=True)


if __name__ == "__main__":
    main()
