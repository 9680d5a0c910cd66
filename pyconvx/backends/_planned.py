"""What the backends that run the CUDA kernels share: from an operation's tensors to a plan's launches.

A plan (csrc/plan) says for a problem and a chip which kernels to launch, with which grid, block, shared memory and
arguments. Here the operation's tensors are brought into the problem's layout, results are made, and the plan is looked
up; a subclass says what chip it is and runs the launches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import _C
from . import Backend
from ._bad_index import BadIndices
from .aten import dense, in_strides, result_layout

_MAX_PLANS = 4096


class Planned(Backend):
    """Base of the backends of kernels/cuda. An operation has kernels if ``_C`` has a ``plan_<operation>``; that of a
    gradient with a ReLU's mask is the plan of the gradient, whose problem says that it is masked."""

    masks_gradients = True

    plan_options: ClassVar[dict[str, Any]] = {}
    """What every plan is made with beside the problem, the chip, the alignment and TF32."""

    def __init__(self) -> None:
        self._plans: dict[Any, Any] = {}
        self.bad_indices = BadIndices()

    # What a subclass states.

    def chip(self, device: torch.device) -> Any:
        """Return the description of the device's chip, or its name in the table of chips."""
        raise NotImplementedError

    def run(self, plan: Any, tensors: dict[str, Tensor]) -> None:
        """Run a plan's launches in order on tensors, by the names that the plan gives them."""
        raise NotImplementedError

    def address(self, tensor: Tensor) -> int:
        """Return where a tensor's elements begin."""
        return tensor.data_ptr()

    def tf32(self) -> bool:
        """Whether float32 may be multiplied as TF32."""
        return False

    # What follows from it.

    def can_run(self, operation: str, problem: Any, device: torch.device) -> str | None:
        if not (hasattr(_C, _planner(operation)) and hasattr(self, operation)):
            return f"there is no CUDA kernel of {operation} yet"
        try:
            self.plan(operation, problem, device)
        except ValueError as refusal:
            return str(refusal)
        return None

    def plan(self, operation: str, problem: Any, device: torch.device, alignment: int = 16) -> Any:
        """Return the launches of an operation on tensors whose addresses are multiples of ``alignment`` bytes; raise
        ValueError with the reason where no kernel runs it."""
        chip = self.chip(device)
        key = operation, problem, chip if isinstance(chip, str) else device, alignment, self.tf32()
        plan = self._plans.get(key)
        if plan is None:
            options = dict(self.plan_options, alignment=alignment)
            if operation.startswith("conv"):
                options["tf32"] = self.tf32()
            plan = getattr(_C, _planner(operation))(problem, chip, **options)
            if len(self._plans) >= _MAX_PLANS:  # shapes without end: start over rather than grow without bound
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _compute(self, operation: str, problem: Any, tensors: Mapping[str, Tensor | None]) -> None:
        """Run an operation whose tensors, operands and results, are laid out as the kernels want them."""
        given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        addresses = 0
        for tensor in given.values():
            addresses |= self.address(tensor)
        alignment = min(16, addresses & -addresses) or 16
        device = next(iter(given.values())).device
        self.run(self.plan(operation, problem, device, alignment), given)

    # Convolutions.

    def conv2d(self, problem, input, weight, bias, residual, *geometry):
        output = _blank(input, (problem.n, problem.k, problem.p, problem.q), problem)
        if output.numel():
            tensors = {
                "input": dense(input, problem),
                "filter": dense(weight, problem),
                "bias": None if bias is None else bias.contiguous(),
                "residual": None if residual is None else dense(residual, problem),
                "output": output,
            }
            self._compute("conv2d", problem, tensors)
        return output

    def conv2d_dgrad(self, problem, grad_output, weight, *geometry, relu_output=None):
        grad_input = _blank(grad_output, (problem.n, problem.c, problem.h, problem.w), problem)
        if grad_input.numel():
            tensors = {
                "grad_output": dense(grad_output, problem),
                "relu_output": None if relu_output is None else dense(relu_output, problem),
                "filter": dense(weight, problem),
                "grad_input": grad_input,
            }
            self._compute("conv2d_dgrad", problem, tensors)
        return grad_input

    def conv2d_wgrad(self, problem, grad_output, input, *geometry, relu_output=None):
        shape = (problem.k, problem.c // problem.groups, problem.r, problem.s)
        grad_weight = _blank(input, shape, problem)
        grad_bias = input.new_empty((problem.k if problem.bias else 0,))
        tensors = {
            "grad_output": dense(grad_output, problem) if problem.n else None,
            "relu_output": dense(relu_output, problem) if problem.n and relu_output is not None else None,
            "input": dense(input, problem) if problem.n else None,
            "grad_weight": grad_weight,
            "grad_bias": grad_bias if problem.bias else None,
        }
        self._compute("conv2d_wgrad", problem, tensors)
        return grad_weight, grad_bias

    def conv2d_dgrad_relu(self, problem, grad_output, relu_output, *arguments):
        return self.conv2d_dgrad(problem, grad_output, *arguments, relu_output=relu_output)

    def conv2d_wgrad_relu(self, problem, grad_output, relu_output, *arguments):
        return self.conv2d_wgrad(problem, grad_output, *arguments, relu_output=relu_output)

    def conv_transpose2d(self, problem, input, weight, bias, stride, padding, output_padding, dilation, groups):
        output = _blank(input, (problem.n, problem.c, problem.h, problem.w), problem)
        if output.numel():
            tensors = {
                "input": dense(input, problem),
                "filter": dense(weight, problem),
                "bias": None if bias is None else bias.contiguous(),
                "output": output,
            }
            self._compute("conv_transpose2d", problem, tensors)
        return self._beyond_all_filters(output, weight, bias, stride, padding, output_padding, dilation, problem)

    @staticmethod
    def _beyond_all_filters(output, weight, bias, stride, padding, output_padding, dilation, problem):
        """Add the rows and columns that an output_padding of a stride or more, where a dilation allows it, puts beyond
        the reach of all filters: they are the bias alone."""
        from ..ops.conv_transpose2d import output_size

        size = output_size((problem.p, problem.q), weight.shape[2:], stride, padding, output_padding, dilation)
        if tuple(size) == tuple(output.shape[2:]):
            return output
        whole = _blank(output, (problem.n, problem.c, *size), problem)
        whole.copy_(output.new_zeros(()) if bias is None else bias[:, None, None])
        whole[:, :, : problem.h, : problem.w] = output
        return whole

    # Pooling.

    def max_pool2d(self, problem, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        shape = (problem.n, problem.c, problem.p, problem.q)
        output = _blank(input, shape, problem)
        indices = None if index_dtype is None else _blank(input, shape, problem, index_dtype)
        if output.numel():
            self._compute("max_pool2d", problem, {"input": dense(input, problem), "indices": indices, "output": output})
        return output, input.new_empty((0,), dtype=torch.uint8) if indices is None else indices

    def max_pool2d_backward(self, problem, grad_output, indices, *geometry):
        grad_input = _blank(grad_output, (problem.n, problem.c, problem.h, problem.w), problem)
        if grad_input.numel():
            operands = {"grad_output": dense(grad_output, problem), "indices": dense(indices, problem)}
            self._compute("max_pool2d_backward", problem, {**operands, "grad_input": grad_input})
        return grad_input

    def max_pool2d_backward_relu(self, problem, grad_output, relu_output, indices, *geometry):
        grad_input = _blank(grad_output, (problem.n, problem.c, problem.h, problem.w), problem)
        if grad_input.numel():
            given = {"grad_output": grad_output, "relu_output": relu_output, "indices": indices}
            operands: dict[str, Tensor | None] = {name: dense(tensor, problem) for name, tensor in given.items()}
            self._compute("max_pool2d_backward_relu", problem, {**operands, "grad_input": grad_input})
        return grad_input

    def max_pool2d_gather(self, problem, input, indices, *geometry):
        output = _blank(input, tuple(indices.shape), problem)
        if output.numel():
            operands = {"input": dense(input, problem), "indices": dense(indices, problem)}
            self._compute("max_pool2d_gather", problem, {**operands, "output": output})
        return output

    def max_unpool2d(self, problem, input, indices, *geometry):
        output = _blank(input, (problem.n, problem.c, problem.h, problem.w), problem)
        self._unpool("max_unpool2d", problem, indices, {"input": dense(input, problem), "output": output})
        return output

    def max_unpool2d_backward(self, problem, grad_output, indices, *geometry):
        grad_input = _blank(grad_output, (problem.n, problem.c, problem.p, problem.q), problem)
        tensors = {"grad_output": dense(grad_output, problem), "grad_input": grad_input}
        self._unpool("max_unpool2d_backward", problem, indices, tensors)
        return grad_input

    def _unpool(self, operation: str, problem: Any, indices: Tensor, tensors: Mapping[str, Tensor | None]) -> None:
        self.bad_indices.raise_unread()
        if problem.n:
            flag = self.bad_indices.new_flag(indices.device)
            self._compute(operation, problem, {**tensors, "indices": dense(indices, problem), "bad_index": flag})
            self.bad_indices.watch(operation, problem, indices, flag)

    def nearest_unpool2d(self, problem, input, scale):
        output = _blank(input, (problem.n, problem.c, problem.h, problem.w), problem)
        if output.numel():
            self._compute("nearest_unpool2d", problem, {"input": dense(input, problem), "output": output})
        return output

    def nearest_unpool2d_backward(self, problem, grad_output, scale):
        grad_input = _blank(grad_output, (problem.n, problem.c, problem.p, problem.q), problem)
        if grad_input.numel():
            tensors = {"grad_output": dense(grad_output, problem), "grad_input": grad_input}
            self._compute("nearest_unpool2d_backward", problem, tensors)
        return grad_input

    # Residual add.

    def residual_add(self, problem, x, residual, activation):
        output = torch.empty_like(x)
        self._elementwise("residual_add", problem, output, x=x, residual=residual, output=output)
        return output

    def residual_add_mask(self, problem, x, residual):
        output, mask = torch.empty_like(x), x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)
        self._elementwise("residual_add_mask", problem, output, mask, x=x, residual=residual, output=output)
        return output, mask

    def relu_backward(self, problem, grad_output, output):
        result = torch.empty_like(output)
        self._elementwise("relu_backward", problem, result, grad_output=grad_output, output=output, grad_input=result)
        return result

    def relu_backward_mask(self, problem, grad_output, mask, stride):
        result = torch.empty_strided(grad_output.shape, stride, dtype=grad_output.dtype, device=grad_output.device)
        mask = mask.contiguous()
        self._elementwise("relu_backward_mask", problem, result, mask, grad_output=grad_output, grad_input=result)
        return result

    def _elementwise(
        self, operation: str, problem: Any, like: Tensor, mask: Tensor | None = None, **tensors: Tensor
    ) -> None:
        """Run on tensors that are brought into the memory order of ``like``, the result."""
        if like.numel():
            laid_out: dict[str, Tensor | None] = {name: in_strides(tensor, like) for name, tensor in tensors.items()}
            laid_out["mask"] = mask
            if self.plan_options.get("ahead_of_time"):  # in vectors of 16 bytes alone; results are aligned
                laid_out = {name: self._aligned(tensor) for name, tensor in laid_out.items()}
            self._compute(operation, problem, laid_out)

    def _aligned(self, tensor: Tensor | None) -> Tensor | None:
        return tensor if tensor is None or self.address(tensor) % 16 == 0 else tensor.clone()


def _planner(operation: str) -> str:
    return f"plan_{operation.removesuffix('_relu')}"


def _blank(like: Tensor, shape: tuple[int, ...], problem: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty result on the device of ``like``, laid out as the problem's results are."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=result_layout(problem))
