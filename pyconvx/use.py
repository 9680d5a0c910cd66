"""``with pyconvx.use():`` sends torch's functional convolutions and poolings to ours, wherever they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from . import functional
from .ops._checks import FLOATING


def _max_pool2d_with_indices(*args: Any, **kwargs: Any) -> Any:
    kwargs["return_indices"] = True
    return functional.max_pool2d(*args, **kwargs)


OURS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.conv2d: functional.conv2d,
    F.conv_transpose2d: functional.conv_transpose2d,
    F.max_pool2d: functional.max_pool2d,
    torch.max_pool2d: functional.max_pool2d,
    F.max_pool2d_with_indices: _max_pool2d_with_indices,
    F.max_unpool2d: functional.max_unpool2d,
}
"""torch's functions, as a mode sees them, and what takes their place."""


class use(TorchFunctionMode):
    """Send the calls of torch's functional convolutions, poolings and unpoolings inside the ``with`` block to ours.

    For models whose ``forward`` calls ``F.conv2d`` or ``F.max_pool2d`` itself, where no layer could be swapped. Tensors
    of dtypes that pyconvx does not compute in (complex, integer) go on to torch.

    Example::

        with pyconvx.use():
            output = model(images)
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        ours = OURS.get(func)
        if ours is None or not _computable(args, kwargs):
            return func(*args, **(kwargs or {}))
        return ours(*args, **(kwargs or {}))


def _computable(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    image = args[0] if args else (kwargs or {}).get("input")
    return isinstance(image, torch.Tensor) and image.dtype in FLOATING
