"""Records what Avalanche's TextLogger and CSVLogger write during a small DER run: golden/loggers/.

    python make_loggers.py

The run is the one of tests/library/golden_run.rs: six features, six classes, three experiences, data by formula. Each
setting varies when it is evaluated; `tasks` also gives every experience a task label.
"""

import hashlib
import pathlib
import tempfile

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
from avalanche.logging import CSVLogger, TextLogger
from avalanche.models import SimpleMLP
from avalanche.training import DER
from avalanche.training.plugins import EvaluationPlugin
from torch.utils.data import TensorDataset

from common import HERE, provenance, write_json

# Name: eval_every, epochs, task labels, whether there is an evaluation before training.
SETTINGS = {
    "never": (-1, 2, False, True),
    "end": (0, 2, False, False),
    "each": (1, 2, False, False),
    "second": (2, 3, False, False),
    "tasks": (1, 1, True, False),
}


def samples(n: int, offset: int):
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(6, dtype=torch.float64)
    wave = ((i + offset) * 7 + 13 * j) % 17 / 17 - 0.5
    y = torch.arange(n) % 6
    x = (wave + 0.5 * (j == y[:, None])).float()
    data = TensorDataset(x, y)
    data.targets = y.tolist()
    return as_classification_dataset(data)


def record(folder: pathlib.Path, eval_every: int, epochs: int, tasks: bool, first: bool) -> None:
    benchmark = nc_benchmark(samples(60, 0), samples(24, 5), 3, tasks, seed=0)
    torch.manual_seed(123)
    model = SimpleMLP(num_classes=6, input_size=6, hidden_size=8, hidden_layers=1, drop_rate=0.0)
    with (folder / "log.txt").open("w") as log:
        csv = CSVLogger(folder)
        evaluator = EvaluationPlugin(
            accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True),
            loss_metrics(epoch=True, experience=True, stream=True),
            forgetting_metrics(experience=True),
            loggers=[TextLogger(log), csv],
        )
        strategy = DER(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            mem_size=10, batch_size_mem=4, alpha=0.2, beta=0.5, train_mb_size=5, train_epochs=epochs,
            eval_mb_size=8, evaluator=evaluator, eval_every=eval_every,
        )
        if first:
            strategy.eval(benchmark.test_stream)
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[benchmark.test_stream])
            strategy.eval(benchmark.test_stream)
        csv.close()


def main():
    torch.set_num_threads(1)
    target = HERE / "loggers"
    digests = {}
    for name, setting in SETTINGS.items():
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        record(folder, *setting)
        with tempfile.TemporaryDirectory() as again:
            record(pathlib.Path(again), *setting)
            for file in sorted(folder.iterdir()):
                content = file.read_bytes()
                assert content == (pathlib.Path(again) / file.name).read_bytes(), file
                digests[f"{name}/{file.name}"] = hashlib.sha256(content).hexdigest()
    made = provenance("make_loggers.py", "common.py") | {"avalanche": "0.6.0"}
    fields = ("eval_every", "train_epochs", "task_labels", "eval_before_training")
    settings = {name: dict(zip(fields, setting)) for name, setting in SETTINGS.items()}
    write_json(target / "loggers.json", {"provenance": made, "settings": settings, "sha256": digests})


if __name__ == "__main__":
    main()
