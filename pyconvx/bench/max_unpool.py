"""Max unpooling and its gradient: pyconvx's, from indices of either form, beside torch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional, ops
from .case import Case, Operands, nbytes
from .match import matches_exactly
from .max_pool import PASSES as PASSES
from .max_pool import geometry, window
from .shapes import Pool


def cases(
    shapes: Sequence[Pool], passes: Sequence[str], operands: Operands, index_dtype: torch.dtype
) -> Iterator[Case]:
    """Yield a case for every pooling, undone, and pass. ``index_dtype`` is that of our indices; torch's are int64.

    Where windows overlap torch keeps any one of the values that belong in one place, ours the last; the values here are
    the pooled ones, which are equal if their place is.
    """
    for shape in shapes:
        x = operands.image(shape.c, shape.h, shape.w)
        pooled, flat = F.max_pool2d(x, *window(shape), return_indices=True)
        _, indices = functional.max_pool2d(x, *window(shape), return_indices=True, index_dtype=index_dtype)
        for pass_ in passes:
            make = _fprop if pass_ == "fprop" else _dgrad
            yield make(shape, x, pooled, indices, flat)


def _fprop(shape: Pool, x: Tensor, pooled: Tensor, indices: Tensor, flat: Tensor) -> Case:
    ours = partial(functional.max_unpool2d, pooled, indices, *window(shape), (shape.h, shape.w))

    def match() -> str:
        planes = pooled.new_zeros((*pooled.shape[:2], shape.h * shape.w), dtype=torch.float64)
        planes.scatter_(2, flat.flatten(2), pooled.double().flatten(2))
        return matches_exactly(ours(), planes.view(x.shape))

    return Case(
        count=shape.times,
        shape=str(shape),
        pass_="fprop",
        work=nbytes(pooled, indices, x),
        ours=ours,
        torch=partial(F.max_unpool2d, pooled, flat, *window(shape), (shape.h, shape.w)),
        match=match,
    )


def _dgrad(shape: Pool, x: Tensor, pooled: Tensor, indices: Tensor, flat: Tensor) -> Case:
    ours = partial(ops.max_unpool2d_backward, x, indices, *geometry(shape), (shape.h, shape.w))

    def gather(image: Tensor) -> Tensor:
        # What torch's autograd runs: max_unpool2d has no gradient operation of its own.
        return image.flatten(2).gather(2, flat.flatten(2)).view(flat.shape)

    def match() -> str:
        order = torch.arange(flat[0, 0].numel(), device=flat.device).expand_as(flat.flatten(2))
        last = torch.full(x.flatten(2).shape, -1, device=flat.device)
        last.scatter_reduce_(2, flat.flatten(2), order, "amax")
        won = (last.gather(2, flat.flatten(2)) == order).view(flat.shape)
        return matches_exactly(ours(), gather(x.double()) * won)

    return Case(
        count=shape.times,
        shape=str(shape),
        pass_="dgrad",
        work=nbytes(pooled, indices, pooled),
        ours=ours,
        torch=partial(gather, x),
        match=match,
    )
