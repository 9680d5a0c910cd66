"""Problems, their tensors, and what a convolution should give: computed in float64 by torch on the CPU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from kernels.harness import DTYPES, run

from pyconvx import _C


class Case:
    """A convolution with its tensors. Integer-valued ones give sums that every dtype's accumulator holds exactly."""

    def __init__(
        self,
        n, c, h, w, k, r, s, *,
        stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1,
        dtype=torch.float16, layout="nhwc", tf32=False,
        bias=False, scale=False, residual=False, relu=False, integers=True, seed=0,
    ):
        self.dtype, self.layout, self.tf32 = dtype, layout, tf32
        self.problem = _C.Conv2dProblem(
            n=n, c=c, h=h, w=w, k=k, r=r, s=s, stride=stride, padding=padding, dilation=dilation, groups=groups,
            dtype=DTYPES[dtype], layout=getattr(_C.Layout, layout), bias=bias, residual=residual,
            activation=_C.Activation.relu if relu else _C.Activation.none,
        )
        generator = torch.Generator().manual_seed(seed)

        def tensor(*shape, low=-2, high=3):
            if integers:
                return torch.randint(low, high, shape, generator=generator).double()
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).double()

        p, q = self.problem.p, self.problem.q
        self.input = tensor(n, c, h, w)
        self.filter = tensor(k, c // groups, r, s, low=-1, high=2)
        self.bias = tensor(k) if bias else None
        self.scale = tensor(k, low=1, high=3).float().double() if scale else None
        self.shift = tensor(k).float().double() if scale else None
        self.residual = tensor(n, k, p, q) if residual else None
        self.relu = relu

    def conv(self, input, filter):
        x = self.problem
        top, bottom, left, right = x.padding
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, filter, None, x.stride, 0, x.dilation, x.groups)

    def expected(self) -> torch.Tensor:
        """In float64, not rounded."""
        y = self.conv(self.input, self.filter)
        per_filter = lambda v: v.view(1, -1, 1, 1)
        if self.bias is not None:
            y = y + per_filter(self.bias)
        if self.scale is not None:
            y = y * per_filter(self.scale) + per_filter(self.shift)
        if self.residual is not None:
            y = y + self.residual
        return y.relu() if self.relu else y

    def tolerance(self) -> torch.Tensor:
        """How far a float result may be from expected(): rounding of the output, and of the sums, whose terms add up to
        at most conv(|input|, |filter|)."""
        terms = self.conv(self.input.abs(), self.filter.abs())
        length = self.filter[0].numel()
        unit = 2.0**-10 if self.tf32 else torch.finfo(torch.float64 if self.dtype == torch.float64 else torch.float32).eps
        # tf32 truncates its operands: an error of the operands, that does not average out.
        sums = 2 * unit * terms if self.tf32 else 2 * unit * math.sqrt(length) * terms
        return sums + torch.finfo(self.dtype).eps * self.expected().abs()

    def plan(self, device="a100", **options):
        return _C.plan_conv2d(self.problem, device, tf32=self.tf32, **options)

    def buffers(self) -> dict[str, torch.Tensor]:
        """The tensors as the kernels want them: in memory, in the problem's layout and dtype."""

        def laid_out(x, dtype=self.dtype):
            x = x.to(dtype)
            x = x.permute(0, 2, 3, 1) if self.layout == "nhwc" and x.ndim == 4 else x
            return x.clone(memory_format=torch.contiguous_format)

        x = self.problem
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        tensors = {"input": laid_out(self.input), "filter": laid_out(self.filter)}
        if self.bias is not None:
            tensors["bias"] = laid_out(self.bias)
        if self.scale is not None:
            tensors |= {"scale": laid_out(self.scale, wide), "shift": laid_out(self.shift, wide)}
        if self.residual is not None:
            tensors["residual"] = laid_out(self.residual)
        tensors["output"] = laid_out(torch.full((x.n, x.k, x.p, x.q), math.nan))
        return tensors

    def run(self, plan=None, **options) -> torch.Tensor:
        """The output, N K P Q."""
        tensors = self.buffers()
        run(plan or self.plan(), tensors, **options)
        output = tensors["output"]
        return output.permute(0, 3, 1, 2) if self.layout == "nhwc" else output

    def check(self, plan=None, **options) -> torch.Tensor:
        output = self.run(plan, **options)
        expected = self.expected()
        assert torch.equal(output, expected.to(self.dtype)), self.difference(output, expected, plan)
        return output

    def difference(self, output, expected, plan) -> str:
        wrong = (output.double() != expected.to(self.dtype).double()).nonzero()
        first = tuple(wrong[0].tolist())
        return (
            f"{self.problem}, tile {plan.tile if plan else ''}: {len(wrong)} of {output.numel()} outputs are wrong, first at "
            f"{first}: {output[first].item()} instead of {expected[first].item()}"
        )
