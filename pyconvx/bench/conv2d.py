"""Convolutions in all passes: pyconvx's beside torch's, checked against float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional, ops
from .case import Case, Operands
from .match import matches
from .shapes import Conv

PASSES = ("fprop", "dgrad", "wgrad")


def cases(shapes: Sequence[Conv], passes: Sequence[str], operands: Operands) -> Iterator[Case]:
    """Yield a case for every shape and pass; each holds tensors, so use it before the next."""
    for shape in shapes:
        x = operands.image(shape.c, shape.h, shape.w)
        w = operands.filters(shape.k, shape.c // shape.groups, shape.r, shape.s)
        gy = operands.image(shape.k, shape.p, shape.q)
        for pass_ in passes:
            yield Case(
                count=shape.times,
                shape=str(shape),
                pass_=pass_,
                work=2 * shape.macs * operands.batch,
                ours=partial(_ours, shape, pass_, x, w, gy),
                torch=partial(_torch, shape, pass_, x, w, gy),
                match=partial(_match, shape, pass_, x, w, gy),
            )


def _ours(shape: Conv, pass_: str, x: Tensor, w: Tensor, gy: Tensor) -> Tensor:
    if pass_ == "fprop":
        return functional.conv2d(x, w, None, shape.stride, shape.padding, 1, shape.groups)
    vertical, horizontal = shape.padding
    geometry = ((shape.stride,) * 2, (vertical, vertical, horizontal, horizontal), (1, 1), shape.groups)
    if pass_ == "dgrad":
        return ops.conv2d_dgrad(gy, w, (shape.h, shape.w), *geometry)
    return ops.conv2d_wgrad(gy, x, (shape.r, shape.s), *geometry, False)[0]


def _torch(shape: Conv, pass_: str, x: Tensor, w: Tensor, gy: Tensor) -> Tensor:
    if pass_ == "fprop":
        return F.conv2d(x, w, None, shape.stride, shape.padding, 1, shape.groups)
    dgrad = pass_ == "dgrad"
    grads = torch.ops.aten.convolution_backward(
        gy, x, w, None, (shape.stride,) * 2, shape.padding, (1, 1), False, (0, 0), shape.groups,
        (dgrad, not dgrad, False),
    )  # fmt: skip
    return grads[0] if dgrad else grads[1]


def _match(shape: Conv, pass_: str, x: Tensor, w: Tensor, gy: Tensor) -> str:
    exact = (x.double(), w.double(), gy.double())
    scale = _torch(shape, pass_, *(values.square() for values in exact)).sqrt()
    length = {
        "fprop": shape.c // shape.groups * shape.r * shape.s,
        "dgrad": shape.k // shape.groups * shape.r * shape.s,
        "wgrad": x.shape[0] * shape.p * shape.q,
    }[pass_]
    return matches(_ours(shape, pass_, x, w, gy), _torch(shape, pass_, *exact), scale, length)
