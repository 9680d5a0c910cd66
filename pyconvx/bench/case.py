"""One line of a benchmark: a call of ours, torch's that does the same, and the check of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """What is timed and checked for one shape and one pass."""

    count: int
    """How often the network has this layer."""
    shape: str
    pass_: str
    work: float
    """Floating-point operations, or bytes that have to be read and written, of one call."""
    ours: Callable[[], Any]
    torch: Callable[[], Any]
    match: Callable[[], str]
    """Run ours once and compare it with float64."""


class Operands:
    """Makes the tensors of a benchmark: normally distributed, independent, the same in every run.

    Args:
        batch: N.
        dtype, memory_format, device: of the tensors.
    """

    def __init__(
        self, batch: int, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
    ) -> None:
        self.batch = batch
        self.dtype = dtype
        self.memory_format = memory_format
        self.device = device
        self._generator = torch.Generator().manual_seed(0)

    def image(self, c: int, h: int, w: int) -> Tensor:
        """Return N x C x H x W values."""
        return self.filters(self.batch, c, h, w)

    def filters(self, k: int, c: int, r: int, s: int) -> Tensor:
        """Return K x C x R x S values."""
        values = torch.randn((k, c, r, s), generator=self._generator).to(self.device, self.dtype)
        return values.contiguous(memory_format=self.memory_format)


def nbytes(*tensors: Tensor) -> int:
    """Return the bytes that the tensors hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
