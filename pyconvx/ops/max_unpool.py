"""Max unpooling, which puts pooled values back where they stood: ``pyconvx::max_unpool2d`` and its transpose
``max_unpool2d_backward`` (Zeiler, Taylor and Fergus 2011; SegNet, Badrinarayanan et al. 2015)::

    max_unpool2d:          output[n, c, h, w] = input[n, c, p, q] where index[n, c, p, q] = (h, w), 0 elsewhere
    max_unpool2d_backward: grad_input[n, c, p, q] = grad_output[n, c, h, w] where index[n, c, p, q] = (h, w)

Where windows overlap several indices may name one place: the last pooled position in row-major order wins, on every
backend and in every run, and only the winner receives the gradient. Indices are offsets in the window (uint8, int32) or
positions in the plane (int64), as in max pooling.
"""

from __future__ import annotations

from .. import _C
from .._problem import DTYPES, INDEX_TYPES, LAYOUTS
from ._checks import check_operand, check_size, describe
from ._layout import empty, in_layout, layout_of
from ._operator import Operator
from ._vmap import over_images
from .max_pool import check_indices


def _unpool_problem(name, like, pooled_shape, indices, kernel_size, stride, padding, dilation, output_size):
    n, c, p, q = pooled_shape
    return describe(
        name, _C.Unpool2dProblem, n=n, c=c, p=p, q=q, h=output_size[0], w=output_size[1], r=kernel_size[0],
        s=kernel_size[1], stride=stride, padding=padding, dilation=dilation, dtype=DTYPES[like.dtype],
        layout=LAYOUTS[layout_of(like)], index=INDEX_TYPES[indices.dtype],
    )  # fmt: skip


class MaxUnpool2d(Operator):
    """Forward; ``output_size`` is (H, W)."""

    schema = (
        "max_unpool2d(Tensor input, Tensor indices, SymInt[2] kernel_size, SymInt[2] stride, SymInt[4] padding, "
        "SymInt[2] dilation, SymInt[2] output_size) -> Tensor"
    )
    tensors = 2

    def check(self, input, indices, *geometry):
        check_operand(self.name, "input", input, 4)
        check_indices(self.name, indices, input, input.shape)

    def problem(self, input, indices, *geometry):
        return _unpool_problem(self.name, input, input.shape, indices, *geometry)

    def fake(self, input, indices, *geometry):
        return empty(input, (*input.shape[:2], *geometry[-1]), layout_of(input))

    def save(self, ctx, inputs, output):
        input, indices, *ctx.geometry = inputs
        ctx.layout = layout_of(input)
        return (indices,)

    def backward(self, ctx, grad):
        if not ctx.needs_input_grad[0]:
            return None, None
        return max_unpool2d_backward(in_layout(grad, ctx.layout), *ctx.saved_tensors, *ctx.geometry), None

    def jvp(self, ctx, input_t, _):
        return max_unpool2d(in_layout(input_t, ctx.layout), *ctx.saved_tensors, *ctx.geometry)

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


class MaxUnpool2dBackward(Operator):
    """Transpose of the unpooling; ``output_size`` is (H, W) of ``grad_output``."""

    schema = (
        "max_unpool2d_backward(Tensor grad_output, Tensor indices, SymInt[2] kernel_size, SymInt[2] stride, "
        "SymInt[4] padding, SymInt[2] dilation, SymInt[2] output_size) -> Tensor"
    )
    tensors = 2

    def check(self, grad_output, indices, *geometry):
        check_operand(self.name, "grad_output", grad_output, 4)
        check_indices(self.name, indices, grad_output, (*grad_output.shape[:2], *indices.shape[2:]))
        check_size(self.name, "grad_output", grad_output, (*indices.shape[:2], *geometry[-1]), "the unpooled size")

    def problem(self, grad_output, indices, *geometry):
        return _unpool_problem(self.name, grad_output, indices.shape, indices, *geometry)

    def fake(self, grad_output, indices, *geometry):
        return empty(grad_output, tuple(indices.shape), layout_of(grad_output))

    def save(self, ctx, inputs, output):
        grad_output, indices, *ctx.geometry = inputs
        ctx.layout = layout_of(grad_output)
        return (indices,)

    def backward(self, ctx, grad):
        if not ctx.needs_input_grad[0]:
            return None, None
        return max_unpool2d(in_layout(grad, ctx.layout), *ctx.saved_tensors, *ctx.geometry), None

    def jvp(self, ctx, grad_output_t, _):
        grad_output_t = in_layout(grad_output_t, ctx.layout)
        return max_unpool2d_backward(grad_output_t, *ctx.saved_tensors, *ctx.geometry)

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


max_unpool2d = MaxUnpool2d()
max_unpool2d_backward = MaxUnpool2dBackward()
