"""Convolution and its two gradients: ``pyconvx::conv2d`` (fprop), ``conv2d_dgrad`` and ``conv2d_wgrad``; and
``conv2d_dgrad_relu`` and ``conv2d_wgrad_relu``, the gradients of a convolution with a ReLU, which take its output and
do what ``relu_backward`` and the gradient would do, without a masked gradient in between.

With x the input (N, C, H, W), w the filters (K, C/groups, R, S) and y the output (N, K, P, Q), for groups = 1::

    y[n, k, p, q] = sum over c, r, s of w[k, c, r, s] * x[n, c, h, w]
    h = p * stride_h - pad_top  + r * dilation_h        (x is 0 outside the image)
    w = q * stride_w - pad_left + s * dilation_w

Each of the three is linear in both operands, and the derivatives of any one are the other two: derivatives of every
order need nothing else. Padding is (top, bottom, left, right) throughout.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import _C, backends
from .._problem import ACTIVATIONS, DTYPES, LAYOUTS
from ._checks import check_choice, check_operand, check_size, describe, refuse
from ._layout import empty, in_layout, layout_of
from ._operator import Operator
from ._vmap import batch_in_front, into_channels, into_images, out_of_channels, out_of_images
from .residual_add import add, relu_backward

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def output_size(size: Any, filter_size: Any, stride: Pair, padding: Padding, dilation: Pair) -> tuple[Any, Any]:
    """Return (P, Q) for an input of (H, W) and filters of (R, S)."""
    return (
        (size[0] + padding[0] + padding[1] - dilation[0] * (filter_size[0] - 1) - 1) // stride[0] + 1,
        (size[1] + padding[2] + padding[3] - dilation[1] * (filter_size[1] - 1) - 1) // stride[1] + 1,
    )


def conv_problem(
    name: str, like: Tensor, layout: torch.memory_format, input_size: Any, filters: int, filter_size: Any,
    stride: Pair, padding: Padding, dilation: Pair, groups: int, **extra: Any,
) -> _C.Conv2dProblem:  # fmt: skip
    """Describe the convolution of an (N, C, H, W) input with ``filters`` filters of (R, S); raise InvalidCall."""
    n, c, h, w = input_size
    return describe(
        name, _C.Conv2dProblem, n=n, c=c, h=h, w=w, k=filters, r=filter_size[0], s=filter_size[1], stride=stride,
        padding=padding, dilation=dilation, groups=groups, dtype=DTYPES[like.dtype], layout=LAYOUTS[layout], **extra,
    )  # fmt: skip


class Conv2d(Operator):
    """fprop with its epilogue: activation(x * w + bias + residual)."""

    schema = (
        "conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, SymInt[2] stride, SymInt[4] padding, "
        "SymInt[2] dilation, SymInt groups, str activation) -> Tensor"
    )
    tensors = 4

    def check(self, input, weight, bias, residual, stride, padding, dilation, groups, activation):
        check_operand(self.name, "input", input, 4)
        check_operand(self.name, "weight", weight, 4, like=input)
        check_choice(self.name, "activation", activation, tuple(ACTIVATIONS))
        if groups > 0 and weight.shape[1] * groups != input.shape[1]:
            refuse(self.name, f"input has {input.shape[1]} channels, but weight of shape {tuple(weight.shape)} with "
                              f"groups={groups} expects {weight.shape[1]} * {groups} = {weight.shape[1] * groups}; "
                              f"change groups or the channels of one of them")  # fmt: skip
        if bias is not None:
            check_operand(self.name, "bias", bias, 1, like=input)
            check_size(self.name, "bias", bias, weight.shape[:1], "one value per filter")
        if residual is not None:
            check_operand(self.name, "residual", residual, 4, like=input)

    def problem(self, input, weight, bias, residual, stride, padding, dilation, groups, activation):
        problem = conv_problem(
            self.name, input, layout_of(input, weight), input.shape, weight.shape[0], weight.shape[2:], stride, padding,
            dilation, groups, bias=bias is not None, residual=residual is not None, activation=ACTIVATIONS[activation],
        )  # fmt: skip
        if residual is not None:
            expected = (input.shape[0], weight.shape[0], problem.p, problem.q)
            check_size(self.name, "residual", residual, expected, "it is added to the output and must have its shape")
        return problem

    def fake(self, input, weight, bias, residual, stride, padding, dilation, groups, activation):
        size = output_size(input.shape[2:], weight.shape[2:], stride, padding, dilation)
        return empty(input, (input.shape[0], weight.shape[0], *size), layout_of(input, weight))

    def save(self, ctx, inputs, output):
        input, weight, _, _, *ctx.geometry, ctx.activation = inputs
        return input, weight, output if ctx.activation != "none" else None

    def backward(self, ctx, grad):
        input, weight, output = ctx.saved_tensors
        needs_input, needs_weight, needs_bias, needs_residual = ctx.needs_input_grad[:4]
        # Of the gradient's size, relu_backward and both passes move five tensors, and passes that mask what they load
        # four; but six with the masked gradient that is the residual's, where passes that read that one move five.
        if output is not None and (needs_residual or not (needs_input or needs_weight) or not _masks(grad.device)):
            grad, output = relu_backward(grad, output), None
        # A gradient may come in any layout, and the passes take their own from their operands.
        grad = in_layout(grad, layout_of(input, weight))
        grad_input = grad_weight = grad_bias = None
        if needs_input:
            size = tuple(input.shape[2:])
            if output is None:
                grad_input = conv2d_dgrad(grad, weight, size, *ctx.geometry)
            else:
                grad_input = conv2d_dgrad_relu(grad, output, weight, size, *ctx.geometry)
        if needs_weight:
            options = (tuple(weight.shape[2:]), *ctx.geometry, needs_bias)
            if output is None:
                grad_weight, grad_bias = conv2d_wgrad(grad, input, *options)
            else:
                grad_weight, grad_bias = conv2d_wgrad_relu(grad, output, input, *options)
        elif needs_bias:
            grad_bias = grad.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias if needs_bias else None, grad if needs_residual else None

    def jvp(self, ctx, input_t, weight_t, bias_t, residual_t):
        input, weight, output = ctx.saved_tensors
        tangent = residual_t
        if input_t is not None:
            tangent = add(tangent, conv2d(input_t, weight, None, None, *ctx.geometry, "none"))
        if weight_t is not None:
            tangent = add(tangent, conv2d(input, weight_t, None, None, *ctx.geometry, "none"))
        if bias_t is not None:
            size = (input.shape[0], weight.shape[0], *output_size(input.shape[2:], weight.shape[2:], *ctx.geometry[:3]))
            tangent = add(tangent, bias_t[:, None, None].expand(size))
        tangent = in_layout(tangent, layout_of(input, weight))
        return tangent if output is None else relu_backward(tangent, output)

    def vmap(self, info, in_dims, *args):
        *geometry, groups, activation = args[4:]
        if in_dims[1] is None and in_dims[2] is None:
            tensors = (args[0], None, None, args[3])
            input, _, _, residual = batch_in_front(info.batch_size, in_dims[:4], tensors)
            output = conv2d(into_images(input), args[1], args[2], into_images(residual), *args[4:])
            return out_of_images(output, info.batch_size), 0
        input, weight, bias, residual = batch_in_front(info.batch_size, in_dims[:4], args[:4])
        output = conv2d(
            into_channels(input), into_images(weight), into_images(bias),
            into_channels(residual), *geometry, groups * info.batch_size, activation,
        )  # fmt: skip
        return out_of_channels(output, info.batch_size), 0


class Conv2dDgrad(Operator):
    """dgrad: the gradient of the input, from that of the output; ``input_size`` is (H, W)."""

    schema = (
        "conv2d_dgrad(Tensor grad_output, Tensor weight, SymInt[2] input_size, SymInt[2] stride, SymInt[4] padding, "
        "SymInt[2] dilation, SymInt groups) -> Tensor"
    )
    tensors = 2
    masked: ClassVar[bool] = False

    def check(self, grad_output, weight, input_size, stride, padding, dilation, groups):
        check_operand(self.name, "grad_output", grad_output, 4)
        check_operand(self.name, "weight", weight, 4, like=grad_output)
        if weight.shape[0] != grad_output.shape[1]:
            refuse(self.name, f"grad_output has {grad_output.shape[1]} channels, expected one per filter: weight has "
                              f"{weight.shape[0]} filters")  # fmt: skip

    def problem(self, grad_output, weight, input_size, stride, padding, dilation, groups):
        shape = self._input_shape(grad_output, weight, input_size, groups)
        problem = conv_problem(
            self.name, grad_output, layout_of(grad_output, weight), shape, weight.shape[0], weight.shape[2:], stride,
            padding, dilation, groups, pass_=_C.Pass.dgrad, masked=self.masked,
        )  # fmt: skip
        expected = (*grad_output.shape[:2], problem.p, problem.q)
        check_size(self.name, "grad_output", grad_output, expected, "the output of an input of that size")
        return problem

    @staticmethod
    def _input_shape(grad_output, weight, input_size, groups):
        return (grad_output.shape[0], weight.shape[1] * groups, *input_size)

    def fake(self, grad_output, weight, input_size, stride, padding, dilation, groups):
        shape = self._input_shape(grad_output, weight, input_size, groups)
        return empty(grad_output, shape, layout_of(grad_output, weight))

    def save(self, ctx, inputs, output):
        grad_output, weight, ctx.input_size, *ctx.geometry = inputs
        return grad_output, weight

    def backward(self, ctx, grad):
        grad_output, weight = ctx.saved_tensors
        grad = in_layout(grad, layout_of(grad_output, weight))
        return (
            conv2d(grad, weight, None, None, *ctx.geometry, "none") if ctx.needs_input_grad[0] else None,
            conv2d_wgrad(grad_output, grad, tuple(weight.shape[2:]), *ctx.geometry, False)[0]
            if ctx.needs_input_grad[1]
            else None,
        )

    def jvp(self, ctx, grad_output_t, weight_t):
        grad_output, weight = ctx.saved_tensors
        tangent: Any = None
        if grad_output_t is not None:
            tangent = conv2d_dgrad(grad_output_t, weight, ctx.input_size, *ctx.geometry)
        if weight_t is not None:
            tangent = add(tangent, conv2d_dgrad(grad_output, weight_t, ctx.input_size, *ctx.geometry))
        return in_layout(tangent, layout_of(grad_output, weight))

    def vmap(self, info, in_dims, grad_output, weight, *options):
        if in_dims[1] is None:
            grad_output = grad_output.movedim(in_dims[0], 0)
            return out_of_images(conv2d_dgrad(into_images(grad_output), weight, *options), info.batch_size), 0
        grad_output, weight = batch_in_front(info.batch_size, in_dims[:2], (grad_output, weight))
        *geometry, groups = options
        grad_input = conv2d_dgrad(into_channels(grad_output), into_images(weight), *geometry, groups * info.batch_size)
        return out_of_channels(grad_input, info.batch_size), 0


class Conv2dWgrad(Operator):
    """wgrad: the gradients of the filters and, if ``bias``, of the bias (else an empty tensor); ``filter_size`` is
    (R, S)."""

    schema = (
        "conv2d_wgrad(Tensor grad_output, Tensor input, SymInt[2] filter_size, SymInt[2] stride, SymInt[4] padding, "
        "SymInt[2] dilation, SymInt groups, bool bias) -> (Tensor, Tensor)"
    )
    tensors = 2
    masked: ClassVar[bool] = False

    def check(self, grad_output, input, filter_size, stride, padding, dilation, groups, bias):
        check_operand(self.name, "input", input, 4)
        check_operand(self.name, "grad_output", grad_output, 4, like=input)

    def problem(self, grad_output, input, filter_size, stride, padding, dilation, groups, bias):
        problem = conv_problem(
            self.name, input, layout_of(grad_output, input), input.shape, grad_output.shape[1], filter_size, stride,
            padding, dilation, groups, bias=bias, pass_=_C.Pass.wgrad, masked=self.masked,
        )  # fmt: skip
        expected = (input.shape[0], grad_output.shape[1], problem.p, problem.q)
        check_size(self.name, "grad_output", grad_output, expected, "the output of an input of that size")
        return problem

    def fake(self, grad_output, input, filter_size, stride, padding, dilation, groups, bias):
        shape = (grad_output.shape[1], input.shape[1] // groups, *filter_size)
        grad_bias = input.new_empty((grad_output.shape[1] if bias else 0,))
        return empty(input, shape, layout_of(grad_output, input)), grad_bias

    def save(self, ctx, inputs, output):
        grad_output, input, ctx.filter_size, *ctx.geometry, ctx.bias = inputs
        if not ctx.bias:
            ctx.mark_non_differentiable(output[1])
        return grad_output, input

    def backward(self, ctx, grad_weight, grad_bias):
        grad_output, input = ctx.saved_tensors
        layout = layout_of(grad_output, input)
        by_output = by_input = None
        if grad_weight is not None:
            grad_weight = in_layout(grad_weight, layout)
            if ctx.needs_input_grad[0]:
                by_output = conv2d(input, grad_weight, None, None, *ctx.geometry, "none")
            if ctx.needs_input_grad[1]:
                by_input = conv2d_dgrad(grad_output, grad_weight, tuple(input.shape[2:]), *ctx.geometry)
        if ctx.bias and grad_bias is not None and ctx.needs_input_grad[0]:
            by_output = add(by_output, grad_bias[:, None, None].expand_as(grad_output))
        return by_output, by_input

    def jvp(self, ctx, grad_output_t, input_t):
        grad_output, input = ctx.saved_tensors
        weight_t: Any = None
        bias_t: Any = None
        if grad_output_t is not None:
            weight_t, bias_t = conv2d_wgrad(grad_output_t, input, ctx.filter_size, *ctx.geometry, ctx.bias)
        if input_t is not None:
            weight_t = add(weight_t, conv2d_wgrad(grad_output, input_t, ctx.filter_size, *ctx.geometry, False)[0])
        weight_t = in_layout(weight_t, layout_of(grad_output, input))
        if not ctx.bias:
            return weight_t, None
        return weight_t, grad_output.new_zeros(grad_output.shape[1]) if bias_t is None else bias_t

    def vmap(self, info, in_dims, grad_output, input, *options):
        tensors = batch_in_front(info.batch_size, in_dims[:2], (grad_output, input))
        *geometry, groups, bias = options
        grad_weight, grad_bias = conv2d_wgrad(*map(into_channels, tensors), *geometry, groups * info.batch_size, bias)
        return (out_of_images(grad_weight, info.batch_size), out_of_images(grad_bias, info.batch_size)), (0, 0)


def _check_mask(name: str, grad_output: Tensor, relu_output: Tensor) -> None:
    check_operand(name, "relu_output", relu_output, 4, like=grad_output)
    check_size(name, "relu_output", relu_output, grad_output.shape, "the shape of grad_output")


class Conv2dDgradRelu(Conv2dDgrad):
    """dgrad of relu_backward(grad_output, relu_output)."""

    schema = (
        "conv2d_dgrad_relu(Tensor grad_output, Tensor relu_output, Tensor weight, SymInt[2] input_size, "
        "SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, SymInt groups) -> Tensor"
    )
    tensors = 3
    masked = True

    def check(self, grad_output, relu_output, *arguments):
        super().check(grad_output, *arguments)
        _check_mask(self.name, grad_output, relu_output)

    def problem(self, grad_output, relu_output, *arguments):
        return super().problem(grad_output, *arguments)

    def fake(self, grad_output, relu_output, *arguments):
        return super().fake(grad_output, *arguments)

    def save(self, ctx, inputs, output):
        grad_output, relu_output, weight, ctx.input_size, *ctx.geometry = inputs
        return grad_output, relu_output, weight

    def backward(self, ctx, grad):
        grad_output, relu_output, weight = ctx.saved_tensors
        grad = in_layout(grad, layout_of(grad_output, weight))
        by_output = by_weight = None
        if ctx.needs_input_grad[0]:
            by_output = relu_backward(conv2d(grad, weight, None, None, *ctx.geometry, "none"), relu_output)
        if ctx.needs_input_grad[2]:
            options = (tuple(weight.shape[2:]), *ctx.geometry, False)
            by_weight = conv2d_wgrad_relu(grad_output, relu_output, grad, *options)[0]
        return by_output, None, by_weight

    def jvp(self, ctx, grad_output_t, relu_output_t, weight_t):
        grad_output, relu_output, weight = ctx.saved_tensors
        tangent: Any = None
        if grad_output_t is not None:
            tangent = conv2d_dgrad_relu(grad_output_t, relu_output, weight, ctx.input_size, *ctx.geometry)
        if weight_t is not None:
            by_weight = conv2d_dgrad_relu(grad_output, relu_output, weight_t, ctx.input_size, *ctx.geometry)
            tangent = add(tangent, by_weight)
        if tangent is None:
            tangent = grad_output.new_zeros(self._input_shape(grad_output, weight, ctx.input_size, ctx.geometry[3]))
        return in_layout(tangent, layout_of(grad_output, weight))

    def vmap(self, info, in_dims, grad_output, relu_output, weight, *options):
        if in_dims[2] is None:
            pair = batch_in_front(info.batch_size, in_dims[:2], (grad_output, relu_output))
            return out_of_images(conv2d_dgrad_relu(*map(into_images, pair), weight, *options), info.batch_size), 0
        grad_output, relu_output, weight = batch_in_front(
            info.batch_size, in_dims[:3], (grad_output, relu_output, weight)
        )
        *geometry, groups = options
        grad_input = conv2d_dgrad_relu(
            into_channels(grad_output), into_channels(relu_output), into_images(weight), *geometry,
            groups * info.batch_size,
        )  # fmt: skip
        return out_of_channels(grad_input, info.batch_size), 0


class Conv2dWgradRelu(Conv2dWgrad):
    """wgrad of relu_backward(grad_output, relu_output)."""

    schema = (
        "conv2d_wgrad_relu(Tensor grad_output, Tensor relu_output, Tensor input, SymInt[2] filter_size, "
        "SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, SymInt groups, bool bias) -> (Tensor, Tensor)"
    )
    tensors = 3
    masked = True

    def check(self, grad_output, relu_output, *arguments):
        super().check(grad_output, *arguments)
        _check_mask(self.name, grad_output, relu_output)

    def problem(self, grad_output, relu_output, *arguments):
        return super().problem(grad_output, *arguments)

    def fake(self, grad_output, relu_output, *arguments):
        return super().fake(grad_output, *arguments)

    def save(self, ctx, inputs, output):
        grad_output, relu_output, *others = inputs
        grad_output, input = super().save(ctx, (grad_output, *others), output)
        return grad_output, relu_output, input

    def backward(self, ctx, grad_weight, grad_bias):
        grad_output, relu_output, input = ctx.saved_tensors
        layout = layout_of(grad_output, input)
        by_output = by_input = None
        if grad_weight is not None:
            grad_weight = in_layout(grad_weight, layout)
            if ctx.needs_input_grad[0]:
                by_output = conv2d(input, grad_weight, None, None, *ctx.geometry, "none")
            if ctx.needs_input_grad[2]:
                size = tuple(input.shape[2:])
                by_input = conv2d_dgrad_relu(grad_output, relu_output, grad_weight, size, *ctx.geometry)
        if ctx.bias and grad_bias is not None and ctx.needs_input_grad[0]:
            by_output = add(by_output, grad_bias[:, None, None].expand_as(grad_output))
        return None if by_output is None else relu_backward(by_output, relu_output), None, by_input

    def jvp(self, ctx, grad_output_t, relu_output_t, input_t):
        grad_output, relu_output, input = ctx.saved_tensors
        weight_t: Any = None
        bias_t: Any = None
        options = (ctx.filter_size, *ctx.geometry)
        if grad_output_t is not None:
            weight_t, bias_t = conv2d_wgrad_relu(grad_output_t, relu_output, input, *options, ctx.bias)
        if input_t is not None:
            weight_t = add(weight_t, conv2d_wgrad_relu(grad_output, relu_output, input_t, *options, False)[0])
        if weight_t is None:
            filters, channels = grad_output.shape[1], input.shape[1] // ctx.geometry[3]
            weight_t = grad_output.new_zeros((filters, channels, *ctx.filter_size))
        weight_t = in_layout(weight_t, layout_of(grad_output, input))
        if not ctx.bias:
            return weight_t, None
        return weight_t, grad_output.new_zeros(grad_output.shape[1]) if bias_t is None else bias_t

    def vmap(self, info, in_dims, grad_output, relu_output, input, *options):
        tensors = batch_in_front(info.batch_size, in_dims[:3], (grad_output, relu_output, input))
        *geometry, groups, bias = options
        grad_weight, grad_bias = conv2d_wgrad_relu(
            *map(into_channels, tensors), *geometry, groups * info.batch_size, bias
        )
        return (out_of_images(grad_weight, info.batch_size), out_of_images(grad_bias, info.batch_size)), (0, 0)


_MASKED = _C.Conv2dProblem(n=1, c=8, h=8, w=8, k=8, r=1, s=1, pass_=_C.Pass.dgrad, masked=True)


def _masks(device: torch.device) -> bool:
    """Whether the kernels that would run the gradients on a device mask what they load."""
    return backends.masks_gradients(_MASKED, device)


conv2d = Conv2d()
conv2d_dgrad = Conv2dDgrad()
conv2d_wgrad = Conv2dWgrad()
conv2d_dgrad_relu = Conv2dDgradRelu()
conv2d_wgrad_relu = Conv2dWgradRelu()
