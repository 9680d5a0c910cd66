"""The operations as functions, with the signatures and the meaning of ``torch.nn.functional``, and the fused forms.

Where torch takes ``padding`` as an int or a pair, these also take ``(top, bottom, left, right)``. Every function takes
batched (N, C, H, W) and unbatched (C, H, W) images, contiguous or channels_last, of float64, float32, bfloat16 or
float16, and gives results of the same dtype in the same layout. Bad arguments raise :class:`pyconvx.InvalidCall`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, is_autocast_enabled
from torch._C import _is_any_autocast_enabled

from . import ops
from .ops._checks import FLOATING, check_choice, check_operand, check_tensor, refuse, show

__all__ = ["add_relu", "conv2d", "conv_transpose2d", "max_pool2d", "max_unpool2d", "nearest_unpool2d", "residual_add"]

_INT = (int, torch.SymInt)
Size2d = int | Sequence[int]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size2d = 1,
    padding: Size2d | str = 0,
    dilation: Size2d = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Convolve: output = activation(input * weight + bias + residual), summed as cross-correlation, as torch does.

    P = floor((H + top + bottom - dilation * (R - 1) - 1) / stride) + 1, and Q likewise.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: filters, (K, C / groups, R, S).
        bias: (K,), or None.
        stride: step of the window, an int or (vertical, horizontal).
        padding: zeros around the image: an int, (vertical, horizontal), (top, bottom, left, right), ``'valid'`` (none)
            or ``'same'``: as many as give P = ceil(H / stride); an odd one goes to the bottom and to the right.
        dilation: distance of a filter's taps, an int or (vertical, horizontal).
        groups: number of slices into which channels and filters are divided; each filter sees one slice.
        activation: ``'relu'`` (a NaN stays one) or None.
        residual: added before the activation, with the shape of the output (He et al. 2015, section 3.2), or None.

    Returns:
        (N, K, P, Q), or (K, P, Q) for an unbatched input.

    Raises:
        InvalidCall: the tensors do not fit together, or the geometry makes no sense; the message says what to do.
        BackendRefusal: the backend that is forced cannot run it.
    """
    name = "conv2d"
    check_tensor(name, "input", input)
    if _autocasts(input):
        input, weight, bias, residual = _autocast(input, weight, bias, residual)
        with torch.autocast(input.device.type, enabled=False):  # or the kernel's own calls of torch would be cast again
            return conv2d(
                input, weight, bias, stride, padding, dilation, groups, activation=activation, residual=residual
            )
    stride, dilation = pair(name, "stride", stride), pair(name, "dilation", dilation)
    padding = _padding(name, padding, input, weight, stride, dilation)
    groups, activation = _number(name, "groups", groups), _activation(name, activation)
    if input.dim() == 3:
        if residual is not None:
            check_tensor(name, "residual", residual)
            residual = residual.unsqueeze(0)
        args = (input.unsqueeze(0), weight, bias, residual, stride, padding, dilation, groups, activation)
        return ops.conv2d(*args).squeeze(0)
    return ops.conv2d(input, weight, bias, residual, stride, padding, dilation, groups, activation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size2d = 1,
    padding: Size2d = 0,
    output_padding: Size2d = 0,
    groups: int = 1,
    dilation: Size2d = 1,
) -> Tensor:
    """Transposed convolution, the gradient of a convolution run forward: the learnable unpooling.

    H = (P - 1) * stride - top - bottom + dilation * (R - 1) + 1 + output_padding, and W likewise (Dumoulin and Visin
    2016, chapter 4).

    Args:
        input: (N, C, P, Q) or (C, P, Q).
        weight: filters, (C, K / groups, R, S).
        bias: (K,), or None.
        stride: step at which input values are laid out, an int or (vertical, horizontal).
        padding: rows and columns cut off the output: an int, (vertical, horizontal) or (top, bottom, left, right).
        output_padding: rows and columns more at the bottom and at the right, less than the stride or the dilation.
        groups: number of slices into which channels and filters are divided.
        dilation: distance of a filter's taps, an int or (vertical, horizontal).

    Returns:
        (N, K, H, W), or (K, H, W) for an unbatched input.

    Raises:
        InvalidCall: the tensors do not fit together, or the geometry makes no sense; the message says what to do.
        BackendRefusal: the backend that is forced cannot run it.
    """
    name = "conv_transpose2d"
    check_tensor(name, "input", input)
    if _autocasts(input):
        input, weight, bias = _autocast(input, weight, bias)
        with torch.autocast(input.device.type, enabled=False):  # as in conv2d
            return conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
    stride, dilation = pair(name, "stride", stride), pair(name, "dilation", dilation)
    output_padding = pair(name, "output_padding", output_padding)
    padding, groups = sides(name, padding), _number(name, "groups", groups)
    args = (weight, bias, stride, padding, output_padding, dilation, groups)
    if input.dim() == 3:
        return ops.conv_transpose2d(input.unsqueeze(0), *args).squeeze(0)
    return ops.conv_transpose2d(input, *args)


