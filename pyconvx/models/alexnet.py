"""AlexNet, in two groups as trained on two GPUs, and in one tower."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register


class AlexNet(nn.Module):
    """AlexNet in one tower (Krizhevsky 2014, "One weird trick for parallelizing CNNs", section 5).

    The names in the state_dict are torchvision's.

    Input 3 x 224 x 224; 61,100,840 parameters, 0.71 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: of the two hidden linear layers.
        hidden: their width.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 63.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.5, hidden: int = 4096
    ) -> None:
        super().__init__()
        self.features = Sequential(
            Conv2d(in_channels, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = _classifier(num_classes, dropout, hidden)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class TwoGroupAlexNet(nn.Module):
    """AlexNet as first published (Krizhevsky, Sutskever and Hinton 2012, section 3.5 and figure 2).

    The second, fourth and fifth convolutions see one half of the channels each, those of the same GPU. Responses are
    normalized across channels behind the first two (section 3.3). The image is padded to 228, so that the first
    convolution gives the paper's 55 x 55.

    Input 3 x 224 x 224; 60,965,224 parameters, 0.72 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: of the two hidden linear layers.
        hidden: their width.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 63.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.5, hidden: int = 4096
    ) -> None:
        super().__init__()
        self.features = Sequential(
            Conv2d(in_channels, 96, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            response_norm(),
            MaxPool2d(3, stride=2),
            Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            response_norm(),
            MaxPool2d(3, stride=2),
            Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = _classifier(num_classes, dropout, hidden)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def response_norm() -> nn.LocalResponseNorm:
    """Local response normalization, section 3.3: n = 5, alpha = 1e-4, beta = 0.75, k = 2; torch divides alpha by n."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)


def _classifier(num_classes: int, dropout: float, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(256 * 6 * 6, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, num_classes),
    )


@register
def alexnet(**options: Any) -> AlexNet:
    """AlexNet in one tower."""
    return AlexNet(**options)


@register
def alexnet_two_groups(**options: Any) -> TwoGroupAlexNet:
    """AlexNet of 2012."""
    return TwoGroupAlexNet(**options)
