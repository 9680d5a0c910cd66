"""Two conventions of scaling pixels."""

from __future__ import annotations

from torch import Tensor

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_symmetric_range(x: Tensor) -> Tensor:
    """Take pixels normalized by ImageNet's mean and deviation to [-1, 1], where Google trained its networks."""
    mean, deviation = (x.new_tensor(value)[:, None, None] for value in (_MEAN, _DEVIATION))
    return (x * deviation + mean) * 2 - 1
