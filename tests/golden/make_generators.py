"""What Avalanche's benchmark generators do with small data sets -> generators.json.

    python make_generators.py

Sample i has the one pixel i, so the streams are recorded as lists of indices. Training labels are
`(i * i + i // 7) mod 5` for 47 samples, test labels `i mod 5` for 13.
"""

import platform
import random
import warnings

warnings.filterwarnings("ignore")

import torch
from avalanche.benchmarks import (
    benchmark_with_validation_stream,
    class_incremental_benchmark,
    ni_benchmark,
    nc_benchmark,
    split_online_stream,
    task_incremental_benchmark,
)
from avalanche.benchmarks.scenarios.dataset_scenario import split_validation_class_balanced
from avalanche.benchmarks.scenarios.deprecated.generators import data_incremental_benchmark
from torch.utils.data import TensorDataset

from common import HERE, provenance, write_json

N_TRAIN, N_TEST, CLASSES = 47, 13, 5


def dataset(targets):
    x = torch.arange(len(targets), dtype=torch.float32)
    data = TensorDataset(x, torch.tensor(targets))
    data.targets = targets
    return data


def train():
    return dataset([(i * i + i // 7) % CLASSES for i in range(N_TRAIN)])


def test():
    return dataset([i % CLASSES for i in range(N_TEST)])


def indices(experience):
    data = experience.dataset
    return [int(data[i][0]) for i in range(len(data))]


def streams(stream):
    return [indices(experience) for experience in stream]


def ni(seed, shuffle, balanced, n):
    benchmark = ni_benchmark(train(), test(), n, seed=seed, shuffle=shuffle, balance_experiences=balanced,
                             task_labels=True)
    assert streams(benchmark.test_stream) == [list(range(N_TEST))]
    return {
        "seed": seed, "shuffle": shuffle, "balanced": balanced, "n": n,
        "train": streams(benchmark.train_stream),
        "task_labels": [e.task_label for e in benchmark.train_stream],
        "test_task_label": benchmark.test_stream[0].task_label,
    }


def class_incremental(seed, **options):
    data = {"train": train(), "test": test()}
    benchmark = class_incremental_benchmark(data, seed=seed, **options)
    return {"seed": seed, "train": streams(benchmark.streams["train"]), "test": streams(benchmark.streams["test"])} | options


def split(n=5):
    """Two experiences have three classes and two."""
    return nc_benchmark(train(), test(), n, False, seed=1, per_exp_classes={0: 3} if n == 2 else None)


def validation(size, shuffle, seed):
    benchmark = benchmark_with_validation_stream(split(1), size, shuffle=shuffle, seed=seed)
    return {
        "size": size, "shuffle": shuffle, "seed": seed,
        "train": streams(benchmark.streams["train"]), "valid": streams(benchmark.streams["valid"]),
    }


def balanced_validation(size, seed):
    """Experience by experience. `benchmark_with_validation_stream` itself splits the stream of an nc_benchmark
    twice, once for the training and once for the validation stream, with different draws, so that some samples are
    in both and others in neither."""
    stream = split(2).train_stream
    torch.manual_seed(seed)
    pairs = [split_validation_class_balanced(size, experience.dataset) for experience in stream]
    lists = [[[int(data[i][0]) for i in range(len(data))] for data in pair] for pair in pairs]
    return {"size": size, "seed": seed, "train": [a for a, _ in lists], "valid": [b for _, b in lists]}


def online(size, shuffle, drop_last, seed):
    stream = split_online_stream(split().train_stream, size, shuffle=shuffle, drop_last=drop_last, seed=seed,
                                 access_task_boundaries=True)
    experiences = list(stream)
    return {
        "size": size, "shuffle": shuffle, "drop_last": drop_last, "seed": seed, "name": stream.name,
        "train": streams(experiences),
        "first": [e.is_first_subexp for e in experiences],
        "last": [e.is_last_subexp for e in experiences],
        "lengths": [e.sub_stream_length for e in experiences],
    }


def data_incremental(size):
    benchmark = data_incremental_benchmark(split(), size)
    return {"size": size, "train": streams(benchmark.train_stream), "test": streams(benchmark.test_stream)}


def task_incremental():
    benchmark = task_incremental_benchmark(split(), reset_task_labels=True)
    return {name: [sorted(map(int, e.task_labels)) for e in stream] for name, stream in benchmark.streams.items()}


def cifar110_order(seed):
    """The lines of SplitCIFAR110 that draw the order of CIFAR-100's classes."""
    random.seed(seed)
    return random.sample(range(10, 110), 100)


def several(seed, shuffle):
    parts = ([dataset([2, 0, 1, 2]), dataset([1, 0])], [dataset([0, 1, 2]), dataset([0, 1])])
    benchmark = nc_benchmark(*parts, 2, True, one_dataset_per_exp=True, seed=seed, shuffle=shuffle)
    return {
        "seed": seed, "shuffle": shuffle,
        "classes": [sorted(map(int, classes)) for classes in benchmark.original_classes_in_exp],
        "train": streams(benchmark.train_stream), "task_labels": [e.task_label for e in benchmark.test_stream],
    }


def main():
    made = provenance("make_generators.py", "common.py") | {
        "avalanche": "0.6.0", "python": platform.python_version(),
    }
    result = {
        "ni": [ni(s, shuffle, balanced, n) for s in (0, 7) for shuffle in (True, False)
               for balanced in (True, False) for n in (3, 4)],
        "class_incremental": [
            class_incremental(0, num_experiences=5), class_incremental(3, num_experiences=1),
            class_incremental(3, num_classes_per_exp=[2, 3]),
        ],
        "class_incremental_uneven": class_incremental(3, num_experiences=2),
        "validation": [validation(*case) for case in
                       [(0.25, False, 0), (0.25, True, 5), (10, True, 5), (1.0, False, 0), (0.0, True, 1)]],
        "validation_balanced": [balanced_validation(0.3, 2)],
        "online": [online(*case) for case in
                   [(4, False, False, 1), (4, True, False, 1), (4, True, True, 9), (3, True, False, 2)]],
        "data_incremental": [data_incremental(4), data_incremental(100)],
        "task_incremental": task_incremental(),
        "cifar110_orders": [{"seed": s, "order": cifar110_order(s)} for s in (0, 3)],
        "one_dataset_per_exp": [several(s, shuffle) for s in (0, 1) for shuffle in (True, False)],
    }
    for case in result["class_incremental"] + [result["class_incremental_uneven"]]:
        case.setdefault("num_experiences", None)
        case.setdefault("num_classes_per_exp", None)
    write_json(HERE / "generators.json", {"provenance": made} | result)


if __name__ == "__main__":
    main()
