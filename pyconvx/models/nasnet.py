"""NASNet-A: two cells, found by search on CIFAR-10, stacked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import functional
from ..nn import Conv2d, ConvBNReLU, ResidualAdd
from ._initialize import initialize
from ._registry import register


class Separable(nn.Module):
    """ReLU, separable convolution and batch norm, twice (appendix A.4); the stride is the first one's."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1, middle: int = 0) -> None:
        super().__init__()
        middle = middle or in_channels
        self.separable_1 = _separable_conv(in_channels, middle, size, stride)
        self.bn_sep_1 = _bn(middle)
        self.separable_2 = _separable_conv(middle, out_channels, size, 1)
        self.bn_sep_2 = _bn(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved map."""
        x = self.bn_sep_1(self.separable_1(F.relu(x)))
        return self.bn_sep_2(self.separable_2(F.relu(x, inplace=True)))


class ReLUConvBN(nn.Module):
    """ReLU, 1 x 1 convolution and batch norm: what brings a cell's input to its number of channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = _bn(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved map."""
        return self.bn(self.conv(F.relu(x)))


class Cell(nn.Module):
    """What both cells have: their two inputs, brought to one number of channels and one size.

    Args:
        channels: of each of the five combinations.
        x_channels: of the last cell's output, which goes through a 1 x 1 convolution.
        previous_channels: of the output before that.
        previous: what is done to it: ``'squeeze'`` a 1 x 1 convolution, ``'halve'`` two of them on every second pixel,
            each on others, for a map of twice the size, None nothing.
    """

    def __init__(self, channels: int, x_channels: int, previous_channels: int, previous: str | None) -> None:
        super().__init__()
        self.conv_1x1 = ReLUConvBN(x_channels, channels)
        self.previous = previous
        if previous == "squeeze":
            self.conv_prev_1x1 = ReLUConvBN(previous_channels, channels)
        elif previous == "halve":
            self.path_1 = _named(conv=Conv2d(previous_channels, channels // 2, 1, stride=2, bias=False))
            self.path_2 = _named(conv=Conv2d(previous_channels, channels // 2, 1, stride=2, bias=False))
            self.final_path_bn = _bn(channels)
        self.add = ResidualAdd(None)

    def inputs(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Return both inputs as the combinations take them."""
        h = self.conv_1x1(x)
        if self.previous == "squeeze":
            return h, self.conv_prev_1x1(previous)
        if self.previous == "halve":
            p = F.relu(previous)
            shifted = F.pad(p, (-1, 1, -1, 1))
            return h, self.final_path_bn(torch.cat([self.path_1(p), self.path_2(shifted)], 1))
        return h, previous


class NormalCell(Cell):
    """The normal cell (figure 4, left)."""

    def __init__(self, channels: int, x_channels: int, previous_channels: int, previous: str | None) -> None:
        super().__init__(channels, x_channels, previous_channels, previous)
        self.comb_iter_0_left = Separable(channels, channels, 5)
        self.comb_iter_0_right = Separable(channels, channels, 3)
        self.comb_iter_1_left = Separable(channels, channels, 5)
        self.comb_iter_1_right = Separable(channels, channels, 3)
        self.comb_iter_4_left = Separable(channels, channels, 3)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Return the six maps that no combination takes, concatenated."""
        h, p = self.inputs(x, previous)
        average = _average(p)
        combinations = [
            self.add(self.comb_iter_0_left(h), self.comb_iter_0_right(p)),
            self.add(self.comb_iter_1_left(p), self.comb_iter_1_right(p)),
            self.add(_average(h), p),
            self.add(average, average),
            self.add(self.comb_iter_4_left(h), h),
        ]
        return torch.cat([p, *combinations], 1)


class ReductionCell(Cell):
    """The reduction cell (figure 4, right), which halves the map.

    The first of all takes the stem's output as it is, ``previous_channels`` wide: ``previous`` is None.
    """

    def __init__(self, channels: int, x_channels: int, previous_channels: int, previous: str | None) -> None:
        super().__init__(channels, x_channels, previous_channels, previous)
        wide, middle = (previous_channels, channels) if previous is None else (channels, 0)
        self.comb_iter_0_left = Separable(channels, channels, 5, stride=2)
        self.comb_iter_0_right = Separable(wide, channels, 7, stride=2, middle=middle)
        self.comb_iter_1_right = Separable(wide, channels, 7, stride=2, middle=middle)
        self.comb_iter_2_right = Separable(wide, channels, 5, stride=2, middle=middle)
        self.comb_iter_4_left = Separable(channels, channels, 3)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Return the four maps that no combination takes, concatenated."""
        h, p = self.inputs(x, previous)
        maximum = functional.max_pool2d(h, 3, stride=2, padding="same")
        zero = self.add(self.comb_iter_0_left(h), self.comb_iter_0_right(p))
        one = self.add(maximum, self.comb_iter_1_right(p))
        two = self.add(_halving_average(h), self.comb_iter_2_right(p))
        three = self.add(_average(zero), one)
        four = self.add(self.comb_iter_4_left(zero), maximum)
        return torch.cat([one, two, three, four], 1)


class NASNet(nn.Module):
    """Zoph, Vasudevan, Shlens and Le (2017, "Learning transferable architectures", figures 2 and 4, table 2).

    The names in the state_dict are those of timm's nasnetalarge.

    | network       | in the paper | input         | parameters | multiply-adds |
    |---------------|--------------|---------------|------------|---------------|
    | nasnet_mobile | 4 @ 1056     | 3 x 224 x 224 |  5,289,978 |        0.56 G |
    | nasnet_large  | 6 @ 4032     | 3 x 331 x 331 | 88,753,150 |       23.78 G |

    Args:
        repeats: N, the number of normal cells in each stage.
        penultimate: channels of the last map.
        stem: channels of the first convolution.
        num_classes, in_channels: of output and input.
        dropout: before the linear layer.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 3.
    """

    def __init__(
        self,
        repeats: int,
        penultimate: int,
        stem: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        c = penultimate // 24  # six maps of 4 * c channels are the last
        self.conv0 = ConvBNReLU(in_channels, stem, 3, stride=2, eps=1e-3, relu=False)
        self.cell_stem_0 = ReductionCell(c // 4, stem, stem, previous=None)
        self.cell_stem_1 = ReductionCell(c // 2, c, stem, previous="halve")
        self.cells: list[list[str]] = []
        previous_channels, x_channels = c, 2 * c
        for stage in range(3):
            names = []
            for i in range(repeats):
                names.append(f"cell_{6 * stage + i}")  # numbered as in the large network
                previous = "squeeze" if i else "halve"
                self.add_module(names[-1], NormalCell(c, x_channels, previous_channels, previous))
                previous_channels, x_channels = x_channels, 6 * c
            if stage < 2:
                c *= 2
                name = f"reduction_cell_{stage}"
                self.add_module(name, ReductionCell(c, x_channels, previous_channels, previous="squeeze"))
                x_channels = 4 * c
            self.cells.append(names)
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(penultimate, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        stem = self.conv0(x)
        previous = self.cell_stem_0(stem, stem)
        x = self.cell_stem_1(previous, stem)
        for stage, names in enumerate(self.cells):
            if stage:
                # What the reduction cell took as the output before the last is so to the next cell as well.
                x = self.get_submodule(f"reduction_cell_{stage - 1}")(x, previous)
            for name in names:
                previous, x = x, self.get_submodule(name)(x, previous)
        x = torch.flatten(F.adaptive_avg_pool2d(F.relu(x), 1), 1)
        return self.last_linear(self.dropout(x))


def _bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _separable_conv(in_channels: int, out_channels: int, size: int, stride: int) -> nn.Sequential:
    return _named(
        depthwise_conv2d=Conv2d(in_channels, in_channels, size, stride, padding="same", groups=in_channels, bias=False),
        pointwise_conv2d=Conv2d(in_channels, out_channels, 1, bias=False),
    )


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _halving_average(x: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels; the zeros of the padding count, as in the models in circulation."""
    top, bottom, left, right = functional.same_padding(x.shape[2:], (3, 3), (2, 2), (1, 1))
    return F.avg_pool2d(F.pad(x, (left, right, top, bottom)), 3, stride=2)


@register
def nasnet_mobile(**options: Any) -> NASNet:
    """NASNet-A (4 @ 1056)."""
    return NASNet(4, 1056, 32, **options)


@register
def nasnet_large(**options: Any) -> NASNet:
    """NASNet-A (6 @ 4032)."""
    return NASNet(6, 4032, 96, **options)
