"""Convolution layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ..errors import InvalidCall


class Conv2d(torch.nn.Conv2d):
    """``torch.nn.Conv2d`` by :func:`pyconvx.conv2d`.

    Same constructor, attributes and state_dict. ``padding`` may also be ``(top, bottom, left, right)``, and ``'same'``
    goes with any stride. The fused forms are arguments of the call: ``layer(x, activation='relu', residual=y)``.

    Shape: (N, C, H, W) -> (N, K, P, Q), or without N; C = in_channels, K = out_channels.
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
        bias: bool = True,
        padding_mode: Any = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        four_sides = isinstance(padding, (tuple, list)) and len(padding) == 4
        ours = four_sides or (padding == "same" and set(functional.pair("Conv2d", "stride", stride)) != {1})
        if ours and padding_mode != "zeros":
            raise InvalidCall(
                f"Conv2d: padding={padding!r} with stride={stride!r} goes with padding_mode='zeros' only, got "
                f"{padding_mode!r}; pad the input yourself with torch.nn.functional.pad"
            )
        # torch's constructor refuses these two forms, and does nothing with the padding but keep it.
        super().__init__(
            in_channels, out_channels, kernel_size, stride, 0 if ours else padding, dilation, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip
        if ours:
            self.padding = tuple(padding) if four_sides else padding

    def forward(self, input: Tensor, *, activation: str | None = None, residual: Tensor | None = None) -> Tensor:
        """Return activation(input * weight + bias + residual); see :func:`pyconvx.conv2d`."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return functional.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups,
            activation=activation, residual=residual,
        )  # fmt: skip


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` by :func:`pyconvx.conv_transpose2d`: same constructor, attributes and state_dict.

    Shape: (N, C, P, Q) -> (N, K, H, W), or without N; C = in_channels, K = out_channels.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution; ``output_size`` (H, W) settles output_padding, as in torch."""
        geometry: Any = (self.stride, self.padding, self.kernel_size, 2, self.dilation)
        output_padding = self._output_padding(input, output_size, *geometry)
        padding: Any = self.padding
        return functional.conv_transpose2d(
            input, self.weight, self.bias, self.stride, padding, output_padding, self.groups, self.dilation
        )
