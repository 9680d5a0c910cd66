"""ZFNet: AlexNet, looked into and improved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register
from .alexnet import response_norm


class ZFNet(nn.Module):
    """The network of Zeiler and Fergus (2013, "Visualizing and understanding convolutional networks", figure 3).

    AlexNet with 7 x 7 filters at stride 2 in the first layer, stride 2 in the second, and one group.

    Input 3 x 224 x 224; 62,357,608 parameters, 1.17 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: of the two hidden linear layers.
        hidden: their width.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 53.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.5, hidden: int = 4096
    ) -> None:
        super().__init__()
        self.features = Sequential(
            Conv2d(in_channels, 96, 7, stride=2, padding=1),  # 110 x 110
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2, padding=1),
            response_norm(),
            Conv2d(96, 256, 5, stride=2),  # 26 x 26
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2, padding=1),
            response_norm(),
            Conv2d(256, 384, 3, padding=1),  # 13 x 13
            nn.ReLU(inplace=True),
            Conv2d(384, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


@register
def zfnet(**options: Any) -> ZFNet:
    """ZFNet."""
    return ZFNet(**options)
