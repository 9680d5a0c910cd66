"""The very deep networks of Oxford's Visual Geometry Group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register
from .alexnet import response_norm

TABLE_1 = {
    "A":     "64        | 128     | 256 256         | 512 512         | 512 512         |",
    "A-LRN": "64 LRN    | 128     | 256 256         | 512 512         | 512 512         |",
    "B":     "64 64     | 128 128 | 256 256         | 512 512         | 512 512         |",
    "C":     "64 64     | 128 128 | 256 256 1x1-256 | 512 512 1x1-512 | 512 512 1x1-512 |",
    "D":     "64 64     | 128 128 | 256 256 256     | 512 512 512     | 512 512 512     |",
    "E":     "64 64     | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512 |",
}  # fmt: skip
"""Table 1: the channels of its convolutions, 3 x 3 where nothing else is said, and its poolings (|)."""


class VGG(nn.Module):
    """Simonyan and Zisserman (2014, "Very deep convolutional networks for large-scale image recognition", table 1).

    The names in the state_dict are torchvision's. Input 3 x 224 x 224.

    | network    | configuration | parameters  | multiply-adds |
    |------------|---------------|-------------|---------------|
    | vgg11      | A             | 132,863,336 |        7.61 G |
    | vgg11_lrn  | A-LRN         | 132,863,336 |        7.61 G |
    | vgg13      | B             | 133,047,848 |       11.31 G |
    | vgg16_c    | C             | 133,638,952 |       11.77 G |
    | vgg16      | D             | 138,357,544 |       15.47 G |
    | vgg19      | E             | 143,667,240 |       19.63 G |
    | vgg11_bn   | A             | 132,868,840 |        7.61 G |
    | vgg13_bn   | B             | 133,053,736 |       11.31 G |
    | vgg16_c_bn | C             | 133,647,400 |       11.77 G |
    | vgg16_bn   | D             | 138,365,992 |       15.47 G |
    | vgg19_bn   | E             | 143,678,248 |       19.63 G |

    Args:
        configuration: a column of table 1.
        num_classes, in_channels: of output and input.
        batch_norm: whether there is one behind every convolution (not in the paper).
        dropout: of the two hidden linear layers.
        hidden: their width.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 32.
    """

    def __init__(
        self,
        configuration: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        batch_norm: bool = False,
        dropout: float = 0.5,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        self.features = vgg_features(TABLE_1[configuration], in_channels, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, hidden),
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


def vgg_features(column: str, channels: int, batch_norm: bool = False) -> Sequential:
    """Build the convolutions and poolings of a column of table 1."""
    layers: list[nn.Module] = []
    for entry in column.split():
        if entry == "|":
            layers.append(MaxPool2d(2))
        elif entry == "LRN":
            layers.append(response_norm())
        else:
            size, filters = (1 if "1x1" in entry else 3), int(entry.removeprefix("1x1-"))
            layers.append(Conv2d(channels, filters, size, padding=size // 2))
            layers += [nn.BatchNorm2d(filters)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = filters
    return Sequential(*layers)


@register
def vgg11(**options: Any) -> VGG:
    """VGG, configuration A."""
    return VGG("A", **options)


@register
def vgg11_lrn(**options: Any) -> VGG:
    """VGG, configuration A-LRN."""
    return VGG("A-LRN", **options)


@register
def vgg13(**options: Any) -> VGG:
    """VGG, configuration B."""
    return VGG("B", **options)


@register
def vgg16_c(**options: Any) -> VGG:
    """VGG, configuration C."""
    return VGG("C", **options)


@register
def vgg16(**options: Any) -> VGG:
    """VGG, configuration D."""
    return VGG("D", **options)


@register
def vgg19(**options: Any) -> VGG:
    """VGG, configuration E."""
    return VGG("E", **options)


@register
def vgg11_bn(**options: Any) -> VGG:
    """VGG, configuration A, with batch norm."""
    return VGG("A", batch_norm=True, **options)


@register
def vgg13_bn(**options: Any) -> VGG:
    """VGG, configuration B, with batch norm."""
    return VGG("B", batch_norm=True, **options)


@register
def vgg16_c_bn(**options: Any) -> VGG:
    """VGG, configuration C, with batch norm."""
    return VGG("C", batch_norm=True, **options)


@register
def vgg16_bn(**options: Any) -> VGG:
    """VGG, configuration D, with batch norm."""
    return VGG("D", batch_norm=True, **options)


@register
def vgg19_bn(**options: Any) -> VGG:
    """VGG, configuration E, with batch norm."""
    return VGG("E", batch_norm=True, **options)
