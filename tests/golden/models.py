"""The six models by the names of the command line, with the input shape that each takes.

The Avalanche ones are Avalanche's own classes (imported only when asked for).
"""

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Sequential):
    """784-100-100-10 with ReLU; state names 0.weight, 0.bias, 2.weight, ... 4.bias."""

    def __init__(self, sizes=(784, 100, 100, 10)):
        layers = []
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
            layers += [nn.ReLU()] if i else []
            layers.append(nn.Linear(fan_in, fan_out))
        super().__init__(*layers)

    def forward(self, x):
        return super().forward(x.flatten(1))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm; the shortcut is 1x1 where the shape changes."""

    def __init__(self, fan_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images: 3x3 stem without pooling, widths 64-128-256-512, head `linear`."""

    def __init__(self, classes: int = 10, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        fan_in = width
        for stage in range(4):
            out = width << stage
            blocks = (Block(fan_in, out, 1 if stage == 0 else 2), Block(out, out, 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            fan_in = out
        self.linear = nn.Linear(fan_in, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def xavier(module: nn.Module) -> None:
    """The paper's initialisation of the MLP: Xavier-uniform weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def build(name: str) -> nn.Module:
    """A freshly initialised model without dropout (drop 0); draws from torch's global generator."""
    if name == "mlp":
        model = Mlp()
    elif name == "mlp-xavier":
        model = Mlp().apply(xavier)
    elif name == "resnet18":
        model = ResNet18()
    else:
        from avalanche.models import LeNet5, SimpleCNN, SimpleMLP, SlimResNet18

        model = {
            "simple-mlp": lambda: SimpleMLP(drop_rate=0),
            "simple-mlp-3": lambda: SimpleMLP(hidden_size=32, hidden_layers=3, drop_rate=0),
            "simple-cnn": SimpleCNN,
            "lenet5": lambda: LeNet5(10, 1),
            "slim-resnet18": lambda: SlimResNet18(10, nf=20),
        }[name]()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


INPUT_SHAPE = {
    "mlp": (1, 28, 28),
    "mlp-xavier": (1, 28, 28),
    "simple-mlp": (1, 28, 28),
    "simple-mlp-3": (1, 28, 28),
    "simple-cnn": (3, 32, 32),
    "lenet5": (1, 32, 32),
    "slim-resnet18": (3, 32, 32),
    "resnet18": (3, 32, 32),
}
