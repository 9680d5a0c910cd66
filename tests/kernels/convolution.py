"""Problems, their tensors, and what a convolution should give: computed in float64 by torch on the CPU."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from kernels.harness import DTYPES, emulator, run
from pyconvx import _C


class Case:
    """A convolution with its tensors. Integer-valued ones give sums that every dtype's accumulator holds exactly."""

    def __init__(
        self,
        *,
        dtype=torch.float16,
        layout="nhwc",
        tf32=False,
        scale=False,
        relu=False,
        integers=True,
        alignment=16,
        seed=0,
        **sizes,
    ):
        self.dtype, self.layout, self.tf32, self.relu = dtype, layout, tf32, relu
        self.alignment = alignment  # bytes that the address of every tensor is a multiple of, and of no more
        self.problem = x = _C.Conv2dProblem(
            dtype=DTYPES[dtype],
            layout=getattr(_C.Layout, layout),
            activation=_C.Activation.relu if relu else _C.Activation.none,
            **sizes,
        )
        generator = torch.Generator().manual_seed(seed)

        def tensor(*shape, low=-2, high=3):
            if integers:
                return torch.randint(low, high, shape, generator=generator).double()
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).double()

        self.input = tensor(x.n, x.c, x.h, x.w)
        self.filter = tensor(x.k, x.c // x.groups, x.r, x.s, low=-1, high=2)
        self.bias = tensor(x.k) if x.bias else None
        self.scale = tensor(x.k, low=1, high=3).float().double() if scale else None
        self.shift = tensor(x.k).float().double() if scale else None
        self.residual = tensor(x.n, x.k, x.p, x.q) if x.residual else None

    def conv(self, input, filter):
        x = self.problem
        top, bottom, left, right = x.padding
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, filter, None, x.stride, 0, x.dilation, x.groups)

    def expected(self) -> torch.Tensor:
        """In float64, not rounded."""
        y = self.conv(self.input, self.filter)
        if self.bias is not None:
            y = y + self.bias.view(-1, 1, 1)
        if self.scale is not None:
            y = y * self.scale.view(-1, 1, 1) + self.shift.view(-1, 1, 1)
        if self.residual is not None:
            y = y + self.residual
        return y.relu() if self.relu else y

    def tolerance(self) -> torch.Tensor:
        """How far a float result may be from expected(): a few roundings of the sums, whose terms add up to at most
        conv(|input|, |filter|), and the rounding of the output."""
        terms = self.conv(self.input.abs(), self.filter.abs())
        sum_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        sums = 2 * torch.finfo(sum_dtype).eps * math.sqrt(self.filter[0].numel()) * terms
        if self.tf32:  # truncates both operands to 10 bits behind the point, which does not average out
            sums += 2 * 2.0**-10 * terms
        return sums + torch.finfo(self.dtype).eps * self.expected().abs()

    def plan(self, device="a100", **options):
        return _C.plan_conv2d(self.problem, device, tf32=self.tf32, alignment=self.alignment, **options)

    def buffers(self) -> dict[str, torch.Tensor]:
        """The tensors as the kernels want them: in memory, in the problem's layout and dtype."""

        def laid_out(x, dtype=self.dtype):
            x = x.to(dtype)
            x = x.permute(0, 2, 3, 1) if self.layout == "nhwc" and x.ndim == 4 else x
            before = self.alignment // x.element_size() if self.alignment < 16 else 0
            return x.new_empty(before + x.numel())[before:].view(x.shape).copy_(x)

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
        return self.result(tensors)

    def result(self, tensors) -> torch.Tensor:
        """The output among what buffers() gave, N K P Q."""
        return tensors["output"].permute(0, 3, 1, 2) if self.layout == "nhwc" else tensors["output"]

    def check(self, plan=None, **options) -> torch.Tensor:
        output = self.run(plan, **options)
        expected = self.expected()
        assert torch.equal(output, expected.to(self.dtype)), self.difference(output, expected, plan)
        return output

    def difference(self, output, expected, plan) -> str:
        wrong = (output.double() != expected.to(self.dtype).double()).nonzero()
        first = tuple(wrong[0].tolist())
        return (
            f"{self.problem}, tile {plan.tile if plan else ''}: {len(wrong)} of {output.numel()} outputs are wrong, "
            f"first at {first}: {output[first].item()} instead of {expected[first].item()}"
        )