def max_pool2d(
    input: Tensor,
    kernel_size: Size2d,
    stride: Size2d | None = None,
    padding: Size2d | str = 0,
    dilation: Size2d = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    index_dtype: torch.dtype = torch.int64,
    activation: str | None = None,
) -> Any:
    """Take the maximum of every window; NaN counts as larger than any number, and of equal values the first wins.

    P = floor((H + top + bottom - dilation * (R - 1) - 1) / stride) + 1, and Q likewise; with ``ceil_mode`` rounded up,
    less a window that would start beyond the input.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: (R, S) of the window, or an int for both.
        stride: step of the window, an int or (vertical, horizontal); the kernel_size if None.
        padding: rows and columns of -inf around the image, at most half a window on each side: an int, (vertical,
            horizontal), (top, bottom, left, right), ``'valid'`` (none) or ``'same'``: as many as give
            P = ceil(H / stride); an odd one goes to the bottom and to the right.
        dilation: distance of a window's taps, an int or (vertical, horizontal).
        ceil_mode: whether a last window that only partly covers the input counts.
        return_indices: whether to return where the maxima stood, for ``max_unpool2d``.
        index_dtype: form of the indices: int64, torch's, is the position h * W + w in the plane; uint8 (windows of up
            to 255 elements) and int32 are the offset r * S + s in the window, in an eighth or a half of the memory.
        activation: ``'relu'`` (a NaN stays one) of the input before it is pooled, without a pass of its own, or None.

    Returns:
        (N, C, P, Q), and with ``return_indices`` a pair of it and the indices, of the same shape and layout.

    Raises:
        InvalidCall: the geometry makes no sense, or the window is too large for the index_dtype.
        BackendRefusal: the backend that is forced cannot run it.
    """
    name = "max_pool2d"
    check_tensor(name, "input", input)
    if not isinstance(ceil_mode, bool):
        refuse(name, f"ceil_mode is {ceil_mode!r}, expected True or False")
    kernel_size = pair(name, "kernel_size", kernel_size)
    # torch.nn.functional reads an empty stride as none given, and OpInfo's samples use it.
    is_given = stride is not None and not (isinstance(stride, (list, tuple)) and len(stride) == 0)
    stride = pair(name, "stride", stride) if is_given else kernel_size
    dilation = pair(name, "dilation", dilation)
    if isinstance(padding, str):
        size = input.shape[-2:] if input.dim() in (3, 4) else None
        padding = window_padding(name, padding, size, kernel_size, stride, dilation)
    else:
        padding = sides(name, padding)
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        check_choice(name, "index_dtype", index_dtype, (torch.uint8, torch.int32, torch.int64))
        index: torch.dtype | None = index_dtype
    else:
        # A gradient needs the winners; the forward pass alone does not look for them.
        index = ops.offset_dtype(kernel_size) if _differentiated(input) else None
    unbatched = input.dim() == 3
    output, indices = ops.max_pool2d(
        input.unsqueeze(0) if unbatched else input, *geometry, index, _activation(name, activation)
    )
    if unbatched:
        output = output.squeeze(0)
        indices = indices.squeeze(0) if return_indices else indices
    return (output, indices) if return_indices else output


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size2d,
    stride: Size2d | None = None,
    padding: Size2d | str = 0,
    output_size: Sequence[int] | None = None,
    *,
    dilation: Size2d = 1,
) -> Tensor:
    """Put pooled values back where they stood, with zeros everywhere else (Zeiler, Taylor and Fergus 2011).

    Deterministic: where windows overlapped and several indices name one place, the last pooled position in row-major
    order wins, and it alone receives the gradient.

    Args:
        input: pooled values, (N, C, P, Q) or (C, P, Q).
        indices: what ``max_pool2d(..., return_indices=True)`` returned, in any of its forms; of the input's shape.
        kernel_size, stride, padding, dilation: of the pooling that is undone; strings go with an output_size.
        output_size: (H, W), or the whole size, of the image that was pooled; if None, the size with
            H = (P - 1) * stride - top - bottom + dilation * (R - 1) + 1, and W likewise.

    Returns:
        (N, C, H, W), or (C, H, W) for an unbatched input.

    Raises:
        InvalidCall: an index lies outside the output, or the output_size cannot have been pooled to the input's size.
        BackendRefusal: the backend that is forced cannot run it.
    """
    name = "max_unpool2d"
    check_tensor(name, "input", input)
    check_tensor(name, "indices", indices)
    if _autocasts(input) and input.device.type == "cpu" and input.dtype != torch.float64:
        input = input.float()  # as torch's own, which autocast runs in float32 on CPUs
    kernel_size = pair(name, "kernel_size", kernel_size)
    stride = kernel_size if stride is None else pair(name, "stride", stride)
    dilation = pair(name, "dilation", dilation)
    if isinstance(padding, str):
        if output_size is None:
            refuse(name, f"padding is {padding!r}, which depends on the size of the image that was pooled; pass that "
                         f"as output_size")  # fmt: skip
        sizes = _numbers(output_size)
        padding = window_padding(name, padding, sizes[-2:] if len(sizes) > 1 else None, kernel_size, stride, dilation)
    else:
        padding = sides(name, padding)
    if input.dim() not in (3, 4):
        check_operand(name, "input", input, 4)
    size = _unpooled_size(_sizes(input.shape[-2:]), kernel_size, stride, padding, dilation, output_size)
    if input.dim() == 3:
        return ops.max_unpool2d(
            input.unsqueeze(0), indices.unsqueeze(0), kernel_size, stride, padding, dilation, size
        ).squeeze(0)
    return ops.max_unpool2d(input, indices, kernel_size, stride, padding, dilation, size)


