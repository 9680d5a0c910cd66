"""A convolutional network upside down, which draws chairs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn import ConvTranspose2d
from ._initialize import initialize
from ._registry import register


class Drawing(NamedTuple):
    """An image, and the logits of its segmentation into chair and background."""

    image: Tensor
    mask: Tensor


class ChairGenerator(nn.Module):
    """Dosovitskiy, Springenberg and Brox (2014, "Learning to generate chairs", figure 2, the 128 x 128 network).

    Style, view and transformation go through two linear layers each and two together; from there, one stream draws the
    image and one its segmentation. Their steps are unpooling, which puts a value into the corner of a 2 x 2 window, and
    a 5 x 5 convolution: together, exactly, a transposed convolution with stride 2. ReLUs leak 0.2.

    The paper's text gives the linear layers. The widths of the maps stand in its figure alone; 8 x 8 x 256 and 256, 92,
    92 for the image and a half of that for the segmentation are how they are read here.

    Input a style (one of ``num_classes``), a view and a transformation; 32,083,006 parameters, 0.65 G multiply-adds.

    Args:
        num_classes: number of styles.
        view: numbers that say where the camera stands: sine and cosine of azimuth and elevation.
        transformation: numbers of the image's transformation: rotation, translation, zoom, stretching, colour.
        out_channels: of the image.

    Shape: (N, num_classes), (N, view), (N, transformation) -> :class:`Drawing` of (N, out_channels, 128, 128) and
    (N, 1, 128, 128).
    """

    def __init__(
        self, num_classes: int = 809, *, view: int = 4, transformation: int = 12, out_channels: int = 3
    ) -> None:
        super().__init__()
        self.style = _linear(num_classes, 512, 512)
        self.view = _linear(view, 512, 512)
        self.transformation = _linear(transformation, 512, 512)
        self.shared = _linear(3 * 512, 1024, 1024)
        self.draw = _stream(256, 256, 92, 92, out_channels)
        self.segment = _stream(128, 128, 46, 46, 1)
        initialize(self)

    def forward(self, style: Tensor, view: Tensor, transformation: Tensor) -> Drawing:
        """Return image and segmentation."""
        x = torch.cat([self.style(style), self.view(view), self.transformation(transformation)], 1)
        x = self.shared(x)
        return Drawing(self.draw(x), self.segment(x))


def _linear(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def _stream(*channels: int) -> nn.Sequential:
    """FC-5 and uconv-1 to uconv-4: 1024 numbers to 8 x 8 x channels[0], to 128 x 128 x channels[-1]."""
    layers = [*_linear(1024, channels[0] * 8 * 8), nn.Unflatten(1, (channels[0], 8, 8))]
    for before, after in pairwise(channels):
        layers += [ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


@register
def chair_generator(**options: Any) -> ChairGenerator:
    """The chair generator."""
    return ChairGenerator(**options)
