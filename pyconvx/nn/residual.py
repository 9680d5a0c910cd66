"""The residual add as a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional
from ..errors import InvalidCall


class ResidualAdd(torch.nn.Module):
    """activation(x + residual), in one pass over memory (He et al. 2015, section 3.2).

    Args:
        activation: ``'relu'`` as in the paper, or None, as in networks with identity mappings (He et al. 2016).

    Shape: two tensors of one shape -> that shape.
    """

    def __init__(self, activation: str | None = "relu") -> None:
        super().__init__()
        if activation not in ("relu", None):
            raise InvalidCall(f"ResidualAdd: activation is {activation!r}, expected 'relu' or None")
        self.activation = activation

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return activation(x + residual)."""
        return functional.residual_add(x, residual, self.activation)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"
