"""The products and convolutions of `benches/kernels.rs` in PyTorch.

    python kernels_torch.py [--threads 1] NAME...

A name is one of those that `kernels.rs` prints: `gemm NN 20 x 100 x 784` (rows, columns, terms; T: stored transposed)
or `forward n=32 64->128 @32 3x3 /2` (or `data`, `weight`). Prints a line of JSON for each: GFLOP/s in PyTorch's own
order of axes and channels last, padding counted, by the least wall time: the clock of a thread stands still at times
on a virtual machine.
"""

import argparse
import json
import re
import time

import torch

GEMM = re.compile(r"gemm ([NT])([NT]) (\d+) x (\d+) x (\d+)")
CONV = re.compile(r"(forward|data|weight) n=(\d+) (\d+)->(\d+) @(\d+) (\d+)x\d+ /(\d+)")


def least(call, seconds=0.25):
    clock = time.perf_counter
    call()
    start = clock()
    call()
    batch = max(1, round(1e-4 / max(clock() - start, 1e-9)))
    best, begin = float("inf"), clock()
    while clock() - begin < seconds:
        start = clock()
        for _ in range(batch):
            call()
        best = min(best, (clock() - start) / batch)
    return best


def gemm(a_order, b_order, m, n, k):
    a = torch.rand(k, m).t() if a_order == "T" else torch.rand(m, k)
    b = torch.rand(n, k).t() if b_order == "T" else torch.rand(k, n)
    out = torch.empty(m, n)
    return {"any": lambda: torch.mm(a, b, out=out)}, 2 * m * n * k


def conv(which, n, inputs, outputs, size, kernel, stride):
    mask = {"data": [True, False, False], "weight": [False, True, False]}

    def call(layout):
        x = torch.rand(n, inputs, size, size).contiguous(memory_format=layout)
        w = torch.rand(outputs, inputs, kernel, kernel).contiguous(memory_format=layout)
        pad = kernel // 2
        y = torch.conv2d(x, w, stride=stride, padding=pad)
        if which == "forward":
            return lambda: torch.conv2d(x, w, stride=stride, padding=pad)
        return lambda: torch.ops.aten.convolution_backward(
            y, x, w, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, mask[which])

    side = (size + 2 * (kernel // 2) - kernel) // stride + 1
    calls = {"nchw": call(torch.contiguous_format), "nhwc": call(torch.channels_last)}
    return calls, 2 * n * side * side * inputs * outputs * kernel * kernel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        for name in options.names:
            if match := GEMM.fullmatch(name):
                calls, flops = gemm(*match.groups()[:2], *map(int, match.groups()[2:]))
            elif match := CONV.fullmatch(name):
                calls, flops = conv(match[1], *map(int, match.groups()[1:]))
            else:
                parser.error(f"there is no kernel {name!r}")
            rates = {layout: round(flops / least(call) / 1e9, 1) for layout, call in calls.items()}
            print(json.dumps({"name": name, "torch": torch.__version__, "gflops": rates}), flush=True)


if __name__ == "__main__":
    main()
