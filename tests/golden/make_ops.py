"""Forward values and gradients of PyTorch's operations on small awkward shapes -> ops.safetensors.

Inputs and upstream gradients are f32 and stored. Every result is computed in f64 from those f32
inputs and rounded once to f32, so a reader's tolerance measures the reader's error, not PyTorch's.
The same graph is also run in f32 (what PyTorch users get) and must agree; the largest relative
distance between the two is stored per case in the metadata.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from common import HERE, provenance, significant

SEED = 20240229
random = np.random.RandomState(SEED)  # the legacy generator: same numbers in every NumPy
tensors: dict[str, torch.Tensor] = {}
settings: dict[str, dict] = {}
deviation: dict[str, float] = {}


def normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def steps_of_half(*shape: int) -> torch.Tensor:
    """Values on a coarse grid: many ties and exact zeros."""
    return torch.from_numpy((random.randint(-3, 4, shape) / 2).astype(np.float32))


def run(forward, inputs: dict, dtype, constants: dict, upstream):
    leaves = {k: v.to(dtype).requires_grad_() for k, v in inputs.items()}
    held = {k: v.to(dtype) if v.is_floating_point() else v for k, v in constants.items()}
    outputs = forward(**leaves, **held)
    y = outputs["y"]
    grads = torch.autograd.grad(y, list(leaves.values()), upstream.to(dtype))
    results = {k: v.detach() for k, v in outputs.items()}
    results |= {f"d{k}": g for k, g in zip(leaves, grads)}
    return results


def case(name: str, forward, inputs: dict, constants: dict | None = None, scalar=False, **how):
    """Store inputs, constants, y, dy, every further output, and d<input> for every input.

    With scalar=True y is a loss: it is stored as `loss` with shape [1], upstream gradient 1.
    """
    constants = constants or {}
    with torch.no_grad():
        shape = forward(**inputs, **{k: v.clone() for k, v in constants.items()})["y"].shape
    dy = torch.ones(()) if scalar else normal(*shape)
    exact = run(forward, inputs, torch.float64, {k: v.clone() for k, v in constants.items()}, dy)
    plain = run(forward, inputs, torch.float32, {k: v.clone() for k, v in constants.items()}, dy)
    worst = 0.0
    for key, value in exact.items():
        scale = max(float(value.abs().max()), 1e-3)
        worst = max(worst, float((plain[key].double() - value).abs().max()) / scale)
    assert worst < 3e-6, (name, worst)
    settings[name], deviation[name] = how, worst
    stored = {**inputs, **constants, **({} if scalar else {"dy": dy}), **exact}
    if scalar:
        stored["loss"] = stored.pop("y").reshape(1)
    for key, value in stored.items():
        value = value.float() if value.is_floating_point() else value
        tensors[f"{name}/{key}"] = value.contiguous().clone()


def linear_cases():
    def with_bias(x, w, b):
        return {"y": F.linear(x, w, b)}

    case("linear", with_bias, {"x": normal(5, 7), "w": normal(3, 7), "b": normal(3)})
    case("linear.row", with_bias, {"x": normal(1, 33), "w": normal(17, 33), "b": normal(17)})
    case("linear.no_bias", lambda x, w: {"y": F.linear(x, w)}, {"x": normal(4, 6), "w": normal(9, 6)})


def conv_cases():
    def conv(name, x, w, bias, stride, padding):
        def forward(x, w, b=None):
            return {"y": F.conv2d(x, w, b, stride=stride, padding=padding)}

        inputs = {"x": normal(*x), "w": normal(*w)} | ({"b": normal(w[0])} if bias else {})
        case(f"conv2d.{name}", forward, inputs, stride=stride, padding=padding)

    conv("p1", (2, 3, 6, 5), (4, 3, 3, 3), True, (1, 1), (1, 1))
    conv("s2p1", (2, 3, 7, 6), (4, 3, 3, 3), True, (2, 2), (1, 1))
    conv("k5", (2, 2, 8, 7), (3, 2, 5, 5), True, (1, 1), (0, 0))
    conv("k1s2", (3, 5, 5, 4), (6, 5, 1, 1), False, (2, 2), (0, 0))
    conv("rect", (2, 3, 7, 6), (4, 3, 2, 3), True, (2, 1), (1, 0))


def batch_norm_cases():
    eps, momentum = 1e-5, 0.1

    def forward(training, groups=None):
        def inner(x, w, b, running_mean, running_var):
            mean, var = running_mean.clone(), running_var.clone()
            parts = x.split(groups) if groups else [x]
            y = [F.batch_norm(p, mean, var, w, b, training, momentum, eps) for p in parts]
            return {"y": torch.cat(y), "running_mean_after": mean, "running_var_after": var}

        return inner

    def one(name, shape, training, groups=None):
        c = shape[1]
        inputs = {"x": 1.5 * normal(*shape) + 0.5, "w": normal(c), "b": normal(c)}
        stats = {"running_mean": normal(c), "running_var": normal(c).abs() + 0.3}
        how = {"training": training, "eps": eps, "momentum": momentum}
        if groups:
            how["groups"] = groups
        case(name, forward(training, groups), inputs, stats, **how)

    one("batch_norm1d.train", (6, 5), True)
    one("batch_norm1d.eval", (4, 5), False)
    one("batch_norm2d.train", (3, 4, 3, 5), True)
    one("batch_norm2d.eval", (2, 4, 3, 5), False)
    one("batch_norm2d.groups", (7, 3, 2, 3), True, [4, 3])


def activation_cases():
    case("relu", lambda x: {"y": F.relu(x)}, {"x": steps_of_half(3, 11)})
    case("tanh", lambda x: {"y": torch.tanh(x)}, {"x": 3 * normal(3, 11)})


def pool_cases():
    def pool(name, function, x, **how):
        case(name, lambda x: {"y": function(x, **how)}, {"x": x}, **how)

    pool("max_pool2d.k2", F.max_pool2d, normal(2, 3, 6, 5), kernel_size=2, stride=2)
    pool("max_pool2d.k3s2p1", F.max_pool2d, normal(2, 3, 7, 6), kernel_size=3, stride=2, padding=1)
    pool("max_pool2d.ties", F.max_pool2d, steps_of_half(2, 2, 6, 7), kernel_size=3, stride=2, padding=1)
    pool("avg_pool2d.k2", F.avg_pool2d, normal(2, 3, 6, 5), kernel_size=2, stride=2)
    pool("avg_pool2d.k3s2p1", F.avg_pool2d, normal(2, 3, 7, 6), kernel_size=3, stride=2, padding=1)
    for kind in ("avg", "max"):
        function = getattr(F, f"adaptive_{kind}_pool2d")
        pool(f"adaptive_{kind}_pool2d.to1", function, normal(2, 3, 5, 4), output_size=(1, 1))
        pool(f"adaptive_{kind}_pool2d.uneven", function, normal(2, 3, 7, 5), output_size=(3, 2))


def loss_cases():
    def cross_entropy(x, labels):
        return {"y": F.cross_entropy(x, labels)}

    def mse(x, target):
        return {"y": F.mse_loss(x, target)}

    def labels(n, classes):
        return torch.from_numpy(random.randint(0, classes, n))

    case("cross_entropy", cross_entropy, {"x": 2 * normal(7, 6)}, {"labels": labels(7, 6)}, scalar=True)
    case("cross_entropy.large", cross_entropy, {"x": 300 * normal(4, 5)}, {"labels": labels(4, 5)}, scalar=True)
    case("mse", mse, {"x": normal(4, 6)}, {"target": normal(4, 6)}, scalar=True)

    replay, current, classes, alpha, beta = 4, 5, 6, 0.2, 0.5

    def der(x, labels, z):
        terms = {
            "ce_current": F.cross_entropy(x[replay:], labels[replay:]),
            "mse_replay": F.mse_loss(x[:replay], z),
            "ce_replay": F.cross_entropy(x[:replay], labels[:replay]),
        }
        total = terms["ce_current"] + alpha * terms["mse_replay"] + beta * terms["ce_replay"]
        return {"y": total, **{k: v.reshape(1) for k, v in terms.items()}}

    n = replay + current
    case(
        "der", der, {"x": 2 * normal(n, classes)}, {"labels": labels(n, classes), "z": normal(replay, classes)},
        scalar=True, replay=replay, current=current, alpha=alpha, beta=beta,
    )


def sgd_cases():
    def one(name, **how):
        start, grads = normal(11), normal(5, 11)
        results = {}
        for dtype in (torch.float64, torch.float32):
            p = torch.nn.Parameter(start.to(dtype, copy=True))
            optimizer = torch.optim.SGD([p], **how)
            after = []
            for g in grads:
                p.grad = g.to(dtype)
                optimizer.step()
                after.append(p.detach().clone())
            results[dtype] = torch.stack(after)
        worst = float((results[torch.float32].double() - results[torch.float64]).abs().max())
        assert worst < 3e-6, (name, worst)
        settings[f"sgd.{name}"], deviation[f"sgd.{name}"] = how, worst
        for key, value in (("p0", start), ("g", grads), ("p", results[torch.float64].float())):
            tensors[f"sgd.{name}/{key}"] = value.contiguous()

    one("plain", lr=0.1)
    one("momentum", lr=0.1, momentum=0.9)
    one("dampening", lr=0.1, momentum=0.9, dampening=0.3)
    one("nesterov", lr=0.1, momentum=0.9, nesterov=True)
    one("weight_decay", lr=0.1, momentum=0.9, weight_decay=1e-2)


def main():
    torch.set_num_threads(1)
    for cases in (linear_cases, conv_cases, batch_norm_cases, activation_cases, pool_cases, loss_cases, sgd_cases):
        cases()
    golden = {
        "provenance": provenance("make_ops.py", "common.py"),
        "seed": SEED,
        "settings": settings,
        "f32_deviation": {k: significant(v, 2) for k, v in deviation.items()},
    }
    path = HERE / "ops.safetensors"
    # One metadata entry: safetensors writes several in an order that changes from run to run.
    save_file(tensors, path, {"golden": json.dumps(golden)})
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes, worst {max(deviation.values()):.2g}")


if __name__ == "__main__":
    sys.exit(main())
