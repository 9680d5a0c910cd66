"""Backend ``aten``: torch's own operations, on any device; what is left when nothing of ours can run.

What torch has no form of (unequal padding, offsets as indices, an unpooling that is deterministic) is put together from
torch's operations here, so that every problem has a backend on every device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidCall
from . import Backend

_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
_DGRAD = (True, False, False)
_MAX_POOL = torch.ops.aten.max_pool2d_with_indices.default
_MAX_POOL_BACKWARD = torch.ops.aten.max_pool2d_with_indices_backward.default


def result_layout(problem: Any) -> torch.memory_format:
    """Return the memory format of a problem's results."""
    return torch.channels_last if problem.channels_last else torch.contiguous_format


def _blank(like: Tensor, shape: tuple[int, ...], problem: Any) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=result_layout(problem))


def dense(tensor: Tensor, problem: Any) -> Tensor:
    """Return the tensor with exactly the strides that the problem's results have; no copy where it has them already."""
    layout = result_layout(problem)
    tensor = tensor.contiguous(memory_format=layout)
    # contiguous() takes what it finds where a size is 0 or 1: a view's strides, or another layout's.
    return tensor if tensor.stride() == _strides(tensor.shape, layout) else tensor.clone(memory_format=layout)


def in_strides(tensor: Tensor, model: Tensor) -> Tensor:
    """Return the tensor's values in memory as ``model``, a dense tensor, has them; no copy where they are."""
    return tensor if tensor.stride() == model.stride() else torch.empty_like(model).copy_(tensor)


def _strides(shape: torch.Size, layout: torch.memory_format) -> tuple[int, ...]:
    _, c, h, w = (max(size, 1) for size in shape)
    return (c * h * w, h * w, w, 1) if layout is torch.contiguous_format else (c * h * w, 1, c * w, c)


def _masked(grad_output: Tensor, output: Tensor) -> Tensor:
    """Return the gradient where a ReLU's output lets it pass, in the output's strides."""
    return torch.where(output <= 0, grad_output.new_zeros(()), grad_output, out=torch.empty_like(output))


def is_symmetric(padding: Any) -> bool:
    return padding[0] == padding[1] and padding[2] == padding[3]


def padded(input: Tensor, padding: Any, value: float = 0.0) -> Tensor:
    """Return a copy of the input with (top, bottom, left, right) rows and columns of ``value`` around each plane."""
    top, bottom, left, right = padding
    return F.pad(input, (left, right, top, bottom), value=value)


def cropped(image: Tensor, padding: Any) -> Tensor:
    """Undo ``padded``."""
    top, bottom, left, right = padding
    return image[:, :, top : image.shape[2] - bottom, left : image.shape[3] - right]


def convolve(problem, input, weight, bias, stride, padding, dilation, groups):
    """Convolve without an epilogue, in torch's own way."""
    if not is_symmetric(padding):
        input, padding = padded(input, padding), (0, 0, 0, 0)
    # Not by torch.conv2d, which `with pyconvx.use():` would send back here.
    return dense(torch.convolution(input, weight, bias, stride, padding[::2], dilation, False, (0, 0), groups), problem)


