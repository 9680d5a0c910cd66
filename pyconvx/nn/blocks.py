"""Blocks of several layers that the networks share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import frozen, functional
from .conv import Conv2d


def fused_conv(
    x: Tensor,
    conv: torch.nn.Conv2d,
    bn: torch.nn.BatchNorm2d | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Return activation(bn(conv(x)) + residual), in as few operations as there can be.

    Without a batch norm that is one: the rest is the convolution's epilogue. In evaluation a batch norm is an affine
    map with constants; inside :func:`pyconvx.frozen_filters`, where no gradient is wanted, it is folded into filters
    and bias, once, and there is one operation again. Elsewhere folding at every call would cost more than it saves.

    Layers that are not ours (after ``swap(...).restore()``, in a subclass) or have hooks are called one by one.
    """
    ours = type(conv).forward is Conv2d.forward and "forward" not in vars(conv) and not _has_hooks(conv)
    if bn is None and ours:
        return conv(x, activation=activation, residual=residual)
    if bn is not None and ours and conv.padding_mode == "zeros" and _is_constant(bn):
        weight, bias = _folded(conv, bn)
        return functional.conv2d(
            x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups,
            activation=activation, residual=residual,
        )  # fmt: skip
    x = conv(x) if bn is None else bn(conv(x))
    if residual is not None:
        return functional.residual_add(x, residual, activation)
    # A hook may keep what it was shown, which is then not ours to change.
    return F.relu(x, inplace=not (_has_hooks(conv) or _has_hooks(bn))) if activation == "relu" else x


def _has_hooks(module: torch.nn.Module | None) -> bool:
    return module is not None and bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _is_constant(bn: torch.nn.BatchNorm2d) -> bool:
    """Whether a batch norm is, for now, an affine map that may be folded and kept."""
    return (
        frozen.packed_filters is not None
        and isinstance(bn, torch.nn.modules.batchnorm._BatchNorm)
        and not bn.training
        and bn.running_var is not None
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not _has_hooks(bn)
    )


def _folded(conv: torch.nn.Conv2d, bn: torch.nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return filters and bias of bn(conv(x)), computed in float32 at least and rounded once."""
    constants = (conv.bias, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    def fold() -> tuple[Tensor, Tensor]:
        weight = conv.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        start, mean, variance, gain, shift = (None if value is None else value.to(dtype) for value in constants)
        assert mean is not None and variance is not None
        scale = torch.rsqrt(variance + bn.eps) * (1 if gain is None else gain)
        bias = (-mean if start is None else start - mean) * scale
        filters = weight.to(dtype) * scale[:, None, None, None]
        return filters.to(weight.dtype), (bias if shift is None else bias + shift).to(weight.dtype)

    versions = tuple(
        (id(value), 0 if value.is_inference() else value._version) for value in constants if value is not None
    )
    return frozen.packed(conv.weight, ("batch norm", bn.eps, *versions), fold)


class Sequential(torch.nn.Sequential):
    """``torch.nn.Sequential`` in which a convolution takes the batch norm and the ReLU behind it as :func:`fused_conv`.

    The layers, their order and their names in the state_dict stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the last layer's output."""
        x, layers = input, list(self)
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, Conv2d):
                x = layer(x)
                continue
            bn: Any = layers.pop(0) if layers and type(layers[0]) is torch.nn.BatchNorm2d else None
            relu = bool(layers) and type(layers[0]) is torch.nn.ReLU and not _has_hooks(layers[0])
            if relu:
                layers.pop(0)
            x = fused_conv(x, layer, bn, "relu" if relu else None)
        return x


class ConvBNReLU(torch.nn.Module):
    """relu(batch_norm(conv(x)) + residual), with the names of torchvision's Inception: ``conv`` and ``bn``.

    See :func:`fused_conv` for when it is one operation.

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
        return fused_conv(input, self.conv, self.bn, "relu" if self.relu else None, residual)

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
