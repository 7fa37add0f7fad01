"""Helpers shared by the golden scripts: hashes, the formula input, provenance."""

import hashlib
import json
import math
import pathlib

import numpy as np
import torch

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
HERE = pathlib.Path(__file__).resolve().parent


def fnv1a64(data: bytes) -> str:
    """FNV-1a, 64 bits, over raw bytes; 16 lower-case hex digits."""
    h = FNV_OFFSET
    for byte in data:
        h = ((h ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def f32_bytes(tensor: torch.Tensor) -> bytes:
    """The tensor's values in row-major order as little-endian f32."""
    return tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes()


def formula_input(*shape: int) -> torch.Tensor:
    """x[i] = ((37 i) mod 101) / 101 - 0.5 over the flat row-major index, in f64, rounded to f32."""
    i = np.arange(math.prod(shape), dtype=np.int64)
    x = ((i * 37) % 101) / 101.0 - 0.5
    return torch.from_numpy(x.astype(np.float32).reshape(shape))


def provenance(*scripts: str) -> dict:
    """What made a file: library versions and the hash of every script it came from."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "scripts_sha256": {
            name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in scripts
        },
    }


def require_fused_uniform() -> None:
    """Stop unless this CPU takes PyTorch's fused path for `uniform_` (see README, initialisation)."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        raise SystemExit(
            "golden initial weights need a CPU with AVX2: on the DEFAULT path PyTorch rounds "
            "r*(b-a) before adding a, which changes about half of the values by one ulp"
        )


def significant(value: float, digits: int = 9) -> float:
    """Round to so many significant decimal digits (9 keep every f32 apart)."""
    return float(f"{value:.{digits}g}")


def _dump(value, indent: int, width: int) -> str:
    flat = json.dumps(value)
    if not isinstance(value, (dict, list)) or len(flat) <= width - indent:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        body = [f"{pad}{json.dumps(k)}: {_dump(v, indent + 1, width)}" for k, v in value.items()]
        return "{\n" + ",\n".join(body) + "\n" + " " * indent + "}"
    if all(not isinstance(v, (dict, list)) for v in value):
        lines, line = [], ""
        for v in map(json.dumps, value):
            if line and len(line) + len(v) + 2 > width - indent:
                lines.append(line)
                line = ""
            line = f"{line}, {v}" if line else v
        body = [pad + text for text in (*lines, line)]
    else:
        body = [pad + _dump(v, indent + 1, width) for v in value]
    return "[\n" + ",\n".join(body) + "\n" + " " * indent + "]"


def write_json(path: pathlib.Path, value: dict) -> None:
    """JSON that stays small and still diffs well: a container on one line if it fits in 240 columns."""
    path.write_text(_dump(value, 0, 240) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")
