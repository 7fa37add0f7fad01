"""Class orders, pixel permutations, rotation angles and rotated images of Avalanche's MNIST benchmarks
-> mnist_streams.json.

    python make_streams.py --mnist DIR
"""

import argparse
import contextlib
import platform
import unittest.mock
import warnings

warnings.filterwarnings("ignore")

import avalanche.benchmarks.classic.cmnist as cmnist
import numpy as np
import torch
import torchvision
from PIL import Image
from PIL import __version__ as pillow_version
from torchvision.datasets import MNIST
from torchvision.transforms import RandomRotation

from common import HERE, fnv1a64, provenance, write_json
from mnist import dataset_root

SEEDS = range(20)
N_EXPERIENCES = 5
N_PERMUTATIONS = 3
# Two ordinary angles, one below -90, and the quarter turns, which Pillow handles by transposing.
IMAGE_ANGLES = (-8, 47, -133, 0, 90, 180, -90, -180)


def captured(benchmark, n: int, seed: int) -> list:
    """The frozen transforms that Avalanche draws for a benchmark, without building its datasets."""
    groups = []
    replaced = {
        "get_mnist_dataset": lambda _: ("train", "test"),
        "_make_taskaware_classification_dataset": lambda split: split,
        "make_avalanche_dataset": lambda split, frozen_transform_groups: (split, frozen_transform_groups),
        "nc_benchmark": lambda train, *_, **__: groups.extend(g for _, g in train),
    }
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(unittest.mock.patch.object(cmnist, name, value))
        benchmark(n, seed=seed)
    return [group["train"].flat_transforms(0)[0] for group in groups]


def permutations(seed: int) -> list:
    records = []
    for transform in captured(cmnist.PermutedMNIST, N_PERMUTATIONS, seed):
        order = transform.permutation.numpy()
        assert sorted(order) == list(range(784))
        records.append({"first": order[:16].tolist(), "fnv1a64": fnv1a64(order.astype("<u4").tobytes())})
    return records


def angles(seed: int) -> list:
    degrees = [t.degrees for t in captured(cmnist.RotatedMNIST, N_EXPERIENCES, seed)]
    assert all(low == high == int(low) for low, high in degrees)
    return [int(low) for low, _ in degrees]


def rotated(image: Image.Image, angle: int) -> dict:
    pixels = np.asarray(RandomRotation(degrees=(angle, angle))(image))
    assert pixels.shape == (28, 28) and pixels.dtype == np.uint8
    return {"angle": angle, "sum": int(pixels.sum()), "fnv1a64": fnv1a64(pixels.tobytes())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, metavar="DIR", help="folder with MNIST's IDX files")
    options = parser.parse_args()
    y, x = np.mgrid[0:28, 0:28]
    formula = Image.fromarray(((x * 7 + y * 13) % 251).astype(np.uint8))
    with dataset_root(options.mnist) as root:
        first = Image.fromarray(MNIST(root, train=True).data[0].numpy())
        result = {
            "class_orders": [list(map(int, cmnist.SplitMNIST(N_EXPERIENCES, seed=s, dataset_root=root).classes_order))
                             for s in SEEDS],
            "permutations": [permutations(s) for s in SEEDS],
            "angles": [angles(s) for s in SEEDS],
            "rotated": {
                "mnist_train_0": [rotated(first, a) for a in IMAGE_ANGLES],
                "formula": [rotated(formula, a) for a in IMAGE_ANGLES],
            },
        }
    torch.manual_seed(0)
    rotated(first, 47)
    after = torch.rand(1).item()
    torch.manual_seed(0)
    drawn = torch.rand(8).tolist().index(after)
    made = provenance("make_streams.py", "common.py", "mnist.py") | {
        "avalanche": "0.6.0", "torchvision": torchvision.__version__, "pillow": pillow_version,
        "numpy": np.__version__, "python": platform.python_version(),
    }
    config = {"seeds": len(SEEDS), "n_experiences": N_EXPERIENCES, "n_permutations": N_PERMUTATIONS}
    write_json(
        HERE / "mnist_streams.json",
        {"provenance": made, "config": config} | result | {"global_draws_per_rotated_sample": drawn},
    )


if __name__ == "__main__":
    main()
