"""Xception: Inception taken to its extreme, depthwise separable convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, ResidualAdd, fused_conv
from ._initialize import initialize
from ._registry import register


class SeparableConv2d(nn.Module):
    """A 3 x 3 convolution of each channel by itself, then a 1 x 1 one of all, with nothing between (section 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved map."""
        return self.pointwise(self.conv1(x))


class XceptionBlock(nn.Module):
    """ReLUs, separable convolutions and batch norms beside a linear shortcut (figure 5).

    Args:
        in_channels: of the input.
        widths: of the separable convolutions.
        stride: of the max pooling at the end and of the shortcut's 1 x 1 convolution; neither is there at 1.
        relu: whether it begins with one.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        channels = in_channels
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.ReLU(inplace=bool(layers)), SeparableConv2d(channels, width), nn.BatchNorm2d(width)]
            channels = width
        if not relu:
            layers.pop(0)
        if stride != 1:
            layers.append(MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers)
        self.skip = Conv2d(in_channels, channels, 1, stride, bias=False) if stride != 1 else None
        self.skipbn = nn.BatchNorm2d(channels) if stride != 1 else None
        self.add = ResidualAdd(None)

    def forward(self, x: Tensor) -> Tensor:
        """Return shortcut(x) + F(x)."""
        if self.skip is None:
            return self.add(self.rep(x), x)
        return fused_conv(x, self.skip, self.skipbn, residual=self.rep(x))


class Xception(nn.Module):
    """Chollet (2016, "Xception: deep learning with depthwise separable convolutions", figure 5).

    The names in the state_dict are those of timm's legacy_xception.

    Input 3 x 299 x 299; 22,855,952 parameters, 8.36 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        dropout: before the linear layer (section 4.3).

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 7.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.5) -> None:
        super().__init__()
        # Entry flow
        self.conv1 = Conv2d(in_channels, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = XceptionBlock(64, (128, 128), stride=2, relu=False)
        self.block2 = XceptionBlock(128, (256, 256), stride=2)
        self.block3 = XceptionBlock(256, (728, 728), stride=2)
        # Middle flow
        self.block4 = XceptionBlock(728, (728, 728, 728))
        self.block5 = XceptionBlock(728, (728, 728, 728))
        self.block6 = XceptionBlock(728, (728, 728, 728))
        self.block7 = XceptionBlock(728, (728, 728, 728))
        self.block8 = XceptionBlock(728, (728, 728, 728))
        self.block9 = XceptionBlock(728, (728, 728, 728))
        self.block10 = XceptionBlock(728, (728, 728, 728))
        self.block11 = XceptionBlock(728, (728, 728, 728))
        # Exit flow
        self.block12 = XceptionBlock(728, (728, 1024), stride=2)
        self.conv3 = SeparableConv2d(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConv2d(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = fused_conv(x, self.conv1, self.bn1, "relu")
        x = fused_conv(x, self.conv2, self.bn2, "relu")
        x = self.block3(self.block2(self.block1(x)))
        x = self.block7(self.block6(self.block5(self.block4(x))))
        x = self.block11(self.block10(self.block9(self.block8(x))))
        x = self.block12(x)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        x = F.relu(self.bn4(self.conv4(x)), inplace=True)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return self.fc(self.dropout(x))


@register
def xception(**options: Any) -> Xception:
    """Xception."""
    return Xception(**options)
