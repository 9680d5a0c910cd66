"""Network in Network: a small network slid over the image in place of a filter."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register


class NetworkInNetwork(nn.Module):
    """The ImageNet network of Lin, Chen and Yan (2013, "Network in network"), four perceptron convolutions.

    Its sizes are those of the model that the authors released. There is no linear layer: the last perceptron gives one
    map per class, whose mean is the logit (section 3.2).

    Input 3 x 224 x 224; 7,595,176 parameters, 1.10 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: before the last perceptron.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 39.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = Sequential(
            *_mlpconv(Conv2d(in_channels, 96, 11, stride=4), 96, 96),
            MaxPool2d(3, stride=2, ceil_mode=True),
            *_mlpconv(Conv2d(96, 256, 5, padding=2), 256, 256),
            MaxPool2d(3, stride=2, ceil_mode=True),
            *_mlpconv(Conv2d(256, 384, 3, padding=1), 384, 384),
            MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Dropout(dropout),
            *_mlpconv(Conv2d(384, 1024, 3, padding=1), 1024, num_classes),
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.features(x).mean((2, 3))


class CifarNetworkInNetwork(nn.Module):
    """The CIFAR-10 network of Lin, Chen and Yan (2013), three perceptron convolutions.

    Its sizes are those of the model that the authors released.

    Input 3 x 32 x 32; 966,986 parameters, 0.22 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: before the second and the third perceptron.

    Shape: (N, in_channels, H, W) -> (N, num_classes), any H and W.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = Sequential(
            *_mlpconv(Conv2d(in_channels, 192, 5, padding=2), 160, 96),
            MaxPool2d(3, stride=2, padding=1),
            nn.Dropout(dropout),
            *_mlpconv(Conv2d(96, 192, 5, padding=2), 192, 192),
            nn.AvgPool2d(3, stride=2, padding=1),
            nn.Dropout(dropout),
            *_mlpconv(Conv2d(192, 192, 3, padding=1), 192, num_classes),
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.features(x).mean((2, 3))


def _mlpconv(conv: Conv2d, hidden: int, out_channels: int) -> list[nn.Module]:
    """A perceptron of two layers on what a convolution sees at each place (section 3.1): 1 x 1 convolutions."""
    return [
        conv,
        nn.ReLU(inplace=True),
        Conv2d(conv.out_channels, hidden, 1),
        nn.ReLU(inplace=True),
        Conv2d(hidden, out_channels, 1),
        nn.ReLU(inplace=True),
    ]


@register
def nin(**options: Any) -> NetworkInNetwork:
    """Network in Network for ImageNet."""
    return NetworkInNetwork(**options)


@register
def nin_cifar(**options: Any) -> CifarNetworkInNetwork:
    """Network in Network for CIFAR."""
    return CifarNetworkInNetwork(**options)
