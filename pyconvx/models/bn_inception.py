"""BN-Inception, also called Inception v2: the network of the batch normalization paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register

FIGURE_5 = {
    #      1x1  reduce 3x3  reduce 3x3 twice  pool
    "3a": (64,     64,  64,    64,  96, "avg",  32),
    "3b": (64,     64,  96,    64,  96, "avg",  64),
    "3c": (0,     128, 160,    64,  96, "max",   0),
    "4a": (224,    64,  96,    96, 128, "avg", 128),
    "4b": (192,    96, 128,    96, 128, "avg", 128),
    "4c": (160,   128, 160,   128, 160, "avg", 128),
    "4d": (96,    128, 192,   160, 192, "avg", 128),
    "4e": (0,     128, 192,   192, 256, "max",   0),
    "5a": (352,   192, 320,   160, 224, "avg", 128),
    "5b": (352,   192, 320,   192, 224, "max", 128),
}  # fmt: skip
"""Figure 5: the channels of each module; those without a 1 x 1 branch have stride 2."""


class BNInceptionModule(nn.Module):
    """An Inception module with two 3 x 3 convolutions for the 5 x 5 one (Ioffe and Szegedy 2015, appendix)."""

    def __init__(self, in_channels: int, row: tuple[Any, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce33, double, pool, project = row
        stride = 1 if one else 2
        branches: list[nn.Module] = []
        if one:
            branches.append(_conv(in_channels, one, 1))
        branches.append(Sequential(*_conv(in_channels, reduce3, 1), *_conv(reduce3, three, 3, stride)))
        branches.append(
            Sequential(*_conv(in_channels, reduce33, 1), *_conv(reduce33, double, 3), *_conv(double, double, 3, stride))
        )
        average = pool == "avg"
        pooling = nn.AvgPool2d(3, stride=1, padding=1) if average else MaxPool2d(3, stride, padding="same")
        branches.append(Sequential(pooling, *(_conv(in_channels, project, 1) if project else ())))
        self.branches = nn.ModuleList(branches)
        self.out_channels = one + three + double + (project or in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs, concatenated."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class BNInception(nn.Module):
    """Ioffe and Szegedy (2015, "Batch normalization", section 4.2 and figure 5).

    Module 4c has the 128 channels behind its pooling that figure 5 prints, not the 96 that would give the 576 in its
    output column. The convolutions keep their biases, as in the models in circulation; batch norm makes them idle.

    Input 3 x 224 x 224; 11,295,240 parameters, 2.03 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: before the linear layer.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 7.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = Sequential(
            *_conv(in_channels, 64, 7, 2),
            MaxPool2d(3, stride=2, ceil_mode=True),
            *_conv(64, 64, 1),
            *_conv(64, 192, 3),
            MaxPool2d(3, stride=2, ceil_mode=True),
        )
        channels = 192
        self.inception = nn.Sequential()
        for name, row in FIGURE_5.items():
            module = BNInceptionModule(channels, row)
            self.inception.add_module(name, module)
            channels = module.out_channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.inception(self.stem(x)).mean((2, 3))
        return self.fc(self.dropout(x))


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> Sequential:
    return Sequential(
        Conv2d(in_channels, out_channels, size, stride, padding=size // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@register
def bn_inception(**options: Any) -> BNInception:
    """BN-Inception (Inception v2)."""
    return BNInception(**options)
