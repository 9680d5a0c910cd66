"""LeNet-5, which read cheques."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..nn import Conv2d, MaxPool2d, Sequential
from ._registry import register


class LeNet5(Sequential):
    """LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, section II.B and figure 2).

    The layers have the paper's names and sizes. As in today's use the activation is ReLU, subsampling takes the
    maximum and has no weights, every map of C3 sees all of S2, and the output is linear.

    Input 1 x 32 x 32; 61,706 parameters, 0.42 M multiply-adds.

    Shape: (N, in_channels, 32, 32) -> (N, num_classes).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.c1 = Conv2d(in_channels, 6, 5)
        self.relu1 = nn.ReLU(inplace=True)
        self.s2 = MaxPool2d(2)
        self.c3 = Conv2d(6, 16, 5)
        self.relu3 = nn.ReLU(inplace=True)
        self.s4 = MaxPool2d(2)
        self.c5 = Conv2d(16, 120, 5)
        self.relu5 = nn.ReLU(inplace=True)
        self.flatten = nn.Flatten()
        self.f6 = nn.Linear(120, 84)
        self.relu6 = nn.ReLU(inplace=True)
        self.output = nn.Linear(84, num_classes)


@register
def lenet5(**options: Any) -> LeNet5:
    """LeNet-5."""
    return LeNet5(**options)
