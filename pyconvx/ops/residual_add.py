"""Residual add with the activation fused: ``pyconvx::residual_add`` and, for its gradient, ``relu_backward``::

    residual_add: output = activation(x + residual)                     (He et al. 2015, section 3.2)
    relu_backward: grad_input = 0 where output <= 0, else grad_output   (a NaN output passes the gradient on)

Both work on tensors of any rank, element by element; results have the strides of ``x``, or of ``output``.

All that the gradient needs of the output is one bit an element, whether it is not <= 0. ``residual_add_mask`` returns
those bits beside relu(x + residual), and ``relu_backward_mask`` takes them in the output's place: bit i % 8 of byte
i / 8 belongs to the output's element i in memory. Training uses this pair, where a backend has kernels for it: the
backward pass then reads an eighth of a byte an element and not the output, which need not be kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _C, backends
from .._problem import ACTIVATIONS, DTYPES, ElementwiseProblem
from ._checks import check_choice, check_operand, check_size, name_of, refuse, show
from ._operator import Operator
from ._vmap import batch_in_front


def add(one: Any, other: Any) -> Any:
    """Add two terms of a tangent or a gradient, either of which may be absent."""
    return other if one is None else one if other is None else one + other


class ResidualAdd(Operator):
    """The sum of two branches, and the activation behind it."""

    schema = "residual_add(Tensor x, Tensor residual, str activation) -> Tensor"
    tensors = 2

    def check(self, x, residual, activation):
        check_operand(self.name, "x", x)
        check_operand(self.name, "residual", residual, like=x)
        check_size(self.name, "residual", residual, x.shape, "the two are added element by element")
        check_choice(self.name, "activation", activation, tuple(ACTIVATIONS))

    def train(self, x, residual, activation):
        if activation == "relu" and _has_mask_kernels(x.device):
            return residual_add_mask(x, residual)[0]
        return super().train(x, residual, activation)

    def problem(self, x, residual, activation):
        return ElementwiseProblem(self.name, tuple(x.shape), DTYPES[x.dtype], ACTIVATIONS[activation])

    def fake(self, x, residual, activation):
        return torch.empty_like(x)

    def save(self, ctx, inputs, output):
        ctx.activation = inputs[2]
        return () if ctx.activation == "none" else (output,)

    def backward(self, ctx, grad):
        if ctx.activation != "none":
            grad = relu_backward(grad, *ctx.saved_tensors)
        return tuple(grad if needed else None for needed in ctx.needs_input_grad[:2])

    def jvp(self, ctx, x_t, residual_t):
        tangent = add(x_t, residual_t)
        return tangent.clone() if ctx.activation == "none" else relu_backward(tangent, *ctx.saved_tensors)

    def vmap(self, info, in_dims, *args):
        return self(*batch_in_front(info.batch_size, in_dims[:2], args[:2]), args[2]), 0


class ReluBackward(Operator):
    """The mask of a fused ReLU, applied: linear in ``grad_output``, constant in ``output`` almost everywhere."""

    schema = "relu_backward(Tensor grad_output, Tensor output) -> Tensor"
    tensors = 2

    def check(self, grad_output, output):
        check_operand(self.name, "output", output)
        check_operand(self.name, "grad_output", grad_output, like=output)
        check_size(self.name, "grad_output", grad_output, output.shape, "the shape of the output")

    def problem(self, grad_output, output):
        return ElementwiseProblem(self.name, tuple(output.shape), DTYPES[output.dtype], _C.Activation.relu)

    def fake(self, grad_output, output):
        return torch.empty_like(output)

    def save(self, ctx, inputs, output):
        return (inputs[1],)

    def backward(self, ctx, grad):
        return relu_backward(grad, *ctx.saved_tensors) if ctx.needs_input_grad[0] else None, None

    def jvp(self, ctx, grad_output_t, output_t):
        (output,) = ctx.saved_tensors
        return torch.zeros_like(output) if grad_output_t is None else relu_backward(grad_output_t, output)

    def vmap(self, info, in_dims, *args):
        return self(*batch_in_front(info.batch_size, in_dims, args)), 0


class ResidualAddMask(Operator):
    """The sum of two branches and a ReLU behind it, with the mask of the ReLU."""

    schema = "residual_add_mask(Tensor x, Tensor residual) -> (Tensor, Tensor)"
    tensors = 2

    def check(self, x, residual):
        residual_add.check(x, residual, "relu")  # in the name of the operation that was called

    def problem(self, x, residual):
        return ElementwiseProblem(self.name, tuple(x.shape), DTYPES[x.dtype], _C.Activation.relu)

    def fake(self, x, residual):
        return torch.empty_like(x), x.new_empty(_mask_size(x), dtype=torch.uint8)

    def save(self, ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.stride = output[0].stride()
        return (output[1],)

    def backward(self, ctx, grad, _):
        grad = relu_backward_mask(grad, *ctx.saved_tensors, ctx.stride)
        return tuple(grad if needed else None for needed in ctx.needs_input_grad[:2])

    def jvp(self, ctx, x_t, residual_t):
        return relu_backward_mask(add(x_t, residual_t), *ctx.saved_tensors, ctx.stride), None

    def vmap(self, info, in_dims, *args):
        return _one_by_one(self, info, in_dims, args)


class ReluBackwardMask(Operator):
    """The mask of a fused ReLU, applied; ``stride`` is that of the output, in which its bits lie, and of the result."""

    schema = "relu_backward_mask(Tensor grad_output, Tensor mask, SymInt[] stride) -> Tensor"
    tensors = 2

    def check(self, grad_output, mask, stride):
        check_operand(self.name, "grad_output", grad_output)
        if mask.dtype != torch.uint8:
            refuse(self.name, f"mask has dtype {name_of(mask.dtype)}, expected uint8, eight elements a byte; pass the "
                              f"mask that residual_add_mask returned")  # fmt: skip
        if mask.device != grad_output.device:
            refuse(self.name, f"mask is on {mask.device} but the input is on {grad_output.device}; move one with .to()")
        check_size(self.name, "mask", mask, _mask_size(grad_output), "one bit for each element of grad_output")
        if not _is_dense(grad_output.shape, stride):
            refuse(self.name, f"stride is {show(stride)}, expected that of a dense tensor of shape "
                              f"{show(grad_output.shape)}; pass the stride of the output")  # fmt: skip

    def problem(self, grad_output, mask, stride):
        return ElementwiseProblem(self.name, tuple(grad_output.shape), DTYPES[grad_output.dtype], _C.Activation.relu)

    def fake(self, grad_output, mask, stride):
        return torch.empty_strided(
            tuple(grad_output.shape), tuple(stride), dtype=grad_output.dtype, device=grad_output.device
        )

    def save(self, ctx, inputs, output):
        ctx.stride = inputs[2]
        return (inputs[1],)

    def backward(self, ctx, grad):
        if not ctx.needs_input_grad[0]:
            return None, None
        return relu_backward_mask(grad, *ctx.saved_tensors, ctx.stride), None

    def jvp(self, ctx, grad_output_t, _):
        return relu_backward_mask(grad_output_t, *ctx.saved_tensors, ctx.stride)

    def vmap(self, info, in_dims, *args):
        return _one_by_one(self, info, in_dims, args)


def _is_dense(shape: Any, stride: Any) -> bool:
    """Whether a tensor of that shape and stride fills its memory; taken on trust where sizes are symbolic."""
    if len(shape) != len(stride):
        return False
    if any(isinstance(number, torch.SymInt) for number in (*shape, *stride)) or 0 in shape:
        return True
    step = 1
    for distance, size in sorted((distance, size) for size, distance in zip(shape, stride, strict=True) if size > 1):
        if distance != step:
            return False
        step *= size
    return True


def _mask_size(tensor: Tensor) -> tuple[Any]:
    return ((tensor.numel() + 7) // 8,)


def _one_by_one(operator: Operator, info: Any, in_dims: tuple[int | None, ...], args: tuple[Any, ...]) -> Any:
    """The rule where a batch of calls is none: each call's mask begins with a byte of its own."""
    tensors = batch_in_front(info.batch_size, in_dims[: operator.tensors], args[: operator.tensors])
    calls = [operator(*(tensor[i] for tensor in tensors), *args[operator.tensors :]) for i in range(info.batch_size)]
    if isinstance(calls[0], tuple):
        return tuple(map(torch.stack, zip(*calls, strict=True))), (0,) * len(calls[0])
    return torch.stack(calls), 0


_mask_kernels: dict[Any, bool] = {}
backends.choices.append(_mask_kernels)


def _has_mask_kernels(device: torch.device) -> bool:
    """Whether a backend of ours, not torch itself, would make a mask on a device: by torch it takes many kernels."""
    found = _mask_kernels.get(device)
    if found is None:
        problem = ElementwiseProblem("residual_add_mask", (1,), _C.DType.float32, _C.Activation.relu)
        found = _mask_kernels[device] = backends.runs_on_ours("residual_add_mask", problem, device)
    return found


residual_add = ResidualAdd()
relu_backward = ReluBackward()
residual_add_mask = ResidualAddMask()
relu_backward_mask = ReluBackwardMask()