def nearest_unpool2d(input: Tensor, scale: Size2d) -> Tensor:
    """Copy every value into a cell of its own, scale_h x scale_w large: the unpooling that remembers nothing.

    As torch.nn.functional.interpolate(mode='nearest') with whole scale factors; the gradient, a sum over each cell, is
    taken in row-major order and at least float32.

    Args:
        input: (N, C, P, Q) or (C, P, Q).
        scale: an int or (vertical, horizontal).

    Returns:
        (N, C, P * scale_h, Q * scale_w), or without N for an unbatched input.

    Raises:
        InvalidCall: the scale is less than 1.
        BackendRefusal: the backend that is forced cannot run it.
    """
    name = "nearest_unpool2d"
    check_tensor(name, "input", input)
    scale = pair(name, "scale", scale)
    if input.dim() == 3:
        return ops.nearest_unpool2d(input.unsqueeze(0), scale).squeeze(0)
    return ops.nearest_unpool2d(input, scale)


def residual_add(x: Tensor, residual: Tensor, activation: str | None = None) -> Tensor:
    """Add the two branches of a residual block: activation(x + residual) (He et al. 2015, section 3.2).

    Args:
        x, residual: tensors of one shape, of any rank.
        activation: ``'relu'`` (a NaN stays one) or None.

    Returns:
        A tensor of the shape and strides of ``x``.

    Raises:
        InvalidCall: the shapes, dtypes or devices differ (under autocast the wider dtype is taken).
    """
    name = "residual_add"
    check_tensor(name, "x", x)
    check_tensor(name, "residual", residual)
    if x.dtype != residual.dtype and _autocasts(x):
        dtype = torch.promote_types(x.dtype, residual.dtype)
        x, residual = x.to(dtype), residual.to(dtype)
    return ops.residual_add(x, residual, _activation(name, activation))


def add_relu(x: Tensor, residual: Tensor) -> Tensor:
    """Return relu(x + residual) in one pass over memory: ``residual_add(x, residual, activation='relu')``."""
    return residual_add(x, residual, "relu")


def _differentiated(input: Tensor) -> bool:
    """Whether a derivative, in either direction, may be asked of a call on ``input``."""
    return (torch.is_grad_enabled() and input.requires_grad) or ops.is_transformed()


def _autocasts(tensor: Tensor) -> bool:
    return _is_any_autocast_enabled() and is_autocast_enabled(tensor.device.type)


def _autocast(*tensors: Tensor | None) -> list[Any]:
    """Cast what autocast's list of convolutions would: every floating operand but float64."""
    device = tensors[0].device.type  # type: ignore[union-attr]
    dtype = torch.get_autocast_dtype(device)
    return [
        tensor.to(dtype)
        if isinstance(tensor, Tensor) and tensor.dtype in FLOATING and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    ]


def pair(op: str, name: str, value: Any) -> tuple[int, int]:
    """Read an int, or one or two ints in a sequence, as (vertical, horizontal)."""
    if type(value) is int:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int and type(value[1]) is int:
        return value  # as layers pass them: what follows takes long
    sizes = _numbers(value)
    if len(sizes) not in (1, 2):
        refuse(op, f"{name} is {value!r}, expected an int or a pair of ints, (vertical, horizontal)")
    return sizes * 2 if len(sizes) == 1 else sizes


