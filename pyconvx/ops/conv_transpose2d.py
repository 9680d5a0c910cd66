"""Transposed convolution, the learnable unpooling: ``pyconvx::conv_transpose2d``.

It is the dgrad of a convolution, run forward (Dumoulin and Visin 2016, chapter 4). With x (N, C, P, Q) the input,
w (C, K/groups, R, S) the filters and y (N, K, H, W) the output, for groups = 1::

    y[n, k, h, w] = bias[k] + sum of x[n, c, p, q] * w[c, k, r, s] over all c, p, q, r, s with
    h = p * stride_h - pad_top  + r * dilation_h
    w = q * stride_w - pad_left + s * dilation_w

    H = (P - 1) * stride_h - pad_top  - pad_bottom + dilation_h * (R - 1) + 1 + output_padding_h
    W = (Q - 1) * stride_w - pad_left - pad_right  + dilation_w * (S - 1) + 1 + output_padding_w
"""

from __future__ import annotations

from typing import Any

from .. import _C
from ._checks import check_operand, check_size, refuse, show
from ._layout import empty, in_layout, layout_of
from ._operator import Operator
from ._vmap import batch_in_front, into_channels, into_images, out_of_channels, out_of_images
from .conv2d import conv2d, conv2d_wgrad, conv_problem
from .residual_add import add


def output_size(size: Any, filter_size: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any) -> Any:
    """Return (H, W) for an input of (P, Q) and filters of (R, S)."""
    return tuple(
        (size[i] - 1) * stride[i]
        - padding[2 * i]
        - padding[2 * i + 1]
        + dilation[i] * (filter_size[i] - 1)
        + 1
        + output_padding[i]
        for i in (0, 1)
    )


def _convolution(stride: Any, padding: Any, output_padding: Any) -> tuple[Any, Any]:
    """Return the padding of the convolution whose dgrad this is, and how many rows and columns it leaves empty.

    An output_padding below the stride is what that convolution leaves over at the end. A larger one, which a dilation
    above the stride allows, first undoes padding at the end, by whole strides; what is more than that lies beyond the
    reach of all filters, and gets the bias alone.
    """
    padding, empty_ends = list(padding), [0, 0]
    for axis in (0, 1):
        excess = output_padding[axis] // stride[axis] * stride[axis]
        undone = min(excess, padding[2 * axis + 1])
        padding[2 * axis + 1] -= undone
        empty_ends[axis] = excess - undone
    return tuple(padding), tuple(empty_ends)


class ConvTranspose2d(Operator):
    """dgrad as a layer: a bias, and a size of the output that output_padding settles."""

    schema = (
        "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias, SymInt[2] stride, SymInt[4] padding, "
        "SymInt[2] output_padding, SymInt[2] dilation, SymInt groups) -> Tensor"
    )
    tensors = 3

    def check(self, input, weight, bias, stride, padding, output_padding, dilation, groups):
        check_operand(self.name, "input", input, 4)
        check_operand(self.name, "weight", weight, 4, like=input)
        if weight.shape[0] != input.shape[1]:
            refuse(self.name, f"input has {input.shape[1]} channels, but weight of shape {show(weight.shape)} expects "
                              f"{weight.shape[0]}; its sizes are (C, K / groups, R, S)")  # fmt: skip
        if bias is not None:
            check_operand(self.name, "bias", bias, 1, like=input)
            check_size(self.name, "bias", bias, (weight.shape[1] * groups,), "one value per channel of the output")

    def problem(self, input, weight, bias, stride, padding, output_padding, dilation, groups):
        for axis in (0, 1):
            if min(stride) >= 1 and not 0 <= output_padding[axis] < max(stride[axis], dilation[axis]):
                refuse(self.name, f"output_padding is {show(output_padding)}, expected each to be at least 0 and less "
                                  f"than stride {show(stride)} or dilation {show(dilation)}; it settles which of "
                                  f"several sizes the output has, and more would only add empty rows")  # fmt: skip
        height, width = output_size(input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
        if min(*stride, *dilation, *(size + 1 for size in padding)) >= 1:
            padding, (below, right) = _convolution(stride, padding, output_padding)
            height, width = height - below, width - right
            if min(*input.shape[2:], height, width) < 1:
                refuse(self.name, f"an input of {input.shape[2]} x {input.shape[3]} gives an output of {height} x "
                                  f"{width}, expected at least 1 x 1; use a larger input or less padding")  # fmt: skip
        shape = (input.shape[0], weight.shape[1] * groups, height, width)
        return conv_problem(
            self.name, input, layout_of(input, weight), shape, weight.shape[0], weight.shape[2:], stride, padding,
            dilation, groups, bias=bias is not None, pass_=_C.Pass.dgrad,
        )  # fmt: skip

    def fake(self, input, weight, bias, stride, padding, output_padding, dilation, groups):
        size = output_size(input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
        return empty(input, (input.shape[0], weight.shape[1] * groups, *size), layout_of(input, weight))

    def save(self, ctx, inputs, output):
        input, weight, _, ctx.stride, ctx.padding, ctx.output_padding, ctx.dilation, ctx.groups = inputs
        return input, weight

    def backward(self, ctx, grad):
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad = in_layout(grad, layout_of(input, weight))
        padding, (below, right) = _convolution(ctx.stride, ctx.padding, ctx.output_padding)
        geometry = (ctx.stride, padding, ctx.dilation, ctx.groups)
        image = grad
        if below or right:
            image = grad[:, :, : grad.shape[2] - below, : grad.shape[3] - right]
        # The layer's output stands where a convolution has its input: fprop and wgrad with the roles exchanged.
        return (
            conv2d(image, weight, None, None, *geometry, "none") if needs_input else None,
            conv2d_wgrad(input, image, tuple(weight.shape[2:]), *geometry, False)[0] if needs_weight else None,
            grad.sum((0, 2, 3)) if needs_bias else None,
        )

    def jvp(self, ctx, input_t, weight_t, bias_t):
        input, weight = ctx.saved_tensors
        geometry = (ctx.stride, ctx.padding, ctx.output_padding, ctx.dilation, ctx.groups)
        tangent: Any = None
        if input_t is not None:
            tangent = conv_transpose2d(input_t, weight, None, *geometry)
        if weight_t is not None:
            tangent = add(tangent, conv_transpose2d(input, weight_t, None, *geometry))
        if bias_t is not None:
            size = output_size(input.shape[2:], weight.shape[2:], *geometry[:4])
            tangent = add(tangent, bias_t[:, None, None].expand(input.shape[0], bias_t.shape[0], *size))
        return in_layout(tangent, layout_of(input, weight))

    def vmap(self, info, in_dims, input, weight, bias, *options):
        if in_dims[1] is None and in_dims[2] is None:
            (input,) = batch_in_front(info.batch_size, in_dims[:1], (input,))
            return out_of_images(conv_transpose2d(into_images(input), weight, bias, *options), info.batch_size), 0
        input, weight, bias = batch_in_front(info.batch_size, in_dims[:3], (input, weight, bias))
        *geometry, groups = options
        output = conv_transpose2d(
            into_channels(input), into_images(weight), into_images(bias), *geometry, groups * info.batch_size
        )
        return out_of_channels(output, info.batch_size), 0


conv_transpose2d = ConvTranspose2d()
