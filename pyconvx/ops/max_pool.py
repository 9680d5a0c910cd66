"""Max pooling that remembers each window's winner: ``pyconvx::max_pool2d``, its gradient ``max_pool2d_backward``, and
``max_pool2d_gather``, which reads another image at the winners::

    max_pool2d:          output[n, c, p, q] = max over r, s of input[n, c, h, w],  index[n, c, p, q] = where it stood
                         h = p * stride_h - pad_top + r * dilation_h,  w = q * stride_w - pad_left + s * dilation_w
    max_pool2d_backward: grad_input[n, c, h, w] = sum of grad_output[n, c, p, q] over the windows that (h, w) won
    max_pool2d_gather:   output[n, c, p, q] = input at the winner of window (p, q)

The last two are each other's transpose, so derivatives of every order need nothing else. NaN wins; of equal values the
first in row-major order does. An index is, by its dtype, the winner's offset in its window, r * S + s (uint8, int32),
or its position in the plane, h * W + w (int64, torch's form). A window without any element inside the input, which a
dilation can make, has the value -inf and the index -1 (255 in uint8), which no element has.

With the activation "relu", input stands for relu(input). Of its gradient the output tells all that the input would: a
window's winner passed the ReLU if the output is above 0, and then it is the winner of the input itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _C
from .._problem import ACTIVATIONS, DTYPES, INDEX_TYPES, LAYOUTS
from ._checks import check_choice, check_operand, check_size, describe, name_of, refuse
from ._layout import empty, in_layout, layout_of
from ._operator import Operator
from ._vmap import over_images
from .residual_add import relu_backward

_INDEX_DTYPES = (torch.uint8, torch.int32, torch.int64)
_MAX_BYTE_WINDOW = 255


def offset_dtype(kernel_size: Any) -> torch.dtype:
    """Return the smallest dtype of an offset in a window of (R, S)."""
    return torch.uint8 if kernel_size[0] * kernel_size[1] <= _MAX_BYTE_WINDOW else torch.int32


def check_indices(op: str, indices: Tensor, like: Tensor, shape: Any) -> None:
    """Raise unless ``indices`` are indices of a dtype and on a device that ``like`` can be used with, of ``shape``."""
    if indices.layout is not torch.strided:
        refuse(op, f"indices have the layout {indices.layout}, expected a dense tensor; call indices.to_dense()")
    if indices.dtype not in _INDEX_DTYPES:
        refuse(op, f"indices have dtype {name_of(indices.dtype)}, expected int64 (positions in the plane), or uint8 or "
                   f"int32 (offsets in the window); pass the indices that max_pool2d returned")  # fmt: skip
    if indices.device != like.device:
        refuse(op, f"indices are on {indices.device} but the input is on {like.device}; move one with .to()")
    check_size(op, "indices", indices, shape, "one index per pooled value; pass the indices that max_pool2d returned")


def _extent(
    size: Any, pad_before: Any, pad_after: Any, window: Any, stride: Any, dilation: Any, ceil_mode: bool
) -> Any:
    room = size + pad_before + pad_after - dilation * (window - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    count = (room + stride - 1) // stride + 1
    # A last window that would start beyond the input, in the padding after it, is none.
    return count - 1 if (count - 1) * stride >= size + pad_before else count


def output_size(size: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """Return (P, Q) for an input of (H, W)."""
    return (
        _extent(size[0], padding[0], padding[1], kernel_size[0], stride[0], dilation[0], ceil_mode),
        _extent(size[1], padding[2], padding[3], kernel_size[1], stride[1], dilation[1], ceil_mode),
    )


def _pool_problem(
    name: str,
    like: Tensor,
    shape: Any,
    index_dtype: torch.dtype | None,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    activation: str = "none",
) -> _C.Pool2dProblem:
    """Describe the pooling of an input of ``shape`` in the layout of ``like``; raise InvalidCall."""
    n, c, h, w = shape
    return describe(
        name, _C.Pool2dProblem, n=n, c=c, h=h, w=w, r=kernel_size[0], s=kernel_size[1], stride=stride,
        padding=padding, dilation=dilation, ceil_mode=ceil_mode, dtype=DTYPES[like.dtype],
        layout=LAYOUTS[layout_of(like)], index=INDEX_TYPES[index_dtype],
        activation=ACTIVATIONS[activation],
    )  # fmt: skip


class MaxPool2d(Operator):
    """Forward; without an ``index_dtype`` no index is computed, and the second result is empty."""

    schema = (
        "max_pool2d(Tensor input, SymInt[2] kernel_size, SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, "
        "bool ceil_mode, ScalarType? index_dtype, str activation) -> (Tensor, Tensor)"
    )
    tensors = 1

    def check(self, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        check_operand(self.name, "input", input, 4)
        check_choice(self.name, "index_dtype", index_dtype, (None, *_INDEX_DTYPES))
        check_choice(self.name, "activation", activation, tuple(ACTIVATIONS))

    def problem(self, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        geometry = kernel_size, stride, padding, dilation, ceil_mode
        return _pool_problem(self.name, input, input.shape, index_dtype, *geometry, activation)

    def fake(self, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        size = output_size(input.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
        shape, layout = (*input.shape[:2], *size), layout_of(input)
        if index_dtype is None:
            return empty(input, shape, layout), input.new_empty((0,), dtype=torch.uint8)
        return empty(input, shape, layout), empty(input, shape, layout, index_dtype)

    def save(self, ctx, inputs, output):
        input, *ctx.geometry, index_dtype, activation = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.input_size, ctx.layout, ctx.remembered = tuple(input.shape[2:]), layout_of(input), index_dtype is not None
        winners = output[1] if ctx.remembered else input
        return (winners,) if activation == "none" else (winners, output[0])

    @staticmethod
    def _saved(ctx):
        """The winners, and the output where a ReLU's mask is needed of it. To be asked once: what was saved may be
        computed anew for it."""
        saved, *output = ctx.saved_tensors
        if not ctx.remembered:
            saved = max_pool2d(saved.detach(), *ctx.geometry, offset_dtype(ctx.geometry[0]), "none")[1]
        return saved, output

    def backward(self, ctx, grad, _):
        if not ctx.needs_input_grad[0]:
            return (None,)
        winners, output = self._saved(ctx)
        grad = in_layout(grad, ctx.layout)
        if output:
            return (max_pool2d_backward_relu(grad, *output, winners, ctx.input_size, *ctx.geometry),)
        return (max_pool2d_backward(grad, winners, ctx.input_size, *ctx.geometry),)

    def jvp(self, ctx, input_t):
        winners, output = self._saved(ctx)
        tangent = max_pool2d_gather(in_layout(input_t, ctx.layout), winners, *ctx.geometry)
        return relu_backward(in_layout(tangent, ctx.layout), *output) if output else tangent, None

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


class MaxPool2dBackward(Operator):
    """Transpose of the gather; ``input_size`` is (H, W)."""

    schema = (
        "max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[2] input_size, SymInt[2] kernel_size, "
        "SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, bool ceil_mode) -> Tensor"
    )
    tensors = 2
    activation = "none"

    def check(self, grad_output, indices, *geometry):
        check_operand(self.name, "grad_output", grad_output, 4)
        check_indices(self.name, indices, grad_output, grad_output.shape)

    def problem(self, grad_output, indices, input_size, kernel_size, stride, padding, dilation, ceil_mode):
        shape, geometry = (*grad_output.shape[:2], *input_size), (kernel_size, stride, padding, dilation, ceil_mode)
        problem = _pool_problem(self.name, grad_output, shape, indices.dtype, *geometry, self.activation)
        expected = (*grad_output.shape[:2], problem.p, problem.q)
        check_size(self.name, "grad_output", grad_output, expected, "the output of an input of that size")
        return problem

    def fake(self, grad_output, indices, input_size, *geometry):
        return empty(grad_output, (*grad_output.shape[:2], *input_size), layout_of(grad_output))

    def save(self, ctx, inputs, output):
        grad_output, indices, ctx.input_size, *ctx.geometry = inputs
        ctx.layout = layout_of(grad_output)
        return (indices,)

    def backward(self, ctx, grad):
        if not ctx.needs_input_grad[0]:
            return None, None
        return max_pool2d_gather(in_layout(grad, ctx.layout), *ctx.saved_tensors, *ctx.geometry), None

    def jvp(self, ctx, grad_output_t, _):
        grad_output_t = in_layout(grad_output_t, ctx.layout)
        return max_pool2d_backward(grad_output_t, *ctx.saved_tensors, ctx.input_size, *ctx.geometry)

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


class MaxPool2dBackwardRelu(MaxPool2dBackward):
    """max_pool2d_backward of relu_backward(grad_output, relu_output)."""

    schema = (
        "max_pool2d_backward_relu(Tensor grad_output, Tensor relu_output, Tensor indices, SymInt[2] input_size, "
        "SymInt[2] kernel_size, SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, bool ceil_mode) -> Tensor"
    )
    tensors = 3
    activation = "relu"

    def check(self, grad_output, relu_output, indices, *geometry):
        super().check(grad_output, indices, *geometry)
        check_operand(self.name, "relu_output", relu_output, 4, like=grad_output)
        check_size(self.name, "relu_output", relu_output, grad_output.shape, "the shape of grad_output")

    def problem(self, grad_output, relu_output, *arguments):
        return super().problem(grad_output, *arguments)

    def fake(self, grad_output, relu_output, *arguments):
        return super().fake(grad_output, *arguments)

    def save(self, ctx, inputs, output):
        grad_output, relu_output, indices, ctx.input_size, *ctx.geometry = inputs
        ctx.layout = layout_of(grad_output)
        return relu_output, indices

    def backward(self, ctx, grad):
        if not ctx.needs_input_grad[0]:
            return None, None, None
        relu_output, indices = ctx.saved_tensors
        grad = max_pool2d_gather(in_layout(grad, ctx.layout), indices, *ctx.geometry)
        return relu_backward(grad, in_layout(relu_output, ctx.layout)), None, None

    def jvp(self, ctx, grad_output_t, relu_output_t, _):
        relu_output, indices = ctx.saved_tensors
        if grad_output_t is None:
            return empty(relu_output, (*relu_output.shape[:2], *ctx.input_size), ctx.layout).zero_()
        grad_output_t = in_layout(grad_output_t, ctx.layout)
        return max_pool2d_backward_relu(grad_output_t, relu_output, indices, ctx.input_size, *ctx.geometry)


class MaxPool2dGather(Operator):
    """Reads an image at the winners of another."""

    schema = (
        "max_pool2d_gather(Tensor input, Tensor indices, SymInt[2] kernel_size, SymInt[2] stride, SymInt[4] padding, "
        "SymInt[2] dilation, bool ceil_mode) -> Tensor"
    )
    tensors = 2

    def check(self, input, indices, *geometry):
        check_operand(self.name, "input", input, 4)
        check_indices(self.name, indices, input, (*input.shape[:2], *indices.shape[2:]))

    def problem(self, input, indices, *geometry):
        problem = _pool_problem(self.name, input, input.shape, indices.dtype, *geometry)
        check_indices(self.name, indices, input, (*input.shape[:2], problem.p, problem.q))
        return problem

    def fake(self, input, indices, *geometry):
        return empty(input, tuple(indices.shape), layout_of(input))

    def save(self, ctx, inputs, output):
        input, indices, *ctx.geometry = inputs
        ctx.input_size, ctx.layout = tuple(input.shape[2:]), layout_of(input)
        return (indices,)

    def backward(self, ctx, grad):
        if not ctx.needs_input_grad[0]:
            return None, None
        grad = in_layout(grad, ctx.layout)
        return max_pool2d_backward(grad, *ctx.saved_tensors, ctx.input_size, *ctx.geometry), None

    def jvp(self, ctx, input_t, _):
        return max_pool2d_gather(in_layout(input_t, ctx.layout), *ctx.saved_tensors, *ctx.geometry)

    def vmap(self, info, in_dims, *args):
        return over_images(self, info, in_dims, *args)


max_pool2d = MaxPool2d()
max_pool2d_backward = MaxPool2dBackward()
max_pool2d_backward_relu = MaxPool2dBackwardRelu()
max_pool2d_gather = MaxPool2dGather()
