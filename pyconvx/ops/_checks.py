"""Checks on the tensors of a call that need no geometry: rank, dtype, device, size. Geometry is checked by the
problem structs of ``pyconvx._C``, which every backend shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from ..errors import InvalidCall

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_AXES = {1: "(K,)", 4: "(N, C, H, W)"}


def refuse(op: str, sentence: str) -> NoReturn:
    raise InvalidCall(f"{op}: {sentence}")


def show(sizes: Sequence[object]) -> str:
    """Sizes as a user writes them: ``(1, 3, 8, 8)``."""
    return "(" + ", ".join(str(size) for size in sizes) + ("," if len(sizes) == 1 else "") + ")"


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_operand(op: str, name: str, tensor: Tensor, rank: int | None = None, like: Tensor | None = None) -> None:
    """Raise unless ``tensor`` is a dense floating-point tensor of ``rank`` dimensions (None: of any), with the dtype
    and device of ``like`` (the operation's input) where one is given."""
    if tensor.layout is not torch.strided:
        refuse(op, f"{name} has the layout {tensor.layout}, expected a dense tensor; call {name}.to_dense()")
    if rank is not None and tensor.dim() != rank:
        refuse(op, f"{name} has {tensor.dim()} dimensions, shape {show(tensor.shape)}, expected {rank}; "
                   f"reshape it to {_AXES.get(rank, f'{rank} dimensions')}")  # fmt: skip
    if tensor.dtype not in FLOATING:
        refuse(op, f"{name} has dtype {name_of(tensor.dtype)}, expected float64, float32, bfloat16 or float16; "
                   f"convert it, for example with {name}.float()")  # fmt: skip
    if like is None:
        return
    if tensor.dtype != like.dtype:
        refuse(op, f"{name} has dtype {name_of(tensor.dtype)} but the input has {name_of(like.dtype)}; convert one of "
                   f"them, or run the call under torch.autocast")  # fmt: skip
    if tensor.device != like.device:
        refuse(op, f"{name} is on {tensor.device} but the input is on {like.device}; move one with .to()")


def check_size(op: str, name: str, tensor: Tensor, expected: Sequence[object], why: str) -> None:
    """Raise unless ``tensor`` has exactly the sizes ``expected``; ``why`` says where they come from."""
    if tuple(tensor.shape) != tuple(expected):
        refuse(op, f"{name} has shape {show(tensor.shape)}, expected {show(expected)}: {why}")


def check_choice(op: str, name: str, got: object, allowed: Sequence[object]) -> None:
    """Raise unless ``got`` is one of ``allowed``."""
    if got not in allowed:
        refuse(op, f"{name} is {got!r}, expected one of {', '.join(repr(value) for value in allowed)}")


def raise_refusal(op: str, refusal: str) -> None:
    """Raise the sentence of a problem struct, if it has one."""
    if refusal:
        refuse(op, refusal)
