"""Blocks of several layers that the networks share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from .conv import Conv2d


class ConvBNReLU(torch.nn.Module):
    """relu(batch_norm(conv(x))), with the names of torchvision's Inception: ``conv`` and ``bn``.

    In training it runs as three operations. In evaluation the batch norm is an affine map with constants, which is
    folded into filters and bias on the fly (scale = gamma / sqrt(var + eps)), and the ReLU is the convolution's
    epilogue: one operation.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: of the convolution; it has no bias.
        eps, momentum: of the batch norm (Ioffe and Szegedy 2015).
        relu: whether there is a ReLU.

    Shape: (N, C, H, W) -> (N, K, P, Q).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.bn = torch.nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)
        self.relu = relu

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return relu(bn(conv(input)) + residual)."""
        conv, bn = self.conv, self.bn
        mean, variance = bn.running_mean, bn.running_var
        if bn.training or mean is None or variance is None:
            output = bn(conv(input))
            if residual is not None:
                return functional.residual_add(output, residual, "relu" if self.relu else None)
            return F.relu(output) if self.relu else output
        scale = bn.weight * torch.rsqrt(variance + bn.eps)
        return functional.conv2d(
            input,
            (conv.weight * scale[:, None, None, None]).to(conv.weight.dtype),
            (bn.bias - mean * scale).to(conv.weight.dtype),
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            activation="relu" if self.relu else None,
            residual=residual,
        )

    def extra_repr(self) -> str:
        return f"relu={self.relu}"


class FactorizedConv2d(torch.nn.Module):
    """An n x n convolution as a 1 x n and then an n x 1 one (Szegedy et al. 2015, section 3.2).

    It needs 2/n of the multiplications of the square one. A stride applies to columns in the first and to rows in the
    second; the padding keeps the size, rounded up, at stride 1 and n odd it is (n - 1) / 2.

    Args:
        in_channels, out_channels: of the pair.
        kernel_size: n, at least 2.
        stride: of the pair, an int or (vertical, horizontal).
        padding: of the pair, an int, (vertical, horizontal) or ``'same'``.
        mid_channels: between the two; out_channels if None.
        bias: whether both have one.
        activation: between the two and behind them: ``'relu'`` or None.

    Shape: (N, C, H, W) -> (N, K, P, Q).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: Any = 1,
        padding: Any = "same",
        *,
        mid_channels: int | None = None,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        vertical, horizontal = functional.pair("FactorizedConv2d", "stride", stride)
        pads: Any = ("same", "same")
        if padding != "same":
            pad_h, pad_w = functional.pair("FactorizedConv2d", "padding", padding)
            pads = ((0, pad_w), (pad_h, 0))
        middle = out_channels if mid_channels is None else mid_channels
        self.conv_1xn = Conv2d(in_channels, middle, (1, kernel_size), (1, horizontal), pads[0], bias=bias)
        self.conv_nx1 = Conv2d(middle, out_channels, (kernel_size, 1), (vertical, 1), pads[1], bias=bias)
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """Return conv_nx1(conv_1xn(input)), each with the activation."""
        middle = self.conv_1xn(input, activation=self.activation)
        return self.conv_nx1(middle, activation=self.activation)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"
