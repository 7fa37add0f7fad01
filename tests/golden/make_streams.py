"""Class orders, pixel permutations, rotation angles and rotated images of Avalanche's MNIST benchmarks
-> avalanche_streams.json.

    python make_streams.py --mnist DIR
"""

import argparse
import platform
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import torch
import torchvision
from avalanche.benchmarks.classic import PermutedMNIST, RotatedMNIST, SplitMNIST
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


def frozen_transform(experience):
    """The permutation or rotation that Avalanche froze into an experience's dataset."""
    data = experience.dataset
    found = []

    def walk(node):
        groups = getattr(node, "_frozen_transform_groups", None)
        if groups is not None:
            transform = groups["train"].transform
            found.extend(t for t in getattr(transform, "transforms", [transform]) if t is not None)
        for child in getattr(node, "_datasets", []):
            walk(child)
        if hasattr(node, "_flat_data"):
            walk(node._flat_data)

    walk(data)
    (transform,) = {id(t): t for t in found}.values()
    return transform


def permutations(root: str, seed: int) -> list:
    records = []
    for experience in PermutedMNIST(N_PERMUTATIONS, seed=seed, dataset_root=root).train_stream:
        order = frozen_transform(experience).permutation.numpy()
        assert sorted(order) == list(range(784))
        records.append({"first": order[:16].tolist(), "fnv1a64": fnv1a64(order.astype("<u4").tobytes())})
    return records


def angles(root: str, seed: int) -> list:
    found = []
    for experience in RotatedMNIST(N_EXPERIENCES, seed=seed, dataset_root=root).train_stream:
        low, high = frozen_transform(experience).degrees
        assert low == high
        found.append(int(low))
    return found


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
            "class_orders": [list(map(int, SplitMNIST(N_EXPERIENCES, seed=s, dataset_root=root).classes_order))
                             for s in SEEDS],
            "permutations": [permutations(root, s) for s in SEEDS],
            "angles": [angles(root, s) for s in SEEDS],
            "rotated": {
                "mnist_train_0": [rotated(first, a) for a in IMAGE_ANGLES],
                "formula": [rotated(formula, a) for a in IMAGE_ANGLES],
            },
        }
        torch.manual_seed(0)
        RotatedMNIST(1, seed=0, dataset_root=root).train_stream[0].dataset[0]
        after = torch.rand(1).item()
        torch.manual_seed(0)
        drawn = torch.rand(8).tolist().index(after)
    made = provenance("make_streams.py", "common.py", "mnist.py") | {
        "avalanche": "0.6.0", "torchvision": torchvision.__version__, "pillow": pillow_version,
        "numpy": np.__version__, "python": platform.python_version(),
    }
    config = {"seeds": len(SEEDS), "n_experiences": N_EXPERIENCES, "n_permutations": N_PERMUTATIONS}
    write_json(
        HERE / "avalanche_streams.json",
        {"provenance": made, "config": config} | result | {"global_draws_per_rotated_sample": drawn},
    )


if __name__ == "__main__":
    main()
