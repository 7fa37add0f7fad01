"""Growing heads, heads for each task and ResNet-32, by Avalanche's own classes -> heads.safetensors."""

import json
import sys
import warnings
from types import SimpleNamespace

warnings.filterwarnings("ignore")

import torch
import torch.nn.functional as F
from avalanche.benchmarks.scenarios.deprecated.generators import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.models import IncrementalClassifier, MTSimpleCNN, MTSimpleMLP, SimpleCNN, SimpleMLP, as_multitask
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from avalanche.models.dynamic_optimizers import update_optimizer
from avalanche.models.resnet32 import resnet32
from avalanche.models.slim_resnet18 import MTSlimResNet18
from avalanche.models.utils import avalanche_forward
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from safetensors.torch import save_file

from common import HERE, f32_bytes, fnv1a64, formula_input, provenance, require_fused_uniform, significant

SEED = 5
# (training, task label, classes), one after the other.
EXPERIENCES = ((True, 0, (1, 4)), (False, 0, (0, 6)), (True, 3, (2,)), (False, 3, (0, 3)))
TASKS = (0, 3, 0, 3, 3)
LABELS = (1, 2, 4, 2, 2)
# Parameters whose gradient is stored whole.
GRADIENTS = ("features.0.bias", "conv1.weight", "layer2.0.downsample.0.weight", "fc.bias")
STATISTICS = ("layer2.0.downsample.1", "layer3.4.bn2")


def growing_mlp(**options):
    model = SimpleMLP(num_classes=5, input_size=48, hidden_size=32, drop_rate=0)
    model.classifier = IncrementalClassifier(32, **options)
    return model


def unmasked_heads():
    model = MTSimpleMLP(input_size=48, hidden_size=32)
    model.classifier.masking = False
    return model


MODELS = {
    "incremental": ((3, 4, 4), growing_mlp),
    "incremental-unmasked": ((3, 4, 4), lambda: growing_mlp(initial_out_features=3, masking=False)),
    "mt-simple-mlp": ((3, 4, 4), lambda: MTSimpleMLP(input_size=48, hidden_size=32)),
    "mt-simple-mlp-unmasked": ((3, 4, 4), unmasked_heads),
    "mt-simple-cnn": ((3, 16, 16), MTSimpleCNN),
    "mt-slim-resnet18": ((3, 32, 32), lambda: MTSlimResNet18(2, nf=4)),
    "as-multitask-mlp": ((3, 4, 4), lambda: as_multitask(SimpleMLP(4, 48, 32, drop_rate=0), "classifier")),
    "as-multitask-cnn": ((3, 16, 16), lambda: as_multitask(SimpleCNN(3), "classifier")),
    "resnet32": ((3, 32, 32), resnet32),
}


def build(name):
    torch.manual_seed(SEED)
    model = MODELS[name][1]()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def adapt(model, training, task, classes):
    model.train(training)
    # Task labels as one experience has them: a label a sample, here of two.
    experience = SimpleNamespace(classes_in_this_experience=list(classes), task_labels=[task])
    avalanche_model_adaptation(model, experience)


def state_of(model):
    entries = []
    for name, value in model.state_dict().items():
        floats = value.float()
        entries.append({"name": name, "shape": list(value.shape), "fnv1a64": fnv1a64(f32_bytes(floats))})
    return entries


def run(model, x, dtype):
    model, x, labels, tasks = model.to(dtype), x.to(dtype), torch.tensor(LABELS), torch.tensor(TASKS)
    # The heads' logits are collected in a matrix of the default type.
    torch.set_default_dtype(dtype)
    with torch.no_grad():
        results = {"logits_eval": avalanche_forward(model.eval(), x, tasks)}
    logits = avalanche_forward(model.train(), x, tasks)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    results |= {"logits_train": logits.detach(), "loss_train": loss.detach().reshape(1)}
    # A head that no row went through has no gradient.
    results |= {f"grad/{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
    results |= {f"stats/{k}": b.clone() for k, b in model.named_buffers() if "running" in k}
    torch.set_default_dtype(torch.float32)
    return results


def wanted(key):
    kind, _, rest = key.partition("/")
    if kind == "grad":
        return rest in GRADIENTS or rest.endswith(("classifier.weight", "classifier.bias"))
    return kind != "stats" or rest.rpartition(".")[0] in STATISTICS


def distance(a, b):
    """The largest difference over the largest magnitude, leaving masked units out."""
    a, b = (torch.where(v == -1000, 0, v.double()) for v in (a, b))
    return float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6)


