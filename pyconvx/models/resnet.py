"""Residual networks, the plain networks they were compared with, and ResNeXt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, Sequential, fused_conv
from ._initialize import initialize
from ._registry import register


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2015, figure 5, left).

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the first convolution.
        groups, width: 1 and ``channels``; other blocks differ.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = fused_conv(x, self.conv1, self.bn1, "relu")
        return fused_conv(x, self.conv2, self.bn2, "relu", residual=shortcut)


class PlainBlock(nn.Module):
    """A :class:`BasicBlock` without its shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x))."""
        x = fused_conv(x, self.conv1, self.bn1, "relu")
        return fused_conv(x, self.conv2, self.bn2, "relu")


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut (He et al. 2015, figure 5, right).

    The stride is that of the 3 x 3 convolution, as in torchvision; the paper's table leaves it open, its authors' code
    has it in the first 1 x 1. With groups it is the block of ResNeXt (Xie et al. 2016, figure 3 c).

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the 3 x 3 convolution.
        groups: of the 3 x 3 convolution, its cardinality.
        width: its channels.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = _projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = fused_conv(x, self.conv1, self.bn1, "relu")
        x = fused_conv(x, self.conv2, self.bn2, "relu")
        return fused_conv(x, self.conv3, self.bn3, "relu", residual=shortcut)


def _projection(in_channels: int, channels: int, stride: int) -> Sequential | None:
    """The shortcut where sizes change, option B of section 3.3; None for the identity."""
    if stride == 1 and in_channels == channels:
        return None
    return Sequential(Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class ResNet(nn.Module):
    """He, Zhang, Ren and Sun (2015, "Deep residual learning for image recognition", table 1 and figure 3).

    The names in the state_dict are torchvision's. Input 3 x 224 x 224. ResNeXt: Xie, Girshick, Dollár, Tu and He (2016,
    "Aggregated residual transformations for deep neural networks", table 1).

    | network          | parameters | multiply-adds |
    |------------------|------------|---------------|
    | plain18          | 11,515,688 |        1.79 G |
    | plain34          | 21,623,848 |        3.64 G |
    | resnet18         | 11,689,512 |        1.81 G |
    | resnet34         | 21,797,672 |        3.66 G |
    | resnet50         | 25,557,032 |        4.09 G |
    | resnet101        | 44,549,160 |        7.80 G |
    | resnet152        | 60,192,808 |       11.51 G |
    | resnext50_32x4d  | 25,028,904 |        4.23 G |
    | resnext101_64x4d | 83,455,272 |       15.46 G |

    Args:
        block: :class:`BasicBlock`, :class:`PlainBlock` or :class:`Bottleneck`.
        depths: numbers of blocks in conv2_x to conv5_x.
        num_classes, in_channels: of output and input.
        groups: cardinality of ResNeXt's blocks.
        width_per_group: channels of each group in the first stage, of 64.
        width: channels of the first stage's blocks and of conv1; each stage doubles them.

    Shape: (N, in_channels, H, W) -> (N, num_classes), any H and W.
    """

    def __init__(
        self,
        block: type[BasicBlock | PlainBlock | Bottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)

        in_channels = width

        def stage(channels: int, depth: int, stride: int) -> nn.Sequential:
            nonlocal in_channels
            blocks = []
            for _ in range(depth):
                inner = channels * groups * width_per_group // 64
                blocks.append(block(in_channels, channels * block.expansion, stride, groups, inner))
                in_channels, stride = channels * block.expansion, 1
            return nn.Sequential(*blocks)

        self.layer1 = stage(width, depths[0], stride=1)
        self.layer2 = stage(2 * width, depths[1], stride=2)
        self.layer3 = stage(4 * width, depths[2], stride=2)
        self.layer4 = stage(8 * width, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = fused_conv(x, self.conv1, self.bn1, "relu")
        x = self.maxpool(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


@register
def plain18(**options: Any) -> ResNet:
    """The plain network of 18 layers."""
    return ResNet(PlainBlock, (2, 2, 2, 2), **options)


@register
def plain34(**options: Any) -> ResNet:
    """The plain network of 34 layers (figure 3, middle)."""
    return ResNet(PlainBlock, (3, 4, 6, 3), **options)


@register
def resnet18(**options: Any) -> ResNet:
    """ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


@register
def resnet34(**options: Any) -> ResNet:
    """ResNet-34 (figure 3, right)."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


@register
def resnet50(**options: Any) -> ResNet:
    """ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


@register
def resnet101(**options: Any) -> ResNet:
    """ResNet-101."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **options)


@register
def resnet152(**options: Any) -> ResNet:
    """ResNet-152."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **options)


@register
def resnext50_32x4d(**options: Any) -> ResNet:
    """ResNeXt-50, 32 groups of 4 channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3), groups=32, width_per_group=4, **options)


@register
def resnext101_64x4d(**options: Any) -> ResNet:
    """ResNeXt-101, 64 groups of 4 channels."""
    return ResNet(Bottleneck, (3, 4, 23, 3), groups=64, width_per_group=4, **options)
