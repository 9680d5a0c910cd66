"""Memory layout of activations and filters: which of torch's two 4-D formats a result gets.

The rule, torch's own: a result is channels_last when any 4-D operand of the call is, contiguous otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from ._vmap import is_batching


def layout_of(*tensors: Tensor) -> torch.memory_format:
    """Return the memory format that the result of a call on these 4-D tensors has."""
    for tensor in tensors:
        stride = tensor.stride()
        # Channels further apart than columns: contiguous. It settles most tensors without torch's careful reading.
        if stride[1] <= stride[3] and suggest_memory_format(tensor) is torch.channels_last:
            return torch.channels_last
    return torch.contiguous_format


def in_layout(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """Return the values of a 4-D tensor, dense, in ``layout``."""
    if layout is torch.channels_last and is_batching():  # vmap knows contiguous() for torch's first layout only
        return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    tensor = tensor.contiguous(memory_format=layout)
    # Where C or H*W is 1 both layouts hold the same bytes and contiguous() leaves the strides, which tell them apart.
    return tensor if layout_of(tensor) is layout else tensor.clone(memory_format=layout)


def empty(
    like: Tensor, shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype | None = None
) -> Tensor:
    """Allocate a dense 4-D tensor in ``layout`` on the device, and unless one is given of the dtype, of ``like``."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=layout)
