"""Residual add with the activation fused: ``pyconvx::residual_add`` and, for its gradient, ``relu_backward``::

    residual_add: output = activation(x + residual)                     (He et al. 2015, section 3.2)
    relu_backward: grad_input = 0 where output <= 0, else grad_output   (a NaN output passes the gradient on)

Both work on tensors of any rank, element by element; results have the strides of ``x``, or of ``output``.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _C
from .._problem import ACTIVATIONS, DTYPES, ElementwiseProblem
from ._checks import check_choice, check_operand, check_size
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


residual_add = ResidualAdd()
relu_backward = ReluBackward()
