"""Backend ``cpu``: CPU tensors.

Convolutions are oneDNN's, through torch: a well-kept library that ours would not beat. Pooling, unpooling and residual
add are C++ of ours (csrc/cpu): vectorised, threaded on torch's own threads, the same bits in every run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _C, frozen
from .._problem import ACTIVATIONS, DTYPES
from ..errors import InvalidCall
from .aten import Aten, convolve, dense, in_strides, result_layout

_KERNELS = _C.cpu
_ZERO = (0, 0)
_CONVOLUTIONS = (
    "conv2d", "conv2d_dgrad", "conv2d_dgrad_relu", "conv2d_wgrad", "conv2d_wgrad_relu", "conv_transpose2d",
)  # fmt: skip


def _native_dtypes() -> frozenset[torch.dtype]:
    """Return the dtypes in which oneDNN convolves on this machine."""
    if not torch.backends.mkldnn.is_available():
        return frozenset()
    native = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        native.add(torch.bfloat16)
    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        native.add(torch.float16)
    return frozenset(native)


class Cpu(Aten):
    name = "cpu"
    summary = "oneDNN's convolutions, and C++ of ours for pooling, unpooling and residual add"
    devices = frozenset({"cpu"})

    def __init__(self) -> None:
        self.native = _native_dtypes()

    def can_run(self, operation: str, problem: Any, device: torch.device) -> str | None:
        if operation in _CONVOLUTIONS:
            if torch.float32 not in self.native:
                return "this torch was built without oneDNN, whose convolutions this backend uses"
            if problem.dtype == _C.DType.float64:
                return "oneDNN has no float64 convolution"
        return None

    def details(self) -> dict[str, str]:
        return {
            "oneDNN convolves": ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in self.native)) or "no",
            "pyconvx kernels": _KERNELS.instruction_set(),
        }

    # Convolutions. Where oneDNN lacks a 16-bit dtype on this machine, float32 takes its place and the result is rounded
    # once: torch's own way there is a loop that is many times slower.

    def conv2d(self, problem, input, weight, bias, residual, stride, padding, dilation, groups, activation):
        top, bottom, left, right = padding
        symmetric, dtype = top == bottom and left == right, input.dtype
        native, plain = dtype in self.native, residual is None and activation == "none"
        # Packed filters make oneDNN rearrange a contiguous image, which takes longer than packing filters does.
        frozen_filters = frozen.packed_filters is not None and problem.channels_last
        # oneDNN is not called for an empty batch, and torch then forgets the layout.
        if plain and symmetric and native and problem.n and not frozen_filters:
            return torch.convolution(input, weight, bias, stride, (top, left), dilation, False, _ZERO, groups)
        if not native:
            input, bias = input.float(), None if bias is None else bias.float()
            residual = None if residual is None else residual.float()
        if symmetric and problem.n and frozen_filters:
            output = _packed_conv2d(input, weight, bias, residual, (top, left), stride, dilation, groups, activation)
            output = dense(output, problem)
        else:
            output = convolve(problem, input, weight.to(input.dtype), bias, stride, padding, dilation, groups)
            if not plain:
                output = _epilogue_(output, residual, activation)
        return output if native else output.to(dtype)

    def conv2d_dgrad(self, problem, grad_output, weight, *geometry):
        dtype = grad_output.dtype
        if dtype in self.native:
            return super().conv2d_dgrad(problem, grad_output, weight, *geometry)
        return super().conv2d_dgrad(problem, grad_output.float(), weight.float(), *geometry).to(dtype)

    def conv2d_wgrad(self, problem, grad_output, input, *geometry):
        dtype = grad_output.dtype
        if dtype in self.native:
            return super().conv2d_wgrad(problem, grad_output, input, *geometry)
        grads = super().conv2d_wgrad(problem, grad_output.float(), input.float(), *geometry)
        return tuple(grad.to(dtype) for grad in grads)

    def conv_transpose2d(self, problem, input, weight, bias, *geometry):
        dtype = input.dtype
        if dtype in self.native:
            return super().conv_transpose2d(problem, input, weight, bias, *geometry)
        bias = None if bias is None else bias.float()
        return super().conv_transpose2d(problem, input.float(), weight.float(), bias, *geometry).to(dtype)

    # Pooling and unpooling.

    def max_pool2d(self, problem, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        input = dense(input, problem)
        if activation == "relu":
            input = self._relu(problem, input)
        output = _empty(problem, input.dtype, problem.p, problem.q)
        if index_dtype is None:
            _KERNELS.max_pool2d(problem, input.data_ptr(), output.data_ptr(), 0)
            return output, input.new_empty((0,), dtype=torch.uint8)
        indices = _empty(problem, index_dtype, problem.p, problem.q)
        _KERNELS.max_pool2d(problem, input.data_ptr(), output.data_ptr(), indices.data_ptr())
        return output, indices

    @staticmethod
    def _relu(problem, x):
        output = torch.empty_like(x)
        _KERNELS.residual_add(x.numel(), problem.dtype, problem.activation, x.data_ptr(), 0, output.data_ptr())
        return output

    def max_pool2d_backward(self, problem, grad_output, indices, *geometry):
        return _run(_KERNELS.max_pool2d_backward, problem, grad_output, indices, problem.h, problem.w)

    def max_pool2d_backward_relu(self, problem, grad_output, relu_output, indices, *geometry):
        masked = self.relu_backward(problem, dense(grad_output, problem), dense(relu_output, problem))
        return self.max_pool2d_backward(problem, masked, indices)

    def max_pool2d_gather(self, problem, input, indices, *geometry):
        return _run(_KERNELS.max_pool2d_gather, problem, input, indices, problem.p, problem.q)

    def max_unpool2d(self, problem, input, indices, *geometry):
        return _run(_KERNELS.max_unpool2d, problem, input, indices, problem.h, problem.w)

    def max_unpool2d_backward(self, problem, grad_output, indices, *geometry):
        return _run(_KERNELS.max_unpool2d_backward, problem, grad_output, indices, problem.p, problem.q)

    # Residual add.

    def residual_add(self, problem, x, residual, activation):
        output = torch.empty_like(x)
        x, residual = in_strides(x, output), in_strides(residual, output)
        _KERNELS.residual_add(
            output.numel(), problem.dtype, problem.activation, x.data_ptr(), residual.data_ptr(), output.data_ptr()
        )
        return output

    def relu_backward(self, problem, grad_output, output):
        grad_input = torch.empty_like(output)
        grad_output, output = in_strides(grad_output, grad_input), in_strides(output, grad_input)
        _KERNELS.relu_backward(
            output.numel(), problem.dtype, grad_output.data_ptr(), output.data_ptr(), grad_input.data_ptr()
        )
        return grad_input

    def residual_add_mask(self, problem, x, residual):
        output = torch.empty_like(x)
        mask = x.new_empty((output.numel() + 7) // 8, dtype=torch.uint8)
        x, residual = in_strides(x, output), in_strides(residual, output)
        _KERNELS.residual_add_mask(
            output.numel(), problem.dtype, x.data_ptr(), residual.data_ptr(), output.data_ptr(), mask.data_ptr()
        )
        return output, mask

    def relu_backward_mask(self, problem, grad_output, mask, stride):
        grad_input = torch.empty_strided(grad_output.shape, stride, dtype=grad_output.dtype, device="cpu")
        grad_output, mask = in_strides(grad_output, grad_input), mask.contiguous()
        _KERNELS.relu_backward_mask(
            grad_input.numel(), problem.dtype, grad_output.data_ptr(), mask.data_ptr(), grad_input.data_ptr()
        )
        return grad_input


def _empty(problem: Any, dtype: torch.dtype, height: int, width: int) -> Tensor:
    shape = (problem.n, problem.c, height, width)
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=result_layout(problem))


def _run(kernel: Any, problem: Any, values: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    """Run a kernel that reads values and indices and writes planes of ``height`` x ``width``."""
    values, indices = dense(values, problem), dense(indices, problem)
    result = _empty(problem, values.dtype, height, width)
    try:
        kernel(problem, values.data_ptr(), indices.data_ptr(), result.data_ptr())
    except ValueError as refusal:  # an index, which only the kernel reads
        raise InvalidCall(str(refusal)) from None
    return result


def _epilogue_(output: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """output = activation(output + residual), in one pass over memory."""
    residual = None if residual is None else in_strides(residual, output)
    _KERNELS.residual_add(
        output.numel(), DTYPES[output.dtype], ACTIVATIONS[activation], output.data_ptr(),
        0 if residual is None else residual.data_ptr(), output.data_ptr(),
    )  # fmt: skip
    return output


def _packed_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, padding: Any, stride: Any,
    dilation: Any, groups: int, activation: str,
) -> Tensor:  # fmt: skip
    """Convolve with the filters in oneDNN's own arrangement, and its own epilogue."""
    geometry = (padding, stride, dilation, groups)

    def pack() -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(weight.to(input.dtype), *geometry, input.shape)

    filters = frozen.packed(weight, geometry, pack)
    relu = "relu" if activation == "relu" else None
    if residual is None:
        return torch.ops.mkldnn._convolution_pointwise(input, filters, bias, *geometry, relu or "none", [], "")
    return torch.ops.mkldnn._convolution_pointwise.binary(
        input, residual, filters, bias, *geometry, "add", 1.0, relu, [], ""
    )