def sides(op: str, value: Any) -> tuple[int, int, int, int]:
    """Read an int, a pair or four ints as (top, bottom, left, right)."""
    if type(value) is int:
        return value, value, value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int and type(value[1]) is int:
        return value[0], value[0], value[1], value[1]
    sizes = _numbers(value)
    if len(sizes) not in (1, 2, 4):
        refuse(op, f"padding is {value!r}, expected an int, (vertical, horizontal) or (top, bottom, left, right)")
    if len(sizes) == 4:
        return sizes
    vertical, horizontal = sizes[0], sizes[-1]
    return vertical, vertical, horizontal, horizontal


def _number(op: str, name: str, value: Any) -> int:
    """Read an int."""
    if type(value) is int:
        return value
    numbers = () if isinstance(value, (tuple, list)) else _numbers(value)
    if not numbers:
        refuse(op, f"{name} is {value!r}, expected an int")
    return numbers[0]


def _numbers(value: Any) -> tuple[Any, ...]:
    """Return a value, or those of a sequence, as a tuple of ints; an empty one if some are none.

    As torch does, this takes all that Python would take for an index (NumPy's ints, a tensor of one int) but for bools.
    """
    values = value if isinstance(value, (tuple, list)) else (value,)
    if any(isinstance(value, bool) for value in values):
        return ()
    if all(isinstance(value, _INT) for value in values):
        return tuple(values)
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return ()


def _activation(op: str, value: str | None) -> str:
    if value is None:
        return "none"
    check_choice(op, "activation", value, (None, "relu"))
    return value


def _sizes(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Return sizes as numbers: while torch.jit.trace records, those of a tensor are tensors."""
    return tuple(int(size) if isinstance(size, Tensor) else size for size in sizes)


def _padding(
    op: str, padding: Any, input: Tensor, weight: Tensor, stride: Any, dilation: Any
) -> tuple[int, int, int, int]:
    """Read conv2d's padding, the strings included, as (top, bottom, left, right)."""
    if isinstance(input, Tensor) and input.dim() in (3, 4) and isinstance(weight, Tensor) and weight.dim() == 4:
        return window_padding(op, padding, input.shape[-2:], weight.shape[2:], stride, dilation)
    return window_padding(op, padding, None, None, stride, dilation)


def window_padding(
    op: str, padding: Any, size: Any, taps: Any, stride: Any, dilation: Any
) -> tuple[int, int, int, int]:
    """Read the padding of a window of (R, S) taps on an image of (H, W), the strings included, as (top, bottom, left,
    right); ``'same'`` is none where there is no size, which operations refuse with sentences of their own."""
    if not isinstance(padding, str):
        return sides(op, padding)
    check_choice(op, "padding", padding, ("same", "valid"))
    if padding == "valid" or size is None or min(stride) < 1:
        return 0, 0, 0, 0
    return same_padding(size, taps, stride, dilation)


def same_padding(size: Any, taps: Any, stride: Any, dilation: Any) -> tuple[int, int, int, int]:
    """Return the padding, as (top, bottom, left, right), of ``'same'`` for an image of (H, W)."""
    height, width, *window = _sizes((*size, *taps))
    return *_same(height, window[0], stride[0], dilation[0]), *_same(width, window[1], stride[1], dilation[1])


def _same(size: int, taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding before and after that gives ceil(size / stride) outputs; an odd one goes after."""
    outputs = (size + stride - 1) // stride
    total = max((outputs - 1) * stride + dilation * (taps - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def _unpooled_size(pooled: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, output_size: Any) -> Any:
    """Return (H, W), checked to be a size that the pooling takes to ``pooled``."""
    default = tuple(
        (pooled[axis] - 1) * stride[axis]
        - padding[2 * axis]
        - padding[2 * axis + 1]
        + dilation[axis] * (kernel_size[axis] - 1)
        + 1
        for axis in (0, 1)
    )
    if output_size is None:
        return default
    sizes = _numbers(output_size)
    if len(sizes) not in (2, 3, 4):
        refuse("max_unpool2d", f"output_size is {output_size!r}, expected two ints, (H, W), or all sizes of the image "
                               f"that was pooled")  # fmt: skip
    size = sizes[-2:]
    least = tuple(default[axis] - stride[axis] + 1 for axis in (0, 1))
    most = tuple(default[axis] + stride[axis] - 1 for axis in (0, 1))
    if min(stride) >= 1 and not all(least[axis] <= size[axis] <= most[axis] for axis in (0, 1)):
        refuse("max_unpool2d", f"output_size is {show(sizes)}, expected its last two sizes between {show(least)} and "
                               f"{show(most)}: other images are not pooled to {pooled[0]} x {pooled[1]}")  # fmt: skip
    return size
