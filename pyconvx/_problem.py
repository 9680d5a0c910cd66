"""From torch's words to those of ``pyconvx._C``: dtypes, layouts, index types, activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from . import _C

DTYPES = {
    torch.float64: _C.DType.float64,
    torch.float32: _C.DType.float32,
    torch.bfloat16: _C.DType.bfloat16,
    torch.float16: _C.DType.float16,
}
LAYOUTS = {torch.contiguous_format: _C.Layout.nchw, torch.channels_last: _C.Layout.nhwc}
INDEX_TYPES = {
    None: _C.IndexType.none,
    torch.uint8: _C.IndexType.uint8,
    torch.int32: _C.IndexType.int32,
    torch.int64: _C.IndexType.int64,
}
ACTIVATIONS = {"none": _C.Activation.none, "relu": _C.Activation.relu}


@dataclass(frozen=True)
class ElementwiseProblem:
    """An operation on every element of tensors of one shape: no geometry, so nothing to refuse."""

    operation: str
    shape: tuple[int, ...]
    dtype: _C.DType
    activation: _C.Activation

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape))
        return f"{self.operation} {sizes} {self.dtype.name} {self.activation.name}"
