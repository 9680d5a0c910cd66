"""The match column: how far a result lies from float64, as a fraction of the error that it may have.

A sum of L products of independent operands with mean zero, accumulated with unit ``eps_sum``, errs by about

    eps_sum * sqrt(L) * sqrt(sum of (a * b)^2)

because its partial sums grow like the root of the sum of squares. The result may err by four times that, and by one
unit of its own dtype, to which it is rounded. The sum of the magnitudes |a * b|, which bounds the error for every data,
would be about sqrt(L) larger still, and would let a convolution pass that had dropped to TF32.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FACTOR = 4.0


def matches(got: Tensor, exact: Tensor, scale: Tensor, length: int) -> str:
    """Return ``'ok 0.12'``: the largest error is 0.12 of what it may be; or ``'FAIL ...'``, and why.

    Args:
        got: the result.
        exact: the same in float64.
        scale: sqrt(sum of (a * b)^2) of every element, in float64.
        length: L, the number of products in an element.
    """
    if got.shape != exact.shape:
        return f"FAIL shape {tuple(got.shape)}"
    eps_sum = torch.finfo(torch.float64 if got.dtype == torch.float64 else torch.float32).eps
    bound = _FACTOR * eps_sum * length**0.5 * scale + torch.finfo(got.dtype).eps * exact.abs()
    error = (got.double() - exact).abs()
    # A sum of nothing but zeros has no error and may have none: 0 / 0 counts as 0.
    fraction = torch.where(error == 0, 0.0, error / bound)
    worst = fraction.max().item() if fraction.numel() else 0.0
    return f"ok {worst:.2g}" if worst <= 1 else f"FAIL {worst:.2g}"


def matches_exactly(got: Tensor, exact: Tensor) -> str:
    """Return ``'ok 0'`` if every element is exact, as it must be where nothing is added, else ``'FAIL ...'``."""
    if got.shape != exact.shape:
        return f"FAIL shape {tuple(got.shape)}"
    wrong = int((got.double() != exact.double()).sum())
    return f"FAIL in {wrong} of {got.numel()}" if wrong else "ok 0"
