"""Initial weights (names, hashes, ends), logits and gradients of the models
-> models_init.json, models.safetensors.

Every drawn weight is also recomputed here from MT19937 by the recipe of the README and must be equal
bit for bit.
"""

import json
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from common import HERE, f32_bytes, fnv1a64, formula_input, provenance, require_fused_uniform, significant, write_json
from models import INPUT_SHAPE, build

SEEDS = (0, 1)
LABELS = (3, 8)
# Parameters whose gradient is stored whole (seed 0 only).
GRADIENTS = {
    "mlp": ("0.bias", "2.bias", "4.weight", "4.bias"),
    "mlp-xavier": ("0.bias", "4.bias"),
    "simple-mlp": ("features.0.bias", "classifier.bias"),
    "simple-mlp-3": ("features.0.bias", "features.4.0.weight", "classifier.bias"),
    "simple-cnn": ("features.0.weight", "features.12.bias", "classifier.0.bias"),
    "lenet5": ("feature_extractor.0.weight", "feature_extractor.3.bias", "ff.0.bias", "classifier.0.bias"),
    "slim-resnet18": ("conv1.weight", "bn1.weight", "layer2.0.shortcut.0.weight", "layer4.1.bn2.bias", "linear.bias"),
    "resnet18": ("conv1.weight", "bn1.weight", "layer2.0.shortcut.1.weight", "layer4.1.bn2.bias", "linear.bias"),
}
# Running statistics stored after the one train-mode forward (seed 0 only).
STATISTICS = {
    "slim-resnet18": ("bn1", "layer2.0.shortcut.1", "layer4.1.bn2"),
    "resnet18": ("bn1", "layer4.1.bn2"),
}


class Recipe:
    """PyTorch's `uniform_` on a CPU with fused multiply-add, from the raw outputs of MT19937."""

    def __init__(self, seed: int):
        self.bits = np.random.MT19937()
        self.bits._legacy_seeding(seed)

    def uniform(self, shape, bound: float) -> np.ndarray:
        high = np.float32(bound)
        low, span = -high, high + high
        r = (self.bits.random_raw(math.prod(shape)) & 0xFFFFFF) * 2.0**-24
        # Exact in f64 (at most 49 bits), so this is the one rounding of a fused multiply-add.
        return (r * np.float64(span) + np.float64(low)).astype(np.float32).reshape(shape)


def check_recipe(name: str, seed: int, model: torch.nn.Module) -> None:
    recipe = Recipe(seed)
    expected = {}
    for module_name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            expected[f"{module_name}.weight"] = recipe.uniform(module.weight.shape, bound)
            if module.bias is not None:
                expected[f"{module_name}.bias"] = recipe.uniform(module.bias.shape, bound)
    if name == "mlp-xavier":
        for key in [k for k in expected if k.endswith("weight")]:
            fan_out, fan_in = expected[key].shape
            bound = math.sqrt(3.0) * math.sqrt(2.0 / (fan_in + fan_out))
            expected[key] = recipe.uniform((fan_out, fan_in), bound)
            expected[key.replace("weight", "bias")] = np.zeros(fan_out, np.float32)
    for key, parameter in model.named_parameters():
        if key in expected:
            same = parameter.detach().numpy().tobytes() == expected[key].tobytes()
            assert same, (name, seed, key)
        else:
            assert set(parameter.unique().tolist()) <= {0.0, 1.0}, key
    after = (recipe.bits.random_raw() & 0xFFFFFF) * 2.0**-24
    assert float(torch.rand(1)) == after, "the model drew another number of values"


def record(name: str, parameter: torch.Tensor) -> dict:
    flat = parameter.detach().flatten()
    ends = {k: [significant(v) for v in part.tolist()] for k, part in (("first", flat[:4]), ("last", flat[-4:]))}
    assert torch.equal(torch.tensor(ends["first"] + ends["last"]), torch.cat([flat[:4], flat[-4:]]))
    if flat.unique().numel() == 1:
        ends = {"constant": float(flat[0])}
    return {"name": name, "shape": list(parameter.shape), "fnv1a64": fnv1a64(f32_bytes(parameter)), **ends}


def run(model, x, dtype):
    """Eval logits, then one train-mode forward and backward of the mean cross-entropy."""
    model = model.to(dtype)
    x, labels = x.to(dtype), torch.tensor(LABELS)
    with torch.no_grad():
        results = {"logits_eval": model.eval()(x)}
    logits = model.train()(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    results |= {"logits_train": logits.detach(), "loss_train": loss.detach().reshape(1)}
    results |= {f"grad/{k}": p.grad for k, p in model.named_parameters()}
    results |= {f"stats/{k}": b for k, b in model.named_buffers() if "running" in k}
    return results


def wanted(name: str, seed: int, key: str) -> bool:
    kind, _, rest = key.partition("/")
    if kind == "grad":
        return seed == 0 and rest in GRADIENTS[name]
    if kind == "stats":
        return seed == 0 and rest.rpartition(".")[0] in STATISTICS.get(name, ())
    return True


def main():
    require_fused_uniform()
    torch.set_num_threads(1)
    models, tensors, deviation = [], {}, {}
    for name, shape in INPUT_SHAPE.items():
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = build(name)
            check_recipe(name, seed, model)
            records = [record(k, p) for k, p in model.named_parameters()]
            state = [k for k in model.state_dict()]
            models.append({"model": name, "seed": seed, "parameters": records})
            if seed == SEEDS[0]:
                models[-1]["state_dict"] = state

            start = {k: v.clone() for k, v in model.state_dict().items()}
            x = formula_input(2, *shape)
            plain = run(model, x, torch.float32)
            model = build(name)
            model.load_state_dict(start)
            exact = run(model, x, torch.float64)
            for key, value in exact.items():
                if wanted(name, seed, key):
                    tensors[f"{name}.s{seed}/{key}"] = value.float().contiguous()
                    scale = max(float(value.abs().max()), 1e-6)
                    off = float((plain[key].double() - value).abs().max()) / scale
                    kind = key.partition("/")[0]
                    deviation[name] = deviation.get(name, {})
                    deviation[name][kind] = max(deviation[name].get(kind, 0.0), significant(off, 2))
            print(name, seed, len(records), "parameters", deviation[name], flush=True)

    made = provenance("make_models.py", "models.py", "common.py")
    write_json(HERE / "models_init.json", {"provenance": made, "models": models})
    path = HERE / "models.safetensors"
    golden = {"provenance": made, "labels": LABELS, "input_shape": INPUT_SHAPE, "f32_deviation": deviation}
    save_file(tensors, path, {"golden": json.dumps(golden)})
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
