"""MNIST's four IDX files where torchvision (hence Avalanche) finds them without a download."""

import contextlib
import gzip
import pathlib
import tempfile

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@contextlib.contextmanager
def dataset_root(folder: str):
    """A temporary dataset root holding the files of `folder`, which may be plain or .gz."""
    with tempfile.TemporaryDirectory() as root:
        raw = pathlib.Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for name in FILES:
            plain, packed = pathlib.Path(folder) / name, pathlib.Path(folder) / f"{name}.gz"
            if not plain.exists() and not packed.exists():
                raise SystemExit(f"--mnist {folder}: neither {name} nor {name}.gz is there")
            (raw / name).write_bytes(plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes()))
        yield root
