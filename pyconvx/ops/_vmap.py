"""Batching rules: how a batch of calls becomes one call, by folding the batch into images or into channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _dispatch_tls_is_dispatch_key_included

_LEGACY: Any = torch._C._parse_dispatch_key("VmapMode")


def is_legacy_vmap() -> bool:
    """Whether the vmap before functorch's is at work: the one behind ``torch.autograd.grad(is_grads_batched=True)``."""
    return _dispatch_tls_is_dispatch_key_included(_LEGACY)


def is_batching() -> bool:
    """Whether tensors may have a batch dimension that they do not show."""
    return _are_functorch_transforms_active() or is_legacy_vmap()


def batch_in_front(size: int, in_dims: tuple[int | None, ...], tensors: tuple[Tensor | None, ...]) -> list[Any]:
    """Return the tensors with the batch dimension, of ``size``, in front; those that have none are expanded."""
    return [
        None if tensor is None else tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


def into_images(tensor: Tensor | None) -> Tensor | None:
    """(B, N, ...) -> (B*N, ...)."""
    return None if tensor is None else tensor.flatten(0, 1)


def out_of_images(tensor: Tensor, size: int) -> Tensor:
    """(B*N, ...) -> (B, N, ...)."""
    return tensor.unflatten(0, (size, tensor.shape[0] // size))


def into_channels(tensor: Tensor | None) -> Tensor | None:
    """(B, N, C, H, W) -> (N, B*C, H, W)."""
    return None if tensor is None else tensor.transpose(0, 1).flatten(1, 2)


def out_of_channels(tensor: Tensor, size: int) -> Tensor:
    """(N, B*C, H, W) -> (B, N, C, H, W)."""
    return tensor.unflatten(1, (size, tensor.shape[1] // size)).transpose(0, 1)


def over_images(operator: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
    """The rule of every operation whose images do not see each other: fold the batch into the images."""
    count = operator.tensors
    tensors = batch_in_front(info.batch_size, in_dims[:count], args[:count])
    results = operator(*map(into_images, tensors), *args[count:])
    if isinstance(results, tuple):
        return tuple(out_of_images(result, info.batch_size) for result in results), (0,) * len(results)
    return out_of_images(results, info.batch_size), 0
