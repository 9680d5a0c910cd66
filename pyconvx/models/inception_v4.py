"""Inception v4."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import MaxPool2d
from ._inception import Branches, average_and, column, conv, row
from ._initialize import initialize
from ._registry import register


class InceptionC(nn.Module):
    """The module at 8 x 8 (figure 6), with 1 x 3 and 3 x 1 filters side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = conv(1536, 256, 1)
        self.branch1_0 = conv(1536, 384, 1)
        self.branch1_1a = row(384, 256, 3)
        self.branch1_1b = column(384, 256, 3)
        self.branch2_0 = conv(1536, 384, 1)
        self.branch2_1 = column(384, 448, 3)
        self.branch2_2 = row(448, 512, 3)
        self.branch2_3a = row(512, 256, 3)
        self.branch2_3b = column(512, 256, 3)
        self.branch3 = average_and(conv(1536, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs, concatenated."""
        one = self.branch1_0(x)
        two = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        branches = [
            self.branch0(x),
            self.branch1_1a(one),
            self.branch1_1b(one),
            self.branch2_3a(two),
            self.branch2_3b(two),
            self.branch3(x),
        ]
        return torch.cat(branches, 1)


class InceptionV4(nn.Module):
    """Szegedy, Ioffe, Vanhoucke and Alemi (2016, "Inception-v4, Inception-ResNet", figure 9).

    The names in the state_dict are timm's.

    Input 3 x 299 x 299; 42,679,816 parameters, 12.25 G multiply-adds.

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
        depths: tuple[int, int, int] = (4, 7, 3),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_stem(in_channels),
            *(_inception_a() for _ in range(depths[0])),
            _reduction_a(),
            *(_inception_b() for _ in range(depths[1])),
            _reduction_b(),
            *(InceptionC() for _ in range(depths[2])),
        )
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(1536, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1)
        return self.last_linear(self.dropout(x))


def _stem(in_channels: int) -> list[nn.Module]:
    """Figure 3: 299 x 299 to 35 x 35."""
    return [
        conv(in_channels, 32, 3, stride=2),
        conv(32, 32, 3),
        conv(32, 64, 3, padding=1),
        Branches(maxpool=MaxPool2d(3, stride=2), conv=conv(64, 96, 3, stride=2)),
        Branches(
            branch0=nn.Sequential(conv(160, 64, 1), conv(64, 96, 3)),
            branch1=nn.Sequential(conv(160, 64, 1), row(64, 64, 7), column(64, 64, 7), conv(64, 96, 3)),
        ),
        Branches(conv=conv(192, 192, 3, stride=2), maxpool=MaxPool2d(3, stride=2)),
    ]


def _inception_a() -> Branches:
    """Figure 4, at 35 x 35."""
    return Branches(
        branch0=conv(384, 96, 1),
        branch1=nn.Sequential(conv(384, 64, 1), conv(64, 96, 3, padding=1)),
        branch2=nn.Sequential(conv(384, 64, 1), conv(64, 96, 3, padding=1), conv(96, 96, 3, padding=1)),
        branch3=average_and(conv(384, 96, 1)),
    )


def _reduction_a() -> Branches:
    """Figure 7 with k, l, m, n = 192, 224, 256, 384 (table 1): 35 x 35 to 17 x 17."""
    return Branches(
        branch0=conv(384, 384, 3, stride=2),
        branch1=nn.Sequential(conv(384, 192, 1), conv(192, 224, 3, padding=1), conv(224, 256, 3, stride=2)),
        branch2=MaxPool2d(3, stride=2),
    )


def _inception_b() -> Branches:
    """Figure 5, at 17 x 17."""
    return Branches(
        branch0=conv(1024, 384, 1),
        branch1=nn.Sequential(conv(1024, 192, 1), row(192, 224, 7), column(224, 256, 7)),
        branch2=nn.Sequential(
            conv(1024, 192, 1), column(192, 192, 7), row(192, 224, 7), column(224, 224, 7), row(224, 256, 7)
        ),
        branch3=average_and(conv(1024, 128, 1)),
    )


def _reduction_b() -> Branches:
    """Figure 8: 17 x 17 to 8 x 8."""
    return Branches(
        branch0=nn.Sequential(conv(1024, 192, 1), conv(192, 192, 3, stride=2)),
        branch1=nn.Sequential(conv(1024, 256, 1), row(256, 256, 7), column(256, 320, 7), conv(320, 320, 3, stride=2)),
        branch2=MaxPool2d(3, stride=2),
    )


@register
def inception_v4(**options: Any) -> InceptionV4:
    """Inception v4."""
    return InceptionV4(**options)
