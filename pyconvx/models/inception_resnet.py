"""Inception-ResNet: Inception modules as residual branches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import Conv2d, MaxPool2d, ResidualAdd
from ._inception import Branches, average_and, column, conv, row
from ._initialize import initialize
from ._registry import register


class InceptionResidual(nn.Module):
    """relu(x + scale * conv(branches(x))), with a linear 1 x 1 convolution (section 3.2) and scaling (section 3.3).

    Args:
        channels: of input and output.
        width: channels of the branches together.
        scale: of the residual.
        activation: ``'relu'`` or None.
        branches: modules on x, side by side.
    """

    def __init__(
        self, channels: int, width: int, scale: float, *branches: nn.Module, activation: str | None = "relu"
    ) -> None:
        super().__init__()
        self.names = [f"branch{i}" for i in range(len(branches))]
        for name, branch in zip(self.names, branches, strict=True):
            self.add_module(name, branch)
        self.conv2d = Conv2d(width, channels, 1)
        self.scale = scale
        self.add = ResidualAdd(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(x + scale * F(x))."""
        mixed = torch.cat([getattr(self, name)(x) for name in self.names], 1)
        return self.add(self.conv2d(mixed) * self.scale, x)


class InceptionResNetV1(nn.Module):
    """Szegedy, Ioffe, Vanhoucke and Alemi (2016, "Inception-v4, Inception-ResNet", figure 15), at the cost of v3.

    Read from the figures: stem 14, modules 10, 11 and 13, reductions 7 (k, l, m, n = 192, 192, 256, 384) and 12. All
    convolutions but the modules' last have batch norm and no bias. Figure 15 prints no count to compare with.

    Input 3 x 299 x 299; 22,756,328 parameters, 6.21 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        depths: numbers of modules A, B and C.
        dropout: before the linear layer; the paper keeps 0.8.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 75.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        depths: tuple[int, int, int] = (5, 10, 5),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(in_channels, 32, 3, stride=2),
            conv(32, 32, 3),
            conv(32, 64, 3, padding=1),
            MaxPool2d(3, stride=2),
            conv(64, 80, 1),
            conv(80, 192, 3),
            conv(192, 256, 3, stride=2),
            *(_block35(256, (32, 32, 32)) for _ in range(depths[0])),
            _reduction_a(256, 192, 192, 256),
            *(_block17(896, 128, 128, 128) for _ in range(depths[1])),
            _reduction_b(896, 256, 256, 256),
            *(_block8(1792, 192, 192) for _ in range(depths[2])),
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1792, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1)
        return self.fc(self.dropout(x))


class InceptionResNetV2(nn.Module):
    """Szegedy, Ioffe, Vanhoucke and Alemi (2016, "Inception-v4, Inception-ResNet", figure 15), at the cost of v4.

    The sizes are those of the authors' code: the stem is that of Inception v3, the modules come 10, 20 and 10 times,
    and a 1 x 1 convolution is last. The names in the state_dict are timm's.

    Input 3 x 299 x 299; 55,843,464 parameters, 13.16 G multiply-adds.

    Args:
        num_classes, in_channels: of output and input.
        depths: numbers of modules A, B and C.
        dropout: before the linear layer; the paper keeps 0.8.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 75.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        depths: tuple[int, int, int] = (10, 20, 10),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.conv2d_1a = conv(in_channels, 32, 3, stride=2)
        self.conv2d_2a = conv(32, 32, 3)
        self.conv2d_2b = conv(32, 64, 3, padding=1)
        self.maxpool_3a = MaxPool2d(3, stride=2)
        self.conv2d_3b = conv(64, 80, 1)
        self.conv2d_4a = conv(80, 192, 3)
        self.maxpool_5a = MaxPool2d(3, stride=2)
        self.mixed_5b = Branches(
            branch0=conv(192, 96, 1),
            branch1=nn.Sequential(conv(192, 48, 1), conv(48, 64, 5, padding=2)),
            branch2=nn.Sequential(conv(192, 64, 1), conv(64, 96, 3, padding=1), conv(96, 96, 3, padding=1)),
            branch3=average_and(conv(192, 64, 1)),
        )
        self.repeat = nn.Sequential(*(_block35(320, (32, 48, 64)) for _ in range(depths[0])))
        self.mixed_6a = _reduction_a(320, 256, 256, 384)
        self.repeat_1 = nn.Sequential(*(_block17(1088, 128, 160, 192) for _ in range(depths[1])))
        self.mixed_7a = _reduction_b(1088, 288, 288, 320)
        self.repeat_2 = nn.Sequential(*(_block8(2080, 224, 256) for _ in range(depths[2] - 1)))
        self.block8 = _block8(2080, 224, 256, scale=1.0, activation=None)
        self.conv2d_7b = conv(2080, 1536, 1)
        self.dropout = nn.Dropout(dropout)
        self.classif = nn.Linear(1536, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.maxpool_5a(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.repeat(self.mixed_5b(x))
        x = self.repeat_1(self.mixed_6a(x))
        x = self.block8(self.repeat_2(self.mixed_7a(x)))
        x = torch.flatten(F.adaptive_avg_pool2d(self.conv2d_7b(x), 1), 1)
        return self.classif(self.dropout(x))


def _block35(channels: int, widths: tuple[int, int, int]) -> InceptionResidual:
    """Figures 10 and 16, at 35 x 35."""
    one, two, three = widths
    return InceptionResidual(
        channels,
        32 + 32 + three,
        0.17,
        conv(channels, 32, 1),
        nn.Sequential(conv(channels, 32, 1), conv(32, 32, 3, padding=1)),
        nn.Sequential(conv(channels, one, 1), conv(one, two, 3, padding=1), conv(two, three, 3, padding=1)),
    )


def _block17(channels: int, first: int, middle: int, last: int) -> InceptionResidual:
    """Figures 11 and 17, at 17 x 17."""
    return InceptionResidual(
        channels,
        last + last,
        0.10,
        conv(channels, last, 1),
        nn.Sequential(conv(channels, first, 1), row(first, middle, 7), column(middle, last, 7)),
    )


def _block8(
    channels: int, middle: int, last: int, scale: float = 0.20, activation: str | None = "relu"
) -> InceptionResidual:
    """Figures 13 and 19, at 8 x 8."""
    return InceptionResidual(
        channels,
        192 + last,
        scale,
        conv(channels, 192, 1),
        nn.Sequential(conv(channels, 192, 1), row(192, middle, 3), column(middle, last, 3)),
        activation=activation,
    )


def _reduction_a(channels: int, k: int, l: int, m: int) -> Branches:  # noqa: E741
    """Figure 7: 35 x 35 to 17 x 17."""
    return Branches(
        branch0=conv(channels, 384, 3, stride=2),
        branch1=nn.Sequential(conv(channels, k, 1), conv(k, l, 3, padding=1), conv(l, m, 3, stride=2)),
        branch2=MaxPool2d(3, stride=2),
    )


def _reduction_b(channels: int, one: int, two: int, three: int) -> Branches:
    """Figures 12 and 18: 17 x 17 to 8 x 8."""
    return Branches(
        branch0=nn.Sequential(conv(channels, 256, 1), conv(256, 384, 3, stride=2)),
        branch1=nn.Sequential(conv(channels, 256, 1), conv(256, one, 3, stride=2)),
        branch2=nn.Sequential(conv(channels, 256, 1), conv(256, two, 3, padding=1), conv(two, three, 3, stride=2)),
        branch3=MaxPool2d(3, stride=2),
    )


@register
def inception_resnet_v1(**options: Any) -> InceptionResNetV1:
    """Inception-ResNet v1."""
    return InceptionResNetV1(**options)


@register
def inception_resnet_v2(**options: Any) -> InceptionResNetV2:
    """Inception-ResNet v2."""
    return InceptionResNetV2(**options)