class FarEnd:
    """Images of more than 2^31 elements together, of which the end of the last one is looked at: `near` has the same
    pixels in a small image."""

    def __init__(self, *, n, h, w, **sizes):
        self.near = Case(n=1, h=min(h, 24), w=min(w, 40), **sizes)
        x = self.near.problem
        fields = {name: size for name, size in sizes.items() if name not in ("dtype", "tf32")}
        self.problem = _C.Conv2dProblem(n=n, h=h, w=w, **{**fields, "dtype": x.dtype, "layout": x.layout})
        assert n * h * w * x.c > 2**31

    def plan(self, **options):
        return _C.plan_conv2d(self.problem, "a100", tf32=self.near.tf32, **options)

    def buffers(self):
        x, near = self.problem, self.near.problem
        tensors = self.near.buffers()
        input = emulator.sparse((x.n, x.h, x.w, x.c), tensors["input"].numpy().dtype)
        output = emulator.sparse((x.n, x.p, x.q, x.k), input.dtype)
        input[-1, -near.h :, -near.w :] = tensors["input"].numpy()[0]
        output[-1, -near.p :, -near.q :] = math.nan
        return {**tensors, "input": input, "output": output}

    def inner(self, end):
        """Where the small image begins and the large one goes on, they differ."""
        x, near = self.problem, self.near.problem
        return end[near.r if x.h > near.h else 0 :, near.s if x.w > near.w else 0 :]

    def expected(self):
        return self.inner(self.near.expected()[0].permute(1, 2, 0))

    def end(self, tensors):
        """NaN where nothing was written."""
        near = self.near.problem
        return torch.from_numpy(self.inner(tensors["output"][-1, -near.p :, -near.q :]).copy())

    def result(self, tensors):
        found = self.end(tensors)
        return torch.where(found.isnan(), self.expected().to(found.dtype), found)

    def check(self, plan, **options):
        """What the last blocks of each launch write: whole tiles, but for pixels past the last, of right numbers."""
        tensors = self.buffers()
        run(plan, tensors, **options)
        found = self.end(tensors)
        written = ~found.isnan()
        tile = math.prod(map(int, plan.tile.split("x")[:2]))
        assert 2 * written.sum() >= min(tile, found.numel()), (written.sum(), plan.tile)
        assert torch.equal(found[written], self.expected().to(found.dtype)[written])


class FarCorners(Case):
    """Windows of 3 x 3 at the corners of three images, the last of which lies wholly beyond 2^31 elements. All corners
    hold the same pixels, those of a small image."""

    def __init__(self, *, c=16, groups=1, dtype=torch.float16):
        super().__init__(n=3, c=c, h=3, w=3, k=16, r=3, s=3, groups=groups, dtype=dtype)
        self.far = h, w = 5000 * 64 // c - 3, 14000 - 3  # the rows and columns of the last corners
        x = self.problem
        fields = dict(r=3, s=3, stride=self.far, groups=groups, dtype=x.dtype, layout=x.layout, pass_=x.pass_)
        self.problem = _C.Conv2dProblem(n=3, c=c, h=h + 3, w=w + 3, k=16, **fields)
        assert (self.problem.p, self.problem.q) == (2, 2) and 2 * c * h * w > 2**31

    def conv(self, input, filter):
        return F.conv2d(input, filter, groups=self.problem.groups).expand(3, 16, 2, 2)

    def buffers(self):
        tensors = super().buffers()
        corner, (h, w) = tensors["input"].numpy(), self.far
        images = emulator.sparse((3, h + 3, w + 3, self.problem.c), corner.dtype)
        for p, q in np.ndindex(2, 2):
            images[:, p * h : p * h + 3, q * w : q * w + 3] = corner
        return {**tensors, "input": images}
