"""Block-QNN: networks stacked from one block, which Q-learning finds as a short code."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, ResidualAdd, fused_conv
from ._initialize import initialize
from ._registry import register


class Kind(Enum):
    """The layers of table 1."""

    CONV = 1
    MAX_POOL = 2
    AVERAGE_POOL = 3
    IDENTITY = 4
    ADD = 5
    CONCAT = 6


class Layer(NamedTuple):
    """One line of a Network Structure Code (table 1): kind, window, and the layers it takes, 0 being the input."""

    number: int
    kind: Kind
    size: int
    first: int
    second: int = 0


BLOCK_S = (
    Layer(1, Kind.CONV, 1, 0),
    Layer(2, Kind.CONV, 3, 1),
    Layer(3, Kind.CONV, 3, 2),
    Layer(4, Kind.CONV, 1, 0),
    Layer(5, Kind.ADD, 0, 3, 4),
    Layer(6, Kind.MAX_POOL, 3, 4),
)
"""A chain of three convolutions with a shortcut, and a pooled branch: 3 convolutions deep."""

BLOCK_B = (
    Layer(1, Kind.CONV, 1, 0),
    Layer(2, Kind.CONV, 3, 0),
    Layer(3, Kind.CONV, 3, 1),
    Layer(4, Kind.ADD, 0, 2, 3),
    Layer(5, Kind.CONV, 3, 4),
    Layer(6, Kind.ADD, 0, 5, 1),
    Layer(7, Kind.CONV, 5, 1),
)
"""Two sums and a 5 x 5 branch: 3 convolutions deep."""


class Block(nn.Module):
    """A block from its code. Layers whose output no other layer takes are concatenated (section 3.1).

    Args:
        code: the layers, each after those that it takes.
        in_channels: of the input.
        width: channels of every convolution.
    """

    def __init__(self, code: Sequence[Layer], in_channels: int, width: int) -> None:
        super().__init__()
        self.code = tuple(code)
        self.layers = nn.ModuleDict()
        channels = {0: in_channels}
        for index, kind, size, first, second in self.code:
            layer, channels[index] = _layer(kind, size, channels[first], channels[second], width)
            if layer is not None:
                self.layers[str(index)] = layer
        taken = {layer.first for layer in code} | {layer.second for layer in code}
        self.loose = [layer.number for layer in code if layer.number not in taken]
        self.out_channels = sum(channels[index] for index in self.loose)

    def forward(self, x: Tensor) -> Tensor:
        """Return the loose ends, concatenated."""
        outputs = {0: x}
        for index, kind, _, first, second in self.code:
            if kind is Kind.IDENTITY:
                outputs[index] = outputs[first]
            elif kind is Kind.CONCAT:
                outputs[index] = torch.cat([outputs[first], outputs[second]], 1)
            elif kind is Kind.ADD:
                outputs[index] = self.layers[str(index)](outputs[first], outputs[second])
            else:
                outputs[index] = self.layers[str(index)](outputs[first])
        return torch.cat([outputs[index] for index in self.loose], 1)


class PreActConv(nn.Module):
    """The paper's Pre-activation Convolutional Cell: ReLU, convolution, batch norm (section 3.1)."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return bn(conv(relu(x)))."""
        return fused_conv(F.relu(x), self.conv, self.bn)


class BlockQNN(nn.Module):
    """Zhong, Yan, Wu, Shao and Liu (2017, "Practical block-wise neural network architecture generation", CIFAR).

    A convolution, three stages of ``repeats`` blocks with max pooling between them, the mean, and a linear layer.

    The codes of the found blocks are not printed in the paper, which shows them as drawings. :data:`BLOCK_S` and
    :data:`BLOCK_B` are this library's: blocks of the paper's search space with the drawn ones' depth, by which
    Block-QNN-S with N = 2 has 19 layers and Block-QNN-B with N = 4 has 37. Any other code can be given.

    Input 3 x 32 x 32.

    | network     | parameters | multiply-adds |
    |-------------|------------|---------------|
    | block_qnn_s |  5,662,490 |        0.83 G |
    | block_qnn_b |  5,216,426 |        0.76 G |

    Args:
        code: the block's layers.
        repeats: N, the number of blocks in each stage.
        widths: channels of the convolutions in each stage.
        num_classes, in_channels: of output and input.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 4.
    """

    def __init__(
        self,
        code: Sequence[Layer],
        repeats: int,
        widths: Sequence[int],
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.pool = MaxPool2d(2)
        self.stages = nn.ModuleList()
        channels = widths[0]
        for width in widths:
            blocks = []
            for _ in range(repeats):
                blocks.append(Block(code, channels, width))
                channels = blocks[-1].out_channels
            self.stages.append(nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = fused_conv(x, self.conv, self.bn)
        for i, stage in enumerate(self.stages):
            x = stage(self.pool(x) if i else x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(F.relu(x), 1), 1))


def _layer(kind: Kind, size: int, first: int, second: int, width: int) -> tuple[nn.Module | None, int]:
    """Return the module of a layer, if it has one, and its channels."""
    if kind is Kind.CONV:
        return PreActConv(first, width, size), width
    if kind is Kind.MAX_POOL:
        return MaxPool2d(size, stride=1, padding=size // 2), first
    if kind is Kind.AVERAGE_POOL:
        return nn.AvgPool2d(size, stride=1, padding=size // 2), first
    if kind is Kind.ADD:
        return ResidualAdd(None), first
    return None, first + second if kind is Kind.CONCAT else first


@register
def block_qnn_s(**options: Any) -> BlockQNN:
    """Block-QNN-S, N = 2."""
    return BlockQNN(BLOCK_S, 2, (80, 160, 320), **options)


@register
def block_qnn_b(**options: Any) -> BlockQNN:
    """Block-QNN-B, N = 4."""
    return BlockQNN(BLOCK_B, 4, (32, 64, 128), **options)
