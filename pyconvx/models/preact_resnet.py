"""Residual networks with identity mappings: batch norm and ReLU come before the convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, fused_conv
from ._initialize import initialize
from ._registry import register


class PreActBottleneck(nn.Module):
    """Three convolutions, each behind batch norm and ReLU, beside a clean path (He et al. 2016, figures 1 b and 4 e).

    Where sizes change, the shortcut is a 1 x 1 convolution of what the residual branch sees (appendix).

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the 3 x 3 convolution.
        activated: whether the input is activated already, as it is in a network's first block (appendix).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, activated: bool) -> None:
        super().__init__()
        width = channels // 4
        self.bn1 = None if activated else nn.BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = Conv2d(width, channels, 1, bias=False)
        changes = stride != 1 or in_channels != channels
        self.shortcut = Conv2d(in_channels, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x + F(x)."""
        active = x if self.bn1 is None else F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        x = fused_conv(active, self.conv1, self.bn2, "relu")
        x = fused_conv(x, self.conv2, self.bn3, "relu")
        return fused_conv(x, self.conv3, residual=shortcut)


class PreActResNet(nn.Module):
    """He, Zhang, Ren and Sun (2016, "Identity mappings in deep residual networks", ImageNet).

    Input 3 x 224 x 224.

    | network         | parameters | multiply-adds |
    |-----------------|------------|---------------|
    | preact_resnet50 | 25,549,352 |        4.09 G |

    Args:
        depths: numbers of blocks in the four stages.
        num_classes, in_channels: of output and input.

    Shape: (N, in_channels, H, W) -> (N, num_classes), any H and W.
    """

    def __init__(self, depths: Sequence[int], num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        self.blocks = _blocks(64, (256, 512, 1024, 2048), depths)
        self.bn = nn.BatchNorm2d(2048)
        self.fc = nn.Linear(2048, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.maxpool(fused_conv(x, self.conv1, self.bn1, "relu"))
        x = F.relu(self.bn(self.blocks(x)), inplace=True)
        return self.fc(x.mean((2, 3)))


class CifarPreActResNet(nn.Module):
    """He, Zhang, Ren and Sun (2016, table 2 and appendix, CIFAR): three stages of ``depth`` bottlenecks each.

    Input 3 x 32 x 32.

    | network           | layers      | parameters | multiply-adds |
    |-------------------|-------------|------------|---------------|
    | preact_resnet164  | 9 * 18 + 2  |  1,703,258 |        0.25 G |
    | preact_resnet1001 | 9 * 111 + 2 | 10,327,706 |        1.49 G |

    Args:
        depth: number of blocks in each stage.
        num_classes, in_channels: of output and input.

    Shape: (N, in_channels, H, W) -> (N, num_classes), any H and W.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.blocks = _blocks(16, (64, 128, 256), (depth,) * 3)
        self.bn = nn.BatchNorm2d(256)
        self.fc = nn.Linear(256, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = fused_conv(x, self.conv1, self.bn1, "relu")
        x = F.relu(self.bn(self.blocks(x)), inplace=True)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _blocks(channels: int, stages: Sequence[int], depths: Sequence[int]) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for stage, (out_channels, depth) in enumerate(zip(stages, depths, strict=True)):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(PreActBottleneck(channels, out_channels, stride, activated=not blocks))
            channels = out_channels
    return nn.Sequential(*blocks)


@register
def preact_resnet50(**options: Any) -> PreActResNet:
    """Pre-activation ResNet-50 for ImageNet."""
    return PreActResNet((3, 4, 6, 3), **options)


@register
def preact_resnet164(**options: Any) -> CifarPreActResNet:
    """Pre-activation ResNet-164 for CIFAR."""
    return CifarPreActResNet(18, **options)


@register
def preact_resnet1001(**options: Any) -> CifarPreActResNet:
    """Pre-activation ResNet-1001 for CIFAR."""
    return CifarPreActResNet(111, **options)
