"""Nearest unpooling: ``pyconvx::nearest_unpool2d`` and its transpose ``nearest_unpool2d_backward``::

    nearest_unpool2d:          output[n, c, h, w] = input[n, c, h // scale_h, w // scale_w]
    nearest_unpool2d_backward: grad_input[n, c, p, q] = sum of grad_output[n, c, h, w] over the cell of (p, q)

A cell's sum is taken in row-major order, in at least float32, and rounded once, on every backend: the same bits.
"""

from __future__ import annotations

from .. import _C
from .._problem import DTYPES, LAYOUTS
from ._checks import check_operand, describe, refuse, show
from ._layout import empty, in_layout, layout_of
from ._operator import Operator
from ._vmap import over_images


def _problem(name, like, size, scale):
    n, c, p, q = size
    return describe(
        name, _C.NearestUnpool2dProblem, n=n, c=c, p=p, q=q, scale=scale, dtype=DTYPES[like.dtype],
        layout=LAYOUTS[layout_of(like)],
    )  # fmt: skip


class NearestUnpool2d(Operator):
    """Forward."""

    schema = "nearest_unpool2d(Tensor input, SymInt[2] scale) -> Tensor"
    tensors = 1

    def check(self, input, scale):
        check_operand(self.name, "input", input, 4)

    def problem(self, input, scale):
        return _problem(self.name, input, input.shape, scale)

    def fake(self, input, scale):
        n, c, p, q = input.shape
        return empty(input, (n, c, p * scale[0], q * scale[1]), layout_of(input))

    def save(self, ctx, inputs, output):
        ctx.layout, ctx.scale = layout_of(inputs[0]), inputs[1]
        return ()

    def backward(self, ctx, grad):
        return (nearest_unpool2d_backward(in_layout(grad, ctx.layout), ctx.scale),)

    def jvp(self, ctx, input_t):
        return nearest_unpool2d(in_layout(input_t, ctx.layout), ctx.scale)

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


class NearestUnpool2dBackward(Operator):
    """Transpose: sums over cells."""

    schema = "nearest_unpool2d_backward(Tensor grad_output, SymInt[2] scale) -> Tensor"
    tensors = 1

    def check(self, grad_output, scale):
        check_operand(self.name, "grad_output", grad_output, 4)
        height, width = grad_output.shape[2:]
        if min(scale) >= 1 and (height % scale[0] or width % scale[1]):
            refuse(self.name, f"grad_output has shape {show(grad_output.shape)}, expected rows and columns in whole "
                              f"cells of {scale[0]} x {scale[1]}; pass the gradient of what nearest_unpool2d returned "
                              f"for that scale")  # fmt: skip

    def problem(self, grad_output, scale):
        n, c, height, width = grad_output.shape
        return _problem(self.name, grad_output, (n, c, height // max(scale[0], 1), width // max(scale[1], 1)), scale)

    def fake(self, grad_output, scale):
        n, c, height, width = grad_output.shape
        return empty(grad_output, (n, c, height // scale[0], width // scale[1]), layout_of(grad_output))

    def save(self, ctx, inputs, output):
        ctx.layout, ctx.scale = layout_of(inputs[0]), inputs[1]
        return ()

    def backward(self, ctx, grad):
        return (nearest_unpool2d(in_layout(grad, ctx.layout), ctx.scale),)

    def jvp(self, ctx, grad_output_t):
        return nearest_unpool2d_backward(in_layout(grad_output_t, ctx.layout), ctx.scale)

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


nearest_unpool2d = NearestUnpool2d()
nearest_unpool2d_backward = NearestUnpool2dBackward()
