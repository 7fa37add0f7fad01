"""Records what Avalanche's metrics say about a small DER run, and when it calls what.

Writes metrics.json: every name and value of two runs over the same five experiences, one evaluated by
hand after each experience, one also periodically; and callbacks.json: the order of all callbacks in one
`train` and one `eval`, and when periodic evaluations happen. Takes no arguments and no data.
"""

import platform

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import (
    CumulativeAccuracyPluginMetric, CumulativeForgettingPluginMetric, MAC_metrics, WeightCheckpoint,
    accuracy_matrix_metrics, accuracy_metrics, amca_metrics, bwt_metrics, class_accuracy_metrics,
    confusion_matrix_metrics, cpu_usage_metrics, disk_usage_metrics, forgetting_metrics,
    forward_transfer_metrics, images_samples_metrics, labels_repartition_metrics, loss_metrics,
    mean_scores_metrics, ram_usage_metrics, timing_metrics, topk_acc_metrics,
)
from avalanche.models import SimpleMLP
from avalanche.training import DER
from avalanche.training.plugins import EvaluationPlugin

from common import HERE, provenance, require_fused_uniform, significant, write_json

CLASSES, FEATURES, EXPERIENCES = 10, 10, 5
CONFIG = {
    "n_classes": CLASSES, "n_features": FEATURES, "n_experiences": EXPERIENCES, "train": [100, 0],
    "test": [50, 5], "benchmark_seed": 0, "seed": 123, "hidden": 12, "lr": 0.1, "momentum": 0.9,
    "mem_size": 17, "batch_size_mem": 5, "train_mb_size": 6, "train_epochs": 3, "eval_mb_size": 8,
    "alpha": 0.2, "beta": 0.5,
}
# Metrics of the machine: only their names can be compared.
MACHINE = ("Time_", "RunningTime_", "CPUUsage_", "RunningCPUUsage_", "MaxRAMUsage_", "DiskUsage_",
           "images/", "WeightCheckpoint/")
SCHEDULES = [
    (-1, "epoch", 5), (0, "epoch", 5), (1, "epoch", 3), (2, "epoch", 5), (2, "epoch", 6), (3, "epoch", 5),
    (2, "iteration", 2), (1, "iteration", 1), (3, "iteration", 3), (0, "iteration", 2), (0, "experience", 2),
    (1, "experience", 2), (2, "experience", 2),
]


def samples(n: int, offset: int):
    """Features and labels by formula, computed in f64 and rounded to f32."""
    rows = [
        [((i + offset) * 7 + 13 * j) % 17 / 17 - 0.5 + (0.9 if j == i % CLASSES else 0.0) for j in range(FEATURES)]
        for i in range(n)
    ]
    x = torch.tensor(rows, dtype=torch.float64).float()
    return dataset(x, torch.arange(n) % CLASSES, task_labels=0)


def benchmark():
    train, test = samples(*CONFIG["train"]), samples(*CONFIG["test"])
    return nc_benchmark(train, test, EXPERIENCES, False, seed=CONFIG["benchmark_seed"])


def strategy(evaluator=None, **changes):
    torch.manual_seed(CONFIG["seed"])
    model = SimpleMLP(CLASSES, FEATURES, CONFIG["hidden"], 1, 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=CONFIG["lr"], momentum=CONFIG["momentum"])
    keys = ("mem_size", "batch_size_mem", "train_mb_size", "train_epochs", "eval_mb_size", "alpha", "beta")
    arguments = {key: CONFIG[key] for key in keys} | changes
    return DER(model=model, optimizer=optimizer, evaluator=evaluator or EvaluationPlugin(), **arguments)


def metrics(periodic: bool) -> list:
    train = {"minibatch": not periodic, "epoch": True, "epoch_running": not periodic}
    system = {"minibatch": not periodic, "epoch": True}
    both = {"experience": True, "stream": True}
    by_hand = [
        confusion_matrix_metrics(save_image=False, stream=True),
        class_accuracy_metrics(minibatch=True),
    ]
    out = [
        accuracy_metrics(**train, **both, trained_experience=True),
        loss_metrics(**train, **both),
        topk_acc_metrics(top_k=3, **system, trained_experience=True, **both),
        class_accuracy_metrics(epoch=True, epoch_running=not periodic, **both),
        amca_metrics(),
        forgetting_metrics(**both),
        bwt_metrics(**both),
        CumulativeAccuracyPluginMetric(),
        CumulativeForgettingPluginMetric(),
        accuracy_matrix_metrics(),
        mean_scores_metrics(image_creator=None),
        labels_repartition_metrics(image_creator=None),
        timing_metrics(**train, **both),
        cpu_usage_metrics(**train, **both),
        ram_usage_metrics(**system, **both),
        disk_usage_metrics(paths_to_monitor=[str(HERE)], **system, **both),
        MAC_metrics(**system, experience=True),
        WeightCheckpoint(),
    ]
    return out + ([forward_transfer_metrics(**both)] if periodic else by_hand)