class Aten(Backend):
    name = "aten"
    summary = "torch's own operations, on any device"

    def can_run(self, operation: str, problem: Any, device: torch.device) -> str | None:
        if operation in ("max_pool2d", "max_pool2d_backward", "max_pool2d_backward_relu"):
            if not is_symmetric(problem.padding):
                return f"torch pools with the same padding on opposite sides only, not {problem.padding}"
            if problem.pad_top > problem.r // 2 or problem.pad_left > problem.s // 2:
                return (
                    f"torch pads at most half of a window's {problem.r} x {problem.s} elements, whatever their "
                    f"dilation, not {problem.padding[::2]}"
                )
        return None

    def details(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def conv2d(self, problem, input, weight, bias, residual, stride, padding, dilation, groups, activation):
        output = convolve(problem, input, weight, bias, stride, padding, dilation, groups)
        if residual is not None:
            output.add_(residual)
        return output.relu_() if activation == "relu" else output

    def conv2d_dgrad(self, problem, grad_output, weight, input_size, stride, padding, dilation, groups):
        crop = None if is_symmetric(padding) else padding
        height, width = input_size
        if crop is not None:
            height, width, padding = height + crop[0] + crop[1], width + crop[2] + crop[3], (0, 0, 0, 0)
        # Only the sizes of the input matter to its gradient; its values are never read.
        input = _blank(grad_output, (grad_output.shape[0], weight.shape[1] * groups, height, width), problem)
        grad_input, _, _ = _CONVOLUTION_BACKWARD(
            grad_output, input, weight, None, stride, padding[::2], dilation, False, (0, 0), groups, _DGRAD
        )
        return dense(grad_input if crop is None else cropped(grad_input, crop), problem)

    def conv2d_wgrad(self, problem, grad_output, input, filter_size, stride, padding, dilation, groups, bias):
        if not is_symmetric(padding):
            input, padding = padded(input, padding), (0, 0, 0, 0)
        filters = grad_output.shape[1]
        weight = _blank(input, (filters, input.shape[1] // groups, *filter_size), problem)
        wanted = (False, True, bias)
        _, grad_weight, grad_bias = _CONVOLUTION_BACKWARD(
            grad_output, input, weight, (filters,), stride, padding[::2], dilation, False, (0, 0), groups, wanted
        )
        return dense(grad_weight, problem), grad_bias if bias else input.new_empty((0,))

    def conv2d_dgrad_relu(self, problem, grad_output, relu_output, weight, *geometry):
        return self.conv2d_dgrad(problem, _masked(grad_output, relu_output), weight, *geometry)

    def conv2d_wgrad_relu(self, problem, grad_output, relu_output, input, *geometry):
        return self.conv2d_wgrad(problem, _masked(grad_output, relu_output), input, *geometry)

    def conv_transpose2d(self, problem, input, weight, bias, stride, padding, output_padding, dilation, groups):
        crop = None if is_symmetric(padding) else padding
        pads = (0, 0) if crop else padding[::2]
        output = torch.convolution(input, weight, bias, stride, pads, dilation, True, output_padding, groups)
        if crop:
            output = cropped(output, crop)
        return dense(output, problem)

    def max_pool2d(self, problem, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        if activation == "relu":
            input = input.relu()
        geometry = (kernel_size, stride, padding[::2], dilation, ceil_mode)
        output, indices = _MAX_POOL(input, *geometry)
        if index_dtype is None:
            return dense(output, problem), input.new_empty((0,), dtype=torch.uint8)
        if index_dtype is not torch.int64:
            indices = _offsets(indices, problem).to(index_dtype)
        if problem.dilation != [1, 1]:  # else every window has an element
            indices.masked_fill_(_empty_windows(problem, input.device), 255 if index_dtype is torch.uint8 else -1)
        return dense(output, problem), dense(indices, problem)

    def max_pool2d_backward(
        self, problem, grad_output, indices, input_size, kernel_size, stride, padding, dilation, ceil_mode
    ):
        flat, inside = _flat(indices, problem)
        image = grad_output.new_empty((*grad_output.shape[:2], *input_size))
        grad_input = _MAX_POOL_BACKWARD(
            grad_output.where(inside, 0), image, kernel_size, stride, padding[::2], dilation, ceil_mode, flat * inside
        )
        return dense(grad_input, problem)

    def max_pool2d_backward_relu(self, problem, grad_output, relu_output, indices, *geometry):
        return self.max_pool2d_backward(problem, _masked(grad_output, relu_output), indices, *geometry)

    def max_pool2d_gather(self, problem, input, indices, kernel_size, stride, padding, dilation, ceil_mode):
        flat, inside = _flat(indices, problem)
        values = input.flatten(2).gather(2, (flat * inside).flatten(2)).view(indices.shape)
        return dense(values.where(inside, 0), problem)

    def max_unpool2d(self, problem, input, indices, kernel_size, stride, padding, dilation, output_size):
        flat, winners = _winners("max_unpool2d", indices, problem)
        planes = input.new_zeros((*input.shape[:2], problem.h * problem.w + 1))
        planes.scatter_(2, torch.where(winners, flat, problem.h * problem.w), input.flatten(2))
        return dense(planes[:, :, :-1].unflatten(2, (problem.h, problem.w)), problem)

    def max_unpool2d_backward(self, problem, grad_output, indices, kernel_size, stride, padding, dilation, output_size):
        flat, winners = _winners("max_unpool2d_backward", indices, problem)
        values = torch.where(winners, grad_output.flatten(2).gather(2, flat), 0)
        return dense(values.view(indices.shape), problem)

    def nearest_unpool2d(self, problem, input, scale):
        # Not torch's upsampling, which divides in float32 and so may take a neighbour's value.
        output = _blank(input, (problem.n, problem.c, problem.h, problem.w), problem)
        cells = output.view(problem.n, problem.c, problem.p, scale[0], problem.q, scale[1])
        cells.copy_(input[:, :, :, None, :, None])
        return output

    def nearest_unpool2d_backward(self, problem, grad_output, scale):
        wide = torch.promote_types(grad_output.dtype, torch.float32)
        sums = grad_output[:, :, :: scale[0], :: scale[1]].to(wide, copy=True)
        for place in range(1, scale[0] * scale[1]):
            row, column = divmod(place, scale[1])
            sums += grad_output[:, :, row :: scale[0], column :: scale[1]]
        return dense(sums.to(grad_output.dtype), problem)

    def residual_add(self, problem, x, residual, activation):
        output = torch.add(x, residual, out=torch.empty_like(x))
        return output.relu_() if activation == "relu" else output

    def relu_backward(self, problem, grad_output, output):
        return _masked(grad_output, output)

    def residual_add_mask(self, problem, x, residual):
        output = self.residual_add(problem, x, residual, "relu")
        flags = (~(_in_memory(output) <= 0)).to(torch.uint8)
        flags = F.pad(flags, (0, -flags.numel() % 8)).view(-1, 8)
        return output, (flags << torch.arange(8, dtype=torch.uint8, device=x.device)).sum(1, dtype=torch.uint8)

    def relu_backward_mask(self, problem, grad_output, mask, stride):
        grad_input = torch.empty_strided(grad_output.shape, stride, dtype=grad_output.dtype, device=mask.device)
        grad_input.copy_(grad_output)
        bits = mask[:, None] >> torch.arange(8, dtype=torch.uint8, device=mask.device) & 1
        flat = _in_memory(grad_input)
        flat.masked_fill_(bits.flatten()[: flat.numel()] == 0, 0)
        return grad_input


def _in_memory(tensor: Tensor) -> Tensor:
    """Return a view of a dense tensor as a vector, in the order of its memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _flat(indices: Tensor, problem: Any) -> tuple[Tensor, Tensor]:
    """Return positions in the plane (int64) for indices of any form, and whether each lies inside it."""
    if indices.dtype is torch.int64:
        return indices, (indices >= 0) & (indices < problem.h * problem.w)
    offsets = indices.to(torch.int64)
    top, _, left, _ = problem.padding
    rows = torch.arange(indices.shape[2], device=indices.device)[:, None] * problem.stride[0] - top
    columns = torch.arange(indices.shape[3], device=indices.device) * problem.stride[1] - left
    rows = rows + offsets.div(problem.s, rounding_mode="floor") * problem.dilation[0]
    columns = columns + offsets.remainder(problem.s) * problem.dilation[1]
    inside = (rows >= 0) & (rows < problem.h) & (columns >= 0) & (columns < problem.w)
    return rows * problem.w + columns, inside & (offsets >= 0) & (offsets < problem.r * problem.s)


def _offsets(flat: Tensor, problem: Any) -> Tensor:
    """Return offsets in the window for positions in the plane."""
    top, _, left, _ = problem.padding
    rows = flat.div(problem.w, rounding_mode="floor")
    columns = flat.remainder(problem.w)
    rows = rows - torch.arange(flat.shape[2], device=flat.device)[:, None] * problem.stride[0] + top
    columns = columns - torch.arange(flat.shape[3], device=flat.device) * problem.stride[1] + left
    taps = rows.div(problem.dilation[0], rounding_mode="floor") * problem.s
    return taps + columns.div(problem.dilation[1], rounding_mode="floor")


def _empty_windows(problem: Any, device: torch.device) -> Tensor:
    """Return which windows, (P, Q), have no element inside the plane."""
    has_elements = []
    for windows, stride, padding, taps, dilation, size in (
        (problem.p, problem.stride_h, problem.pad_top, problem.r, problem.dilation_h, problem.h),
        (problem.q, problem.stride_w, problem.pad_left, problem.s, problem.dilation_w, problem.w),
    ):
        origins = torch.arange(windows, device=device)[:, None] * stride - padding
        places = origins + torch.arange(taps, device=device) * dilation
        has_elements.append(((places >= 0) & (places < size)).any(1))
    return ~(has_elements[0][:, None] & has_elements[1])


def _winners(operation: str, indices: Tensor, problem: Any) -> tuple[Tensor, Tensor]:
    """Return each pooled value's position and whether it is the last of those that name it; (N, C, P*Q) both.

    Raises:
        InvalidCall: an index lies outside the plane.
    """
    flat, inside = _flat(indices, problem)
    if not inside.all():
        n, c, p, q = (~inside).nonzero()[0].tolist()
        raise InvalidCall(problem.bad_index(operation, indices[n, c, p, q].item(), n, c, p, q))
    flat = flat.flatten(2)
    order = torch.arange(flat.shape[2], device=flat.device).expand_as(flat)
    last = flat.new_full((*flat.shape[:2], problem.h * problem.w), -1).scatter_reduce_(2, flat, order, "amax")
    return flat, last.gather(2, flat) == order
