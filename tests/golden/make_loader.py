"""Records the mini-batches of Avalanche's task-balanced loader: 24 samples of task 0 and 5 of task 1,
batches of 7, two epochs after torch.manual_seed(3). Prints what task_balanced.json holds."""

import json

import torch
from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset
from avalanche.benchmarks.utils.data_loader import TaskBalancedDataLoader

first = dataset(torch.arange(24.0).view(-1, 1), torch.zeros(24, dtype=torch.long), task_labels=0)
second = dataset(torch.arange(24.0, 29.0).view(-1, 1), torch.zeros(5, dtype=torch.long), task_labels=1)
torch.manual_seed(3)
loader = TaskBalancedDataLoader(
    first.concat(second), batch_size=7, oversample_small_groups=True, shuffle=True
)
print(json.dumps([[int(x) for x in batch[0].view(-1)] for _ in range(2) for batch in loader]))