def plain(value):
    """A value as JSON has it; labels and counts as text keys."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return significant(float(value), 10)


def run(periodic: bool) -> dict:
    evaluator = EvaluationPlugin(*metrics(periodic), loggers=None)
    streams = benchmark()
    changes = {"eval_every": 1} if periodic else {}
    learner = strategy(evaluator, **changes)
    for experience in streams.train_stream:
        learner.train(experience, eval_streams=[streams.test_stream])
        learner.eval(streams.test_stream)
    found = {}
    for name, (x, values) in sorted(evaluator.get_all_metrics().items()):
        if name.startswith("Repartition"):
            values = values[-1:]  # the whole history
        machine = name.startswith(MACHINE)
        found[name] = {"x": x} if machine else {"x": x, "value": [plain(value) for value in values]}
    assert list(streams.classes_order) == order(), "the class order follows the seed"
    return found


def image_names() -> list:
    """The names under which images are published, of a run of its own: choosing them draws random numbers."""
    x = torch.zeros(4, 1, 2, 2)
    data = dataset(x, torch.arange(4) % 2, task_labels=0)
    streams = nc_benchmark(data, data, 2, False, seed=0)
    metrics = images_samples_metrics(n_rows=1, n_cols=2, on_train=True, on_eval=True)
    evaluator = EvaluationPlugin(*metrics, loggers=None)
    model = SimpleMLP(2, 4, 3, 1, 0.0)
    learner = DER(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), evaluator=evaluator)
    learner.train(streams.train_stream)
    learner.eval(streams.test_stream)
    return sorted(evaluator.get_all_metrics())


def order() -> list:
    return list(map(int, benchmark().classes_order))


def callbacks() -> list:
    names = [name for name in dir(SupervisedPlugin) if name.startswith(("before_", "after_"))]
    heard = []

    def hear(name):
        return lambda self, strategy, *_, **__: heard.append(name)

    trace = type("Trace", (SupervisedPlugin,), {name: hear(name) for name in names})()
    streams = benchmark()
    learner = strategy(plugins=[trace], train_epochs=2, train_mb_size=10, eval_every=1)
    learner.train(streams.train_stream[:2], eval_streams=[streams.test_stream[:1]])
    heard.append("eval")
    learner.eval(streams.test_stream[:2])
    return heard


def schedule(every: int, mode: str, epochs: int) -> list:
    """(experience, its epochs, its iterations) at each evaluation of two experiences."""
    seen = []

    class Watch(SupervisedPlugin):
        def before_eval(self, strategy, **_):
            c = strategy.clock
            seen.append([c.train_exp_counter, c.train_exp_epochs, c.train_exp_iterations])

    streams = benchmark()
    learner = strategy(
        plugins=[Watch()], train_epochs=epochs, train_mb_size=10, eval_every=every, peval_mode=mode)
    learner.train(streams.train_stream[:2], eval_streams=[streams.test_stream[:1]])
    return seen


def main():
    require_fused_uniform()
    torch.set_num_threads(1)
    made = provenance("make_metrics.py", "common.py") | {"avalanche": "0.6.0", "python": platform.python_version()}
    record = {"provenance": made, "config": CONFIG | {"class_order": order()}}
    runs = {"by_hand": run(False), "periodic": run(True), "images": image_names()}
    write_json(HERE / "metrics.json", record | runs)
    schedules = [
        {"eval_every": every, "peval_mode": mode, "epochs": epochs, "evaluations": schedule(every, mode, epochs)}
        for every, mode, epochs in SCHEDULES
    ]
    write_json(HERE / "callbacks.json", {"provenance": made, "trace": callbacks(), "schedules": schedules})


if __name__ == "__main__":
    main()
