"""Fully convolutional networks, which classify every pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidCall
from ..nn import Conv2d, ConvTranspose2d, Sequential, fused_conv
from ._initialize import initialize
from ._registry import register
from .vgg import TABLE_1, vgg_features


class FCN(nn.Module):
    """Long, Shelhamer and Darrell (2014, "Fully convolutional networks for semantic segmentation", figure 3).

    VGG-16 whose linear layers are convolutions, so that a map of scores comes out; scores from poolings 4 and 3 are
    added to it on the way up to the pixels. Upsampling begins bilinear and is learned. The first linear layer's 7 x 7
    filters are padded to keep the size, where the paper pads the image by 100.

    Input 3 x H x W; multiply-adds at 224 x 224.

    | network | parameters  | multiply-adds |
    |---------|-------------|---------------|
    | fcn32s  | 136,152,917 |       21.30 G |
    | fcn16s  | 134,815,994 |       21.30 G |
    | fcn8s   | 134,489,759 |       21.30 G |

    Args:
        stride: of the finest scores: 32, 16 or 8 pixels.
        num_classes, in_channels: of output and input.
        dropout: behind the two hidden layers.
        hidden: their width.

    Shape: (N, in_channels, H, W) -> (N, num_classes, H, W); H and W at least 32.
    """

    def __init__(
        self,
        stride: int,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        dropout: float = 0.5,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        if stride not in (32, 16, 8):
            raise InvalidCall(f"FCN: stride is {stride!r}, expected 32, 16 or 8")
        self.stride = stride
        self.features = vgg_features(TABLE_1["D"], in_channels)
        self.classifier = Sequential(
            Conv2d(512, hidden, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            Conv2d(hidden, num_classes, 1),
        )
        self.score_pool4 = Conv2d(512, num_classes, 1) if stride <= 16 else None
        self.score_pool3 = Conv2d(256, num_classes, 1) if stride <= 8 else None
        self.up_pool4 = _upsampling(num_classes, 2) if stride <= 16 else None
        self.up_pool3 = _upsampling(num_classes, 2) if stride <= 8 else None
        self.up = _upsampling(num_classes, stride)
        initialize(self)
        for module in self.modules():
            if isinstance(module, ConvTranspose2d):
                _set_bilinear(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        size = x.shape[-2:]
        x = pool3 = self.features[:17](x)
        x = pool4 = self.features[17:24](x)
        x = self.classifier(self.features[24:](x))
        if self.up_pool4 is not None and self.score_pool4 is not None:
            x = self.up_pool4(x, output_size=pool4.shape[-2:])
            x = fused_conv(pool4, self.score_pool4, residual=x)
        if self.up_pool3 is not None and self.score_pool3 is not None:
            x = self.up_pool3(x, output_size=pool3.shape[-2:])
            x = fused_conv(pool3, self.score_pool3, residual=x)
        return self.up(x, output_size=size)


class PixelClassifier(Sequential):
    """3 x 3 convolutions at the image's own resolution, and a 1 x 1 that turns each pixel's features into logits.

    The plainest network that labels pixels: nothing is pooled, so a pixel sees 2 * ``depth`` + 1 pixels each way and
    every layer costs what the first does (Long, Shelhamer and Darrell 2014, section 3, is the way around that).

    Input 3 x H x W; 150,869 parameters, 7.55 G multiply-adds at 224 x 224.

    Args:
        num_classes, in_channels: of output and input.
        width: channels of the hidden layers.
        depth: number of 3 x 3 convolutions.

    Shape: (N, in_channels, H, W) -> (N, num_classes, H, W), any H and W.
    """

    def __init__(self, num_classes: int = 21, in_channels: int = 3, *, width: int = 64, depth: int = 5) -> None:
        super().__init__()
        channels = in_channels
        for _ in range(depth):
            self.append(Conv2d(channels, width, 3, padding=1)).append(nn.ReLU(inplace=True))
            channels = width
        self.append(Conv2d(channels, num_classes, 1))
        initialize(self)


def _upsampling(channels: int, factor: int) -> ConvTranspose2d:
    return ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)


@torch.no_grad()
def _set_bilinear(weight: Tensor) -> None:
    """Let a transposed convolution begin as bilinear interpolation, each channel by itself."""
    size = weight.shape[-1]
    tent = 1 - (torch.arange(size, dtype=weight.dtype, device=weight.device) - (size - 1) / 2).abs() / (size / 2)
    identity = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    weight.copy_(identity[:, :, None, None] * tent[:, None] * tent)


@register
def fcn32s(**options: Any) -> FCN:
    """FCN-32s."""
    return FCN(32, **options)


@register
def fcn16s(**options: Any) -> FCN:
    """FCN-16s."""
    return FCN(16, **options)


@register
def fcn8s(**options: Any) -> FCN:
    """FCN-8s."""
    return FCN(8, **options)


@register
def pixel_classifier(**options: Any) -> PixelClassifier:
    """A per-pixel classifier at full resolution."""
    return PixelClassifier(**options)
