"""Checks on the tensors of a call that need no geometry: rank, dtype, device, size. Geometry is checked by the
problem structs of ``pyconvx._C``, which every backend shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import InvalidCall

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_AXES = {
    "bias": "(K,)",
    "weight": "(K, C / groups, R, S)",
    ("conv_transpose2d", "weight"): "(C, K / groups, R, S)",
}


def refuse(op: str, sentence: str) -> NoReturn:
    raise InvalidCall(f"{op}: {sentence}")


def show(sizes: Sequence[object]) -> str:
    """Sizes as a user writes them: ``(1, 3, 8, 8)``."""
    return "(" + ", ".join(str(size) for size in sizes) + ("," if len(sizes) == 1 else "") + ")"


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_tensor(op: str, name: str, value: object) -> None:
    """Raise unless ``value`` is a tensor at all."""
    if not isinstance(value, Tensor):
        refuse(op, f"{name} is of type {type(value).__name__}, expected a torch.Tensor; torch.as_tensor() makes one")


def check_operand(op: str, name: str, tensor: Tensor, rank: int | None = None, like: Tensor | None = None) -> None:
    """Raise unless ``tensor`` is a dense floating-point tensor of ``rank`` dimensions (None: of any), with the dtype
    and device of ``like`` (the operation's input) where one is given."""
    if tensor.layout is not torch.strided:
        refuse(op, f"{name} has the layout {tensor.layout}, expected a dense tensor; call {name}.to_dense()")
    if rank is not None and tensor.dim() != rank:
        refuse(op, f"{name} has {tensor.dim()} dimensions, shape {show(tensor.shape)}, expected {rank}; "
                   f"reshape it to {_AXES.get((op, name)) or _AXES.get(name, '(N, C, H, W)')}")  # fmt: skip
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


def describe(op: str, kind: Callable[..., Any], **fields: Any) -> Any:
    """Return the problem of this kind and these fields; raise InvalidCall with its sentence if it makes no sense."""
    try:
        problem = kind(**fields)
    except TypeError:  # of ints, which is all that comes here, only those of more than 64 bits
        numbers = ", ".join(f"{name}={value}" for name, value in fields.items() if type(value) in (int, tuple))
        refuse(op, f"sizes and steps must fit into 64 bits, got {numbers}; use smaller ones")
    refusal = problem.refusal()
    if refusal:
        refuse(op, refusal.partition(": ")[2])  # in the name of the operation, not of its problem
    return problem