def training(dtype):
    """Steps with momentum before and after the head grows; the other layers keep their momentum."""
    torch.manual_seed(SEED)
    model = SimpleMLP(num_classes=5, input_size=48, hidden_size=8, drop_rate=0)
    model.classifier = IncrementalClassifier(8)
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    known = update_optimizer(optimizer, dict(model.named_parameters()), reset_state=True)
    x, losses = formula_input(4, 3, 4, 4).to(dtype), []
    for classes in ((0, 1), (3, 2), (1, 6)):
        adapt(model, True, 0, classes)
        model.to(dtype)
        known = update_optimizer(optimizer, dict(model.named_parameters()), known)
        labels = torch.tensor([classes[i % 2] for i in range(4)])
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    results = {f"after/{k}": v.detach() for k, v in model.named_parameters()}
    return results | {"losses": torch.stack(losses)}


class Losses(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.losses = []

    def after_training_iteration(self, strategy, **kwargs):
        self.losses.append(strategy.loss.detach().reshape(()))


def formula_data(n, offset):
    """The data of `tests/library/golden_run.rs`: 6 features, 6 classes."""
    wave = [[(((i + offset) * 7 + 13 * j) % 17) / 17 - 0.5 + (0.5 if j == i % 6 else 0) for j in range(6)] for i in range(n)]
    data = torch.utils.data.TensorDataset(torch.tensor(wave, dtype=torch.float64).float(), torch.arange(n) % 6)
    data.targets = (torch.arange(n) % 6).tolist()
    return data


def strategy_run(multi_task):
    """Avalanche's Naive over three experiences, evaluated on what it has seen after each."""
    benchmark = nc_benchmark(formula_data(60, 0), formula_data(24, 5), 3, multi_task, seed=0)
    torch.manual_seed(123)
    if multi_task:
        model = MTSimpleMLP(input_size=6, hidden_size=8)
        model.features[2].p = 0.0
    else:
        model = SimpleMLP(num_classes=6, input_size=6, hidden_size=8, drop_rate=0)
        model.classifier = IncrementalClassifier(8)
    record, metrics = Losses(), EvaluationPlugin(loss_metrics(stream=True), loggers=[])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    strategy = Naive(
        model=model, optimizer=optimizer, train_mb_size=5, train_epochs=2, eval_mb_size=8, plugins=[record], evaluator=metrics
    )
    evals = []
    for i, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream[: i + 1])
        (loss,) = (v for k, v in results.items() if k.startswith("Loss_Stream") and f"Task{i if multi_task else 0:03}" in k)
        evals.append(torch.tensor(loss))
    results = {f"after/{k}": v.detach() for k, v in model.named_parameters()}
    return results | {"losses": torch.stack(record.losses), "evals": torch.stack(evals)}


def main():
    require_fused_uniform()
    torch.set_num_threads(1)
    states, tensors, deviation = {}, {}, {}

    def store(name, exact, plain):
        deviation[name] = {}
        for key in filter(wanted, exact):
            tensors[f"{name}/{key}"] = exact[key].float().contiguous()
            kind = key.partition("/")[0]
            off = significant(distance(plain[key], exact[key]), 2)
            deviation[name][kind] = max(deviation[name].get(kind, 0.0), off)

    for name, (shape, _) in MODELS.items():
        model = build(name)
        for experience in EXPERIENCES if name != "resnet32" else ():
            adapt(model, *experience)
        states[name] = {"entries": state_of(model), "next_random": significant(float(torch.rand(1)))}
        x = formula_input(len(TASKS), *shape)
        start = {k: v.clone() for k, v in model.state_dict().items()}
        plain = run(model, x, torch.float32)
        model.load_state_dict(start)
        model.zero_grad()
        exact = run(model, x, torch.float64)
        store(name, exact, plain)
        print(name, deviation[name], flush=True)
    store("training", training(torch.float64), training(torch.float32))
    for name, multi_task in (("naive-incremental", False), ("naive-multi-task", True)):
        once = strategy_run(multi_task)
        # In f32 only, as Avalanche runs: what f32 costs is the deviation of the steps above.
        for key, value in once.items():
            tensors[f"{name}/{key}"] = value.contiguous()
        print(name, once["losses"][:3].tolist(), once["evals"].tolist())
    print("training", deviation["training"])

    golden = {
        "provenance": provenance("make_heads.py", "common.py"),
        "seed": SEED,
        "experiences": EXPERIENCES,
        "tasks": TASKS,
        "labels": LABELS,
        "input_shape": {name: shape for name, (shape, _) in MODELS.items()},
        "states": states,
        "f32_deviation": deviation,
    }
    path = HERE / "heads.safetensors"
    save_file(tensors, path, {"golden": json.dumps(golden)})
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
