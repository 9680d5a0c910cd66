"""Max unpoolings, their tensors, and what they should give: put together value by value by tests/reference.py."""

from __future__ import annotations

import numpy as np
import reference
import torch
from checking import BITS

from kernels.harness import DTYPES, run
from pyconvx import _C
from pyconvx._problem import INDEX_TYPES


class Unpooling:
    """The unpooling of values that are all different, by the winners of a pooling of random numbers.

    ``size`` is (N, C, H, W) of the plane; ``indices`` may be set to others of the same shape.
    """

    def __init__(
        self, size, window, stride, padding=(0, 0, 0, 0), dilation=(1, 1), *, dtype=torch.float16, index=torch.uint8,
        layout="nhwc", seed=0,
    ):  # fmt: skip
        self.dtype, self.index, self.layout = dtype, index, layout
        n, c, h, w = size
        generator = torch.Generator().manual_seed(seed)
        image = torch.randint(-9, 10, size, generator=generator).double().numpy()
        _, offsets, positions = reference.max_pool2d(image, window, stride, padding, dilation)
        self.indices = torch.from_numpy(positions if index is torch.int64 else offsets).to(index)
        self.problem = _C.Unpool2dProblem(
            n=n, c=c, p=positions.shape[2], q=positions.shape[3], h=h, w=w, r=window[0], s=window[1], stride=stride,
            padding=padding, dilation=dilation, dtype=DTYPES[dtype], layout=getattr(_C.Layout, layout),
            index=INDEX_TYPES[index],
        )  # fmt: skip
        self.input = self._bits(positions.shape, generator)
        self.grad_output = self._bits(size, generator)
        self.input[0, 0, 0, 0] = torch.nan

    def _bits(self, shape, generator):
        """Values of every bit pattern, NaN with payloads among them: they are moved and not computed with."""
        bits = BITS[self.dtype]
        info = torch.iinfo(bits)
        return torch.randint(info.min, info.max, shape, generator=generator, dtype=bits).view(self.dtype)

    def positions(self):
        """The indices as positions in the plane."""
        if self.index is torch.int64:
            return self.indices.numpy()
        x, offsets = self.problem, self.indices.long()
        rows = torch.arange(x.p)[:, None] * x.stride_h - x.pad_top + offsets // x.s * x.dilation[0]
        columns = torch.arange(x.q) * x.stride_w - x.pad_left + offsets % x.s * x.dilation[1]
        return (rows * x.w + columns).numpy()

    def expected(self):
        x = self.problem
        bits = BITS[self.dtype]
        planes = np.zeros((x.n, x.c, x.h * x.w), dtype=self.input.view(bits).numpy().dtype)
        positions, values = self.positions(), self.input.view(bits).numpy()
        for at in np.ndindex(*positions.shape):
            planes[at[0], at[1], positions[at]] = values[at]
        return torch.from_numpy(planes).view(self.dtype).view(x.n, x.c, x.h, x.w)

    def expected_backward(self):
        positions = torch.from_numpy(self.positions())
        grads = self.grad_output.flatten(2).view(BITS[self.dtype]).gather(2, positions.flatten(2)).view(positions.shape)
        last = reference.max_unpool2d_backward(np.ones(self.grad_output.shape), positions.numpy())
        return (grads * torch.from_numpy(last).to(grads.dtype)).view(self.dtype)

    def plan(self, backward=False, device="a100", **options):
        return (_C.plan_max_unpool2d_backward if backward else _C.plan_max_unpool2d)(self.problem, device, **options)

    def buffers(self, backward=False):
        x = self.problem
        if backward:
            tensors = {"grad_output": self.grad_output, "grad_input": torch.full_like(self.input, torch.nan)}
        else:
            tensors = {"input": self.input, "output": torch.full((x.n, x.c, x.h, x.w), torch.nan, dtype=self.dtype)}
        tensors["indices"] = self.indices
        laid_out = {name: self.laid_out(tensor) for name, tensor in tensors.items()}
        return {**laid_out, "bad_index": torch.zeros(1, dtype=torch.int64)}

    def laid_out(self, tensor):
        """The tensor as kernels find it in memory."""
        tensor = tensor.permute(0, 2, 3, 1) if self.layout == "nhwc" else tensor
        return tensor.clone(memory_format=torch.contiguous_format)

    def run(self, backward=False, plan=None, **options):
        """The result, in N C H W or N C P Q, and the place of the first bad index."""
        buffers = self.buffers(backward)
        run(plan or self.plan(backward), buffers, **options)
        result = buffers["grad_input" if backward else "output"]
        return result.permute(0, 3, 1, 2) if self.layout == "nhwc" else result, ~buffers["bad_index"].item()

    def check(self, **options):
        for backward in (False, True):
            result, bad = self.run(backward, **options)
            expected = self.expected_backward() if backward else self.expected()
            assert bad == -1
            assert same_bits(result, expected), self.difference(result, expected, backward)

    def difference(self, result, expected, backward):
        bits = BITS[self.dtype]
        wrong = (result.contiguous().view(bits) != expected.contiguous().view(bits)).nonzero()
        first = tuple(wrong[0].tolist())
        return (
            f"{self.problem}{', backward' if backward else ''}: {len(wrong)} of {result.numel()} are wrong, first at "
            f"{first}: {result[first].item()} instead of {expected[first].item()}"
        )


def same_bits(result, expected):
    bits = BITS[result.dtype]
    return torch.equal(result.contiguous().view(bits), expected.contiguous().view(bits))
