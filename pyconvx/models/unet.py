"""U-Net, for segmentation from few images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Conv2d, ConvTranspose2d, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register


class UNet(nn.Module):
    """Ronneberger, Fischer and Brox (2015, "U-Net: convolutional networks for biomedical segmentation", figure 1).

    With ``padding='valid'``, the paper's, every 3 x 3 convolution takes off a border: 572 x 572 pixels give the labels
    of the inner 388 x 388, and maps from the contracting path are cropped. With ``'same'`` all pixels get a label.

    | network   | input         | parameters | multiply-adds |
    |-----------|---------------|------------|---------------|
    | unet      | 1 x 572 x 572 | 31,030,658 |      150.43 G |
    | unet_same | 1 x 512 x 512 | 31,030,658 |      192.38 G |

    Args:
        num_classes, in_channels: of output and input.
        padding: ``'valid'`` or ``'same'``.
        width: channels of the first level; they double four times.
        dropout: at the end of the contracting path.

    Shape: (N, in_channels, H, W) -> (N, num_classes, H - 184, W - 184), where all the maps to be pooled have even
    sizes; with ``'same'`` (N, num_classes, H, W), H and W at least 16.
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 1,
        *,
        padding: str = "valid",
        width: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.padding = padding
        widths = [width * 2**level for level in range(5)]
        self.contracting = nn.ModuleList(
            _two_convs(before, after, padding) for before, after in pairwise([in_channels, *widths])
        )
        self.pool = MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(ConvTranspose2d(2 * after, after, 2, stride=2) for after in reversed(widths[:-1]))
        self.expanding = nn.ModuleList(_two_convs(2 * after, after, padding) for after in reversed(widths[:-1]))
        self.output = Conv2d(width, num_classes, 1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        skips = []
        for level, convs in enumerate(self.contracting):
            x = convs(self.pool(x) if level else x)
            skips.append(x)
        x = self.dropout(skips.pop())
        for up, convs in zip(self.up, self.expanding, strict=True):
            skip = skips.pop()
            if self.padding == "same":
                x = up(x, output_size=skip.shape[-2:])  # one more than twice as many, where an odd number was halved
            else:
                x = up(x)
                skip = _inner(skip, *x.shape[-2:])
            x = convs(torch.cat([skip, x], 1))
        return self.output(x)


def _two_convs(in_channels: int, out_channels: int, padding: str) -> Sequential:
    return Sequential(
        Conv2d(in_channels, out_channels, 3, padding=padding),
        nn.ReLU(inplace=True),
        Conv2d(out_channels, out_channels, 3, padding=padding),
        nn.ReLU(inplace=True),
    )


def _inner(x: Tensor, height: int, width: int) -> Tensor:
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


@register
def unet(**options: Any) -> UNet:
    """U-Net as in the paper."""
    return UNet(**options)


@register
def unet_same(**options: Any) -> UNet:
    """U-Net that labels every pixel."""
    return UNet(**{"padding": "same", **options})
