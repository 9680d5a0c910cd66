"""Pooling and unpooling layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional


class MaxPool2d(torch.nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` by :func:`pyconvx.max_pool2d`.

    Same constructor, plus ``index_dtype``: with ``return_indices``, torch.int64 (torch's form), or torch.uint8 or
    torch.int32 for offsets in the window, which :class:`MaxUnpool2d` takes as well. ``padding`` may also be ``(top,
    bottom, left, right)``, ``'valid'`` or ``'same'``.

    Shape: (N, C, H, W) -> (N, C, P, Q), or without N; the indices likewise.
    """

    index_dtype: torch.dtype = torch.int64

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        index_dtype: torch.dtype = torch.int64,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        if index_dtype != MaxPool2d.index_dtype:
            self.index_dtype = index_dtype

    def forward(self, input: Tensor, *, activation: str | None = None) -> Any:
        """Return the maxima of activation(input) and, with ``return_indices``, where they stood."""
        return functional.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices,
            index_dtype=self.index_dtype, activation=activation,
        )  # fmt: skip


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    """``torch.nn.MaxUnpool2d`` by :func:`pyconvx.max_unpool2d`: same constructor; deterministic.

    Shape: (N, C, P, Q) -> (N, C, H, W), or without N.
    """

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the unpooled image; ``output_size`` is the size of the image that was pooled."""
        return functional.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class NearestUnpool2d(torch.nn.Module):
    """Copies every value into a cell of its own, by :func:`pyconvx.nearest_unpool2d`.

    What ``torch.nn.Upsample(scale_factor=scale, mode='nearest')`` does where ``scale`` is whole.

    Args:
        scale: size of a cell, an int or (vertical, horizontal).

    Shape: (N, C, P, Q) -> (N, C, P * scale_h, Q * scale_w), or without N.
    """

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """Return the image of cells."""
        return functional.nearest_unpool2d(input, self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"
