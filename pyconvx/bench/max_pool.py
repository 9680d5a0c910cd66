"""Max pooling and its gradient: pyconvx's, with its winners remembered in any form, beside torch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional, ops
from .case import Case, Operands, nbytes
from .match import matches, matches_exactly
from .shapes import Pool

PASSES = ("fprop", "dgrad")


def cases(
    shapes: Sequence[Pool], passes: Sequence[str], operands: Operands, index_dtype: torch.dtype | None
) -> Iterator[Case]:
    """Yield a case for every shape and pass. ``index_dtype`` is ours, None for no indices; torch's are int64."""
    for shape in shapes:
        x = operands.image(shape.c, shape.h, shape.w)
        for pass_ in passes:
            if pass_ == "fprop":
                yield _fprop(shape, x, index_dtype)
            else:
                p, q = functional.max_pool2d(x[:1, :1], *window(shape)).shape[2:]
                yield _dgrad(shape, x, operands.image(shape.c, p, q), index_dtype or torch.uint8)


def window(shape: Pool) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return kernel_size, stride and padding as the functions take them."""
    return (shape.r, shape.s), (shape.stride, shape.stride), (shape.padding, shape.padding)


def geometry(shape: Pool) -> tuple[Any, ...]:
    """Return kernel_size, stride, padding and dilation as the operations take them."""
    return (shape.r, shape.s), (shape.stride,) * 2, (shape.padding,) * 4, (1, 1)


def _fprop(shape: Pool, x: Tensor, index_dtype: torch.dtype | None) -> Case:
    indexed = index_dtype is not None
    options: dict[str, Any] = {"return_indices": True, "index_dtype": index_dtype} if indexed else {}
    ours = partial(functional.max_pool2d, x, *window(shape), **options)

    def values() -> Tensor:
        return ours()[0] if indexed else ours()

    def match() -> str:
        return matches_exactly(values(), F.max_pool2d(x.double(), *window(shape)))

    return Case(
        count=shape.times,
        shape=str(shape),
        pass_="fprop",
        work=nbytes(x, *(ours() if indexed else (ours(),))),
        ours=ours,
        torch=partial(F.max_pool2d, x, *window(shape), return_indices=indexed),
        match=match,
    )


def _dgrad(shape: Pool, x: Tensor, grad: Tensor, index_dtype: torch.dtype) -> Case:
    _, indices = functional.max_pool2d(x, *window(shape), return_indices=True, index_dtype=index_dtype)
    _, flat = F.max_pool2d(x, *window(shape), return_indices=True)
    ours = partial(ops.max_pool2d_backward, grad, indices, (shape.h, shape.w), *geometry(shape), False)

    def reference(grad: Tensor, x: Tensor) -> Tensor:
        return torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *window(shape), (1, 1), False, flat)

    def match() -> str:
        exact, image = grad.double(), x.double()
        return matches(ours(), reference(exact, image), reference(exact.square(), image).sqrt(), shape.r * shape.s)

    return Case(
        count=shape.times,
        shape=str(shape),
        pass_="dgrad",
        work=nbytes(grad, indices, x),
        ours=ours,
        torch=partial(reference, grad, x),
        match=match,
    )
