"""SegNet: a decoder that unpools by the encoder's pooling indices."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, MaxUnpool2d, Sequential
from ._initialize import initialize
from ._registry import register

_STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Channels, in multiples of the first stage's, and number of convolutions of VGG-16's stages."""


class SegNet(nn.Module):
    """Badrinarayanan, Kendall and Cipolla (2015, "SegNet: a deep convolutional encoder-decoder", section 3, figure 2).

    The decoder mirrors VGG-16's thirteen convolutions, with batch norm and ReLU behind each but the last. An index is
    kept as the winner's offset in its window, in one byte (the paper counts 2 bits).

    Input 3 x 360 x 480; 29,449,932 parameters, 106.39 G multiply-adds (11 classes of CamVid and the unlabelled).

    Args:
        num_classes, in_channels: of output and input.
        width: channels of the first stage.

    Shape: (N, in_channels, H, W) -> (N, num_classes, H, W); H and W at least 32.
    """

    def __init__(self, num_classes: int = 12, in_channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        channels = in_channels
        for multiple, depth in _STAGES:
            filters = multiple * width
            self.encoder.append(_convs([channels] + [filters] * depth))
            self.decoder.insert(0, _convs([filters] * depth + [channels]))
            channels = filters
        self.decoder[-1] = Sequential(*_convs([width, width]), Conv2d(width, num_classes, 3, padding=1))
        self.pool = MaxPool2d(2, return_indices=True, index_dtype=torch.uint8)
        self.unpool = MaxUnpool2d(2)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        poolings = []
        for convs in self.encoder:
            x = convs(x)
            size = x.shape[-2:]
            x, indices = self.pool(x)
            poolings.append((indices, size))
        for convs in self.decoder:
            indices, size = poolings.pop()
            x = convs(self.unpool(x, indices, output_size=size))
        return x


def _convs(channels: list[int]) -> Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return Sequential(*layers)


@register
def segnet(**options: Any) -> SegNet:
    """SegNet."""
    return SegNet(**options)
