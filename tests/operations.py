"""One table of sample calls: for every registered operation, with its operands in either layout.

Each test of how an operation meets PyTorch (test_registration, test_derivatives, test_compile, ...) runs over this
table, so an operation that is added here is tested for all of it, and test_registration fails for one that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pyconvx
from pyconvx import ops

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Operand = Callable[[torch.Generator, torch.memory_format, torch.dtype], Tensor]


@dataclass(frozen=True)
class Sample:
    """One call of an operation: its tensors and its options, as the registered operation takes them, and the function
    that users call instead, of the tensors alone (the operation itself where there is none)."""

    operation: str
    title: str
    operands: tuple[Operand | None, ...]
    options: tuple[Any, ...]
    function: Callable[..., Any] | None = None
    constants: tuple[int, ...] = ()
    """Where operands stand that have no gradient though they are floats."""

    @property
    def operator(self) -> Any:
        """The operation with its routes."""
        return getattr(ops, self.operation)

    def __call__(self, *tensors: Tensor | None) -> Any:
        """Run the function on tensors like those that ``tensors`` makes."""
        return self.function(*tensors) if self.function else self.operator(*tensors, *self.options)

    def tensors(
        self, layout: torch.memory_format, dtype: torch.dtype = torch.float64, grad: bool = False, seed: int = 0
    ) -> list[Tensor | None]:
        """Return seeded operands in ``layout``; with ``grad`` those that have a gradient ask for it."""
        generator = torch.Generator().manual_seed(seed)
        tensors = [operand and operand(generator, layout, dtype) for operand in self.operands]
        for position in self.differentiable(tensors) if grad else ():
            tensors[position].requires_grad_()
        return tensors

    def differentiable(self, tensors: list[Tensor | None]) -> list[int]:
        """Return where the operands stand that have a gradient."""
        return [
            position for position, tensor in enumerate(tensors)
            if tensor is not None and tensor.is_floating_point() and position not in self.constants
        ]  # fmt: skip


def results(value: Any) -> list[Tensor]:
    """Return the results of a call as a list."""
    return list(value) if isinstance(value, (tuple, list)) else [value]


def differentiable_results(value: Any) -> list[Tensor]:
    """Return the results that a gradient can come from; an empty tensor stands for a result that was not asked for."""
    return [result for result in results(value) if result.requires_grad]


def in_layout(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """Return a copy with exactly the strides of ``layout``, also where a size of 1 leaves them open."""
    if tensor.dim() != 4:
        return tensor.clone()
    return torch.empty(tensor.shape, dtype=tensor.dtype, memory_format=layout).copy_(tensor)


def over(samples: list[Sample]) -> pytest.MarkDecorator:
    """Run a test over samples."""
    return pytest.mark.parametrize("sample", samples, ids=lambda sample: f"{sample.operation}-{sample.title}")


def of(operation: str) -> list[Sample]:
    return [sample for sample in SAMPLES if sample.operation == operation]


both_layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def _random(*shape: int) -> Operand:
    def operand(generator: torch.Generator, layout: torch.memory_format, dtype: torch.dtype) -> Tensor:
        return in_layout(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype), layout)

    return operand


def _winners(
    shape: tuple[int, ...], window: Any, stride: Any, padding: Any, dilation: Any, index: torch.dtype
) -> Operand:
    """Indices that a pooling of some image of ``shape`` returns."""

    def operand(generator: torch.Generator, layout: torch.memory_format, dtype: torch.dtype) -> Tensor:
        image = torch.randn(shape, generator=generator, dtype=torch.float64)
        flat = F.max_pool2d(image, window, stride, padding[::2], dilation, return_indices=True)[1]
        if index is torch.int64:
            return in_layout(flat, layout)
        rows = flat // shape[3] - torch.arange(flat.shape[2])[:, None] * stride[0] + padding[0]
        columns = flat % shape[3] - torch.arange(flat.shape[3]) * stride[1] + padding[2]
        return in_layout((rows // dilation[0] * window[1] + columns // dilation[1]).to(index), layout)

    return operand


def _mask(size: int) -> Operand:
    """Bytes of any bits."""
    return lambda generator, layout, dtype: torch.randint(256, (size,), generator=generator, dtype=torch.uint8)


class Recorder(TorchDispatchMode):
    """Notes every operation that reaches the dispatcher inside its ``with`` block."""

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called.append(str(func))
        return func(*args, **(kwargs or {}))

    def operations(self):
        """Return which of ours have been called."""
        return {name.split(".")[1] for name in self.called if name.startswith("pyconvx.")}


_ONE, _FLAT = (1, 1), (0, 0, 0, 0)


def _conv2d(title, input, weight, bias, residual, stride, padding, dilation, groups, activation):
    def function(input, weight, bias, residual):
        return pyconvx.conv2d(
            input, weight, bias, stride, padding, dilation, groups, activation=activation, residual=residual
        )

    bias = _random(weight[0]) if bias else None
    operands = (_random(*input), _random(*weight), bias, residual and _random(*residual))
    return Sample("conv2d", title, operands, (stride, padding, dilation, groups, activation or "none"), function)


def _conv_transpose2d(title, input, weight, bias, stride, padding, output_padding, dilation, groups):
    def function(input, weight, bias):
        return pyconvx.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)

    bias = _random(weight[1] * groups) if bias else None
    return Sample(
        "conv_transpose2d", title, (_random(*input), _random(*weight), bias),
        (stride, padding, output_padding, dilation, groups), function,
    )  # fmt: skip


def _max_pool2d(title, input, window, stride, padding, dilation, ceil_mode, index, activation=None):
    def function(input):
        return pyconvx.max_pool2d(
            input, window, stride, padding, dilation, ceil_mode, True, index_dtype=index, activation=activation
        )

    options = (window, stride, padding, dilation, ceil_mode, index, activation or "none")
    return Sample("max_pool2d", title, (_random(*input),), options, function if index else None)


def _pooled(operation, title, values, image, window, stride, padding, dilation, index, *options, function=None):
    operands = (_random(*values), _winners(image, window, stride, padding, dilation, index))
    return Sample(operation, title, operands, options, function)


_WINDOW = ((2, 2), (2, 2), _FLAT, _ONE)
_OVERLAPPING = ((3, 3), (2, 2), (1, 1, 1, 1), _ONE)
_DILATED = ((2, 3), (1, 2), (1, 1, 0, 0), (2, 1))


def _unpool(title, values, image, geometry, index):
    function = partial(_max_unpool2d, geometry, image[2:])
    return _pooled("max_unpool2d", title, values, image, *geometry, index, *geometry, image[2:], function=function)


def _max_unpool2d(geometry, output_size, input, indices):
    window, stride, padding, dilation = geometry
    return pyconvx.max_unpool2d(input, indices, window, stride, padding, output_size, dilation=dilation)


# The first sample of an operation is its plain case: tests that are slow (compilers) take that one.
SAMPLES = [
    _conv2d("3x3-bias", (2, 3, 5, 4), (4, 3, 3, 3), True, None, _ONE, (1, 1, 1, 1), _ONE, 1, None),
    _conv2d("relu-residual", (2, 2, 4, 5), (3, 2, 1, 3), True, (2, 3, 4, 5), _ONE, (0, 0, 1, 1), _ONE, 1, "relu"),
    _conv2d("relu", (1, 2, 3, 3), (2, 2, 3, 1), False, None, _ONE, (1, 1, 0, 0), _ONE, 1, "relu"),
    _conv2d("residual", (2, 2, 3, 3), (2, 2, 1, 1), False, (2, 2, 3, 3), _ONE, _FLAT, _ONE, 1, None),
    _conv2d("grouped-strided", (2, 4, 6, 5), (6, 2, 2, 3), True, None, (2, 1), (1, 1, 0, 0), (1, 2), 2, None),
    _conv2d("depthwise-four-sides", (1, 3, 5, 4), (3, 1, 3, 3), False, None, _ONE, (0, 1, 2, 1), _ONE, 3, None),
    _conv2d("one-pixel", (2, 3, 3, 3), (4, 3, 3, 3), True, None, _ONE, _FLAT, _ONE, 1, None),
    _conv2d("one-channel", (2, 1, 4, 4), (1, 1, 3, 3), True, None, _ONE, (1, 1, 1, 1), _ONE, 1, None),
    _conv2d("no-images", (0, 3, 4, 4), (2, 3, 3, 3), True, None, _ONE, (1, 1, 1, 1), _ONE, 1, None),
    Sample("conv2d_dgrad", "3x3", (_random(2, 4, 5, 4), _random(4, 3, 3, 3)),
           ((5, 4), _ONE, (1, 1, 1, 1), _ONE, 1)),
    Sample("conv2d_dgrad", "grouped-strided", (_random(2, 6, 3, 3), _random(6, 2, 2, 3)),
           ((6, 5), (2, 2), (0, 1, 1, 1), _ONE, 2)),
    Sample("conv2d_dgrad", "one-pixel", (_random(2, 4, 1, 1), _random(4, 3, 3, 3)), ((3, 3), _ONE, _FLAT, _ONE, 1)),
    Sample("conv2d_dgrad", "one-channel", (_random(2, 1, 4, 4), _random(1, 1, 1, 1)), ((4, 4), _ONE, _FLAT, _ONE, 1)),
    Sample("conv2d_wgrad", "3x3-bias", (_random(2, 4, 5, 4), _random(2, 3, 5, 4)),
           ((3, 3), _ONE, (1, 1, 1, 1), _ONE, 1, True)),
    Sample("conv2d_wgrad", "grouped-strided", (_random(2, 6, 3, 3), _random(2, 4, 6, 5)),
           ((2, 3), (2, 2), (0, 1, 1, 1), _ONE, 2, False)),
    Sample("conv2d_wgrad", "one-pixel", (_random(2, 4, 1, 1), _random(2, 3, 1, 1)),
           (_ONE, _ONE, _FLAT, _ONE, 1, True)),
    Sample("conv2d_wgrad", "one-channel", (_random(2, 1, 4, 4), _random(2, 1, 4, 4)),
           ((3, 3), _ONE, (1, 1, 1, 1), _ONE, 1, False)),
    Sample("conv2d_dgrad_relu", "grouped-strided", (_random(2, 6, 3, 3), _random(2, 6, 3, 3), _random(6, 2, 2, 3)),
           ((6, 5), (2, 2), (0, 1, 1, 1), _ONE, 2), constants=(1,)),
    Sample("conv2d_wgrad_relu", "3x3-bias", (_random(2, 4, 5, 4), _random(2, 4, 5, 4), _random(2, 3, 5, 4)),
           ((3, 3), _ONE, (1, 1, 1, 1), _ONE, 1, True), constants=(1,)),
    _conv_transpose2d("3x3-bias", (2, 3, 3, 4), (3, 4, 3, 3), True, _ONE, (1, 1, 1, 1), (0, 0), _ONE, 1),
    _conv_transpose2d("strided", (2, 4, 3, 2), (4, 3, 2, 3), True, (2, 2), (0, 0, 1, 1), (1, 0), _ONE, 2),
    _conv_transpose2d("beyond-stride", (1, 2, 2, 3), (2, 2, 2, 2), True, (1, 2), (0, 1, 0, 0), (2, 1), (3, 1), 1),
    _conv_transpose2d("one-pixel", (2, 3, 1, 1), (3, 2, 1, 1), False, _ONE, _FLAT, (0, 0), _ONE, 1),
    _conv_transpose2d("one-channel", (2, 1, 3, 3), (1, 1, 2, 2), False, (2, 2), _FLAT, (0, 0), _ONE, 1),
    _max_pool2d("uint8", (2, 3, 6, 4), *_WINDOW, False, torch.uint8),
    _max_pool2d("none", (2, 3, 6, 4), *_WINDOW, False, None),
    _max_pool2d("int32", (2, 3, 5, 6), *_OVERLAPPING, True, torch.int32),
    _max_pool2d("relu", (2, 3, 5, 6), *_OVERLAPPING, False, torch.uint8, "relu"),
    _max_pool2d("none, relu", (2, 3, 6, 4), *_WINDOW, False, None, "relu"),
    _max_pool2d("int64", (2, 3, 5, 6), *_OVERLAPPING, False, torch.int64),
    _max_pool2d("dilated-none", (1, 2, 6, 5), *_DILATED, False, None),
    _max_pool2d("four-sides", (1, 2, 5, 5), (3, 3), (2, 2), (0, 1, 1, 0), _ONE, False, torch.uint8),
    _max_pool2d("one-pixel", (2, 3, 2, 2), *_WINDOW, False, torch.int64),
    _max_pool2d("one-channel", (2, 1, 4, 4), *_WINDOW, False, torch.uint8),
    _max_pool2d("no-images", (0, 3, 4, 4), *_WINDOW, False, torch.int64),
    _pooled("max_pool2d_backward", "uint8", (2, 3, 3, 2), (2, 3, 6, 4), *_WINDOW, torch.uint8,
            (6, 4), *_WINDOW, False),
    _pooled("max_pool2d_backward", "int32", (2, 3, 3, 3), (2, 3, 5, 6), *_OVERLAPPING, torch.int32,
            (5, 6), *_OVERLAPPING, False),
    _pooled("max_pool2d_backward", "int64", (2, 3, 6, 2), (2, 3, 6, 5), *_DILATED, torch.int64,
            (6, 5), *_DILATED, False),
    _pooled("max_pool2d_backward", "one-channel", (2, 1, 1, 1), (2, 1, 2, 2), *_WINDOW, torch.uint8,
            (2, 2), *_WINDOW, False),
    Sample("max_pool2d_backward_relu", "uint8", (
        _random(2, 3, 3, 3), _random(2, 3, 3, 3), _winners((2, 3, 5, 6), *_OVERLAPPING, torch.uint8),
    ), ((5, 6), *_OVERLAPPING, False), constants=(1,)),
    Sample("max_pool2d_backward_relu", "int64", (
        _random(2, 3, 3, 2), _random(2, 3, 3, 2), _winners((2, 3, 6, 4), *_WINDOW, torch.int64),
    ), ((6, 4), *_WINDOW, False), constants=(1,)),
    _pooled("max_pool2d_gather", "uint8", (2, 3, 6, 4), (2, 3, 6, 4), *_WINDOW, torch.uint8, *_WINDOW, False),
    _pooled("max_pool2d_gather", "int32", (2, 3, 5, 6), (2, 3, 5, 6), *_OVERLAPPING, torch.int32, *_OVERLAPPING, False),
    _pooled("max_pool2d_gather", "int64", (2, 3, 6, 5), (2, 3, 6, 5), *_DILATED, torch.int64, *_DILATED, False),
    _pooled("max_pool2d_gather", "one-channel", (2, 1, 2, 2), (2, 1, 2, 2), *_WINDOW, torch.uint8, *_WINDOW, False),
    _unpool("uint8", (2, 3, 3, 2), (2, 3, 6, 4), _WINDOW, torch.uint8),
    _unpool("int32", (2, 3, 3, 3), (2, 3, 5, 6), _OVERLAPPING, torch.int32),
    _unpool("int64", (2, 3, 6, 2), (2, 3, 6, 5), _DILATED, torch.int64),
    _unpool("one-channel", (2, 1, 1, 1), (2, 1, 2, 2), _WINDOW, torch.uint8),
    _pooled("max_unpool2d_backward", "uint8", (2, 3, 6, 4), (2, 3, 6, 4), *_WINDOW, torch.uint8, *_WINDOW, (6, 4)),
    _pooled("max_unpool2d_backward", "int32", (2, 3, 5, 6), (2, 3, 5, 6), *_OVERLAPPING, torch.int32,
            *_OVERLAPPING, (5, 6)),
    _pooled("max_unpool2d_backward", "int64", (2, 3, 6, 5), (2, 3, 6, 5), *_DILATED, torch.int64, *_DILATED, (6, 5)),
    _pooled("max_unpool2d_backward", "one-channel", (2, 1, 2, 2), (2, 1, 2, 2), *_WINDOW, torch.uint8,
            *_WINDOW, (2, 2)),
    Sample("nearest_unpool2d", "2x3", (_random(2, 3, 3, 2),), ((2, 3),),
           lambda x: pyconvx.nearest_unpool2d(x, (2, 3))),
    Sample("nearest_unpool2d", "one-channel", (_random(2, 1, 1, 1),), ((2, 2),)),
    Sample("nearest_unpool2d_backward", "2x3", (_random(2, 3, 4, 6),), ((2, 3),)),
    Sample("nearest_unpool2d_backward", "one-channel", (_random(2, 1, 2, 2),), ((2, 2),)),
    Sample("residual_add", "relu", (_random(2, 3, 4, 3), _random(2, 3, 4, 3)), ("relu",),
           lambda x, residual: pyconvx.add_relu(x, residual)),
    Sample("residual_add", "none", (_random(2, 3, 2, 2), _random(2, 3, 2, 2)), ("none",),
           lambda x, residual: pyconvx.residual_add(x, residual)),
    Sample("residual_add", "matrix", (_random(3, 4), _random(3, 4)), ("relu",)),
    Sample("residual_add", "one-channel", (_random(2, 1, 2, 2), _random(2, 1, 2, 2)), ("relu",)),
    Sample("relu_backward", "image", (_random(2, 3, 4, 3), _random(2, 3, 4, 3)), (), constants=(1,)),
    Sample("residual_add_mask", "matrix", (_random(3, 5), _random(3, 5)), ()),
    Sample("relu_backward_mask", "matrix", (_random(3, 5), _mask(2)), ((5, 1),)),
    Sample("relu_backward", "vector", (_random(5), _random(5)), (), constants=(1,)),
]  # fmt: skip

FIRST = [of(name)[0] for name in dict.fromkeys(sample.operation for sample in SAMPLES)]
"""The first sample of every operation."""
