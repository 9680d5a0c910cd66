"""Windows of 3 x 3 at stride 2 with TensorFlow's 'SAME' padding, which gives ceil(H / 2) rows for any H."""

from __future__ import annotations

from torch import Tensor, nn

from .. import functional


def halving_padding(x: Tensor) -> tuple[int, int, int, int]:
    """Return the padding as top, bottom, left, right; an even size gets none before it."""
    return x.shape[-2] % 2, 1, x.shape[-1] % 2, 1


def halving_max_pool(x: Tensor) -> Tensor:
    """Return the maxima of the windows."""
    return functional.max_pool2d(x, 3, stride=2, padding=halving_padding(x))


class HalvingMaxPool2d(nn.Module):
    """:func:`halving_max_pool` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima of the windows."""
        return halving_max_pool(x)
