"""The residual add with its ReLU, and its gradient: pyconvx's in one pass over memory, beside torch's in two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from .. import functional, ops
from .case import Case, Operands, nbytes
from .match import matches, matches_exactly
from .shapes import Residual

PASSES = ("fprop", "dgrad")


def cases(shapes: Sequence[Residual], passes: Sequence[str], operands: Operands) -> Iterator[Case]:
    """Yield a case for every shape and pass; dgrad is the mask of the ReLU, the gradient of both operands."""
    for shape in shapes:
        x = operands.image(shape.c, shape.h, shape.w)
        residual = operands.image(shape.c, shape.h, shape.w)
        for pass_ in passes:
            yield (_fprop if pass_ == "fprop" else _dgrad)(shape, x, residual)


def _fprop(shape: Residual, x: Tensor, residual: Tensor) -> Case:
    ours = partial(functional.add_relu, x, residual)

    def match() -> str:
        one, other = x.double(), residual.double()
        return matches(ours(), (one + other).relu(), (one.square() + other.square()).sqrt(), 2)

    return Case(
        count=shape.times,
        shape=str(shape),
        pass_="fprop",
        work=nbytes(x, residual, x),
        ours=ours,
        torch=lambda: torch.add(x, residual).relu_(),
        match=match,
    )


def _dgrad(shape: Residual, grad: Tensor, residual: Tensor) -> Case:
    output = residual.relu()
    ours = partial(ops.relu_backward, grad, output)

    def match() -> str:
        return matches_exactly(ours(), torch.where(output > 0, grad.double(), 0.0))

    return Case(
        count=shape.times,
        shape=str(shape),
        pass_="dgrad",
        work=nbytes(grad, output, grad),
        ours=ours,
        torch=partial(torch.ops.aten.threshold_backward, grad, output, 0),
        match=match,
    )
