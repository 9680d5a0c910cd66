"""DeconvNet: VGG-16 and its mirror image."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, ConvTranspose2d, MaxPool2d, MaxUnpool2d, Sequential
from ._initialize import initialize
from ._registry import register

_STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Channels, in multiples of the first stage's, and number of convolutions of VGG-16's stages."""


class DeconvNet(nn.Module):
    """Noh, Hong and Han (2015, "Learning deconvolution network for semantic segmentation", table 2).

    VGG-16 with its linear layers as convolutions down to 1 x 1, and the mirror image of it: unpooling by the switches,
    here of one byte each, and transposed convolutions. There is a batch norm behind every layer but the last.

    Input 3 x 224 x 224; 251,805,653 parameters, 32.75 G multiply-adds (20 classes of PASCAL VOC and the background).

    Args:
        num_classes, in_channels: of output and input.
        width: channels of the first stage.
        hidden: channels of the 1 x 1 map.

    Shape: (N, in_channels, H, W) -> (N, num_classes, H, W); H and W at least 224.
    """

    def __init__(self, num_classes: int = 21, in_channels: int = 3, *, width: int = 64, hidden: int = 4096) -> None:
        super().__init__()
        self.conv = nn.ModuleList()
        self.deconv = nn.ModuleList()
        channels = in_channels
        for multiple, depth in _STAGES:
            filters = multiple * width
            down = pairwise([channels] + [filters] * depth)
            up = pairwise([filters] * depth + [channels if multiple > 1 else width])
            self.conv.append(_layers(*(Conv2d(a, b, 3, padding=1) for a, b in down)))
            self.deconv.insert(0, _layers(*(ConvTranspose2d(a, b, 3, padding=1) for a, b in up)))
            channels = filters
        self.pool = MaxPool2d(2, return_indices=True, index_dtype=torch.uint8)
        self.unpool = MaxUnpool2d(2)
        self.fc = _layers(
            Conv2d(8 * width, hidden, 7), Conv2d(hidden, hidden, 1), ConvTranspose2d(hidden, 8 * width, 7)
        )
        self.score = Conv2d(width, num_classes, 1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        poolings = []
        for layers in self.conv:
            x = layers(x)
            size = x.shape[-2:]
            x, switches = self.pool(x)
            poolings.append((switches, size))
        x = self.fc(x)
        for layers in self.deconv:
            switches, size = poolings.pop()
            x = layers(self.unpool(x, switches, output_size=size))
        return self.score(x)


def _layers(*convs: Conv2d | ConvTranspose2d) -> Sequential:
    layers: list[nn.Module] = []
    for conv in convs:
        layers += [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]
    return Sequential(*layers)


@register
def deconvnet(**options: Any) -> DeconvNet:
    """DeconvNet."""
    return DeconvNet(**options)
