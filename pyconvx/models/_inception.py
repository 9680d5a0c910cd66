"""What the later Inception networks share."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ..nn import ConvBNReLU

conv = partial(ConvBNReLU, eps=1e-3)
"""A convolution, batch norm and ReLU, with the epsilon of the authors' code."""


def row(in_channels: int, out_channels: int, size: int) -> ConvBNReLU:
    """A 1 x n convolution that keeps the size."""
    return conv(in_channels, out_channels, (1, size), padding=(0, size // 2))


def column(in_channels: int, out_channels: int, size: int) -> ConvBNReLU:
    """An n x 1 convolution that keeps the size."""
    return conv(in_channels, out_channels, (size, 1), padding=(size // 2, 0))


def average_and(conv1x1: nn.Module) -> nn.Sequential:
    """The pooling branch: the mean of 3 x 3 places, those inside the map, and a 1 x 1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), conv1x1)


class Branches(nn.Module):
    """Modules side by side on one input, their outputs concatenated: the filter concat of the papers' figures."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs, concatenated."""
        return torch.cat([branch(x) for branch in self.children()], 1)
