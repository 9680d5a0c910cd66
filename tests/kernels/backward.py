"""The two gradients of a convolution as cases: what convolution.py's are to forward convolution."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import torch

from kernels.convolution import Case, FarCorners
from kernels.harness import emulator, run
from pyconvx import _C


class Gradient(Case):
    """What both passes have: the gradient of the output."""

    pass_: _C.Pass
    integers_up_to = 3

    def __init__(self, *, integers=True, seed=0, **options):
        super().__init__(pass_=self.pass_, integers=integers, seed=seed, **options)
        x = self.problem
        generator = torch.Generator().manual_seed(seed + 1)
        shape = (x.n, x.k, x.p, x.q)
        if integers:
            self.grad_output = torch.randint(-2, self.integers_up_to, shape, generator=generator).double()
        else:
            self.grad_output = torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype).double()
        self.relu_output = self.outputs_of_relu(generator, shape) if x.masked else None

    def outputs_of_relu(self, generator, shape):
        """Of all that there is: numbers on both sides of both zeros, and NaNs of both signs, which let the gradient
        pass. A gradient that does not count may be anything."""
        drawn = torch.randint(-3, 5, shape, generator=generator).double()
        values = {-3: -0.0, -2: 0.0, 3: math.nan, 4: -math.nan}
        output = drawn.apply_(lambda value: values.get(int(value), value))
        nothing = (output <= 0) & (torch.rand(shape, generator=generator) < 0.1)
        self.grad_output[nothing] = math.nan
        return output

    @property
    def counting(self):
        """The gradient of the output where it counts, zeros elsewhere."""
        if self.relu_output is None:
            return self.grad_output
        return torch.where(self.relu_output <= 0, 0.0, self.grad_output)

    def gradient_buffers(self, name="grad_output"):
        masked = {} if self.relu_output is None else {"relu_output": self.laid_out(self.relu_output)}
        return {name: self.laid_out(self.grad_output), **masked}

    def laid_out(self, x):
        x = x.to(self.dtype)
        x = x.permute(0, 2, 3, 1) if self.layout == "nhwc" and x.ndim == 4 else x
        before = self.alignment // x.element_size() if self.alignment < 16 else 0
        return x.new_empty(before + x.numel())[before:].view(x.shape).copy_(x)

    def results(self, tensors, *names):
        """Those tensors with channels in second place."""
        back = self.layout == "nhwc"
        return [tensors[n].permute(0, 3, 1, 2) if back and tensors[n].ndim == 4 else tensors[n] for n in names]

    def rounding(self, terms, expected, length):
        """How far a float result may be from the expected one: see Case.tolerance."""
        sum_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        sums = 2 * torch.finfo(sum_dtype).eps * math.sqrt(max(length, 1)) * terms
        if self.tf32:
            sums = sums + 2 * 2.0**-10 * terms
        return sums + torch.finfo(self.dtype).eps * expected.abs()


class Dgrad(Gradient):
    """conv2d_dgrad; with ``bias``, conv_transpose2d, which has one value of it per channel."""

    pass_ = _C.Pass.dgrad

    def __init__(self, **options):
        super().__init__(**options)
        x = self.problem
        if x.bias:
            self.bias = torch.arange(x.c).double() % 5 - 2
        self.names = ("input", "filter", "output") if x.bias else ("grad_output", "filter", "grad_input")

    def gradient(self, grad_output, filter):
        input = torch.zeros_like(self.input).requires_grad_()
        (gradient,) = torch.autograd.grad(self.conv(input, filter), input, grad_output)
        return gradient

    def expected(self):
        gradient = self.gradient(self.counting, self.filter)
        return gradient if self.bias is None else gradient + self.bias.view(-1, 1, 1)

    def tolerance(self):
        terms = self.gradient(self.counting.abs(), self.filter.abs())
        return self.rounding(terms, self.expected(), self.filter.numel() / self.problem.c)

    def plan(self, device="a100", **options):
        planner = _C.plan_conv_transpose2d if self.problem.bias else _C.plan_conv2d_dgrad
        return planner(self.problem, device, **{"tf32": self.tf32, "alignment": self.alignment, **options})

    def buffers(self):
        gradient, filter, result = self.names
        tensors = {**self.gradient_buffers(gradient), filter: self.laid_out(self.filter)}
        if self.bias is not None:
            tensors["bias"] = self.laid_out(self.bias)
        tensors[result] = self.laid_out(torch.full_like(self.input, math.nan))
        return tensors

    def run(self, plan=None, **options):
        tensors = self.buffers()
        run(plan or self.plan(), tensors, **options)
        return self.result(tensors)

    def result(self, tensors):
        return self.results(tensors, self.names[-1])[0]


class Wgrad(Gradient):
    """conv2d_wgrad: the gradients of filters and, with ``bias``, of the bias."""

    pass_ = _C.Pass.wgrad
    integers_up_to = 2

    def gradient(self, grad_output, input):
        filter = torch.zeros_like(self.filter).requires_grad_()
        (gradient,) = torch.autograd.grad(self.conv(input, filter), filter, grad_output)
        return gradient

    def expected(self):
        """Of the filters and, where the problem has it, of the bias."""
        gradients = [self.gradient(self.counting, self.input)]
        return gradients + ([self.counting.sum((0, 2, 3))] if self.problem.bias else [])

    def tolerance(self):
        x = self.problem
        magnitudes = self.counting.abs()
        terms = [self.gradient(magnitudes, self.input.abs())]
        terms += [magnitudes.sum((0, 2, 3))] if x.bias else []
        return [self.rounding(t, e, x.n * x.p * x.q) for t, e in zip(terms, self.expected(), strict=True)]

    def plan(self, device="a100", **options):
        return _C.plan_conv2d_wgrad(self.problem, device, **{"tf32": self.tf32, "alignment": self.alignment, **options})

    def buffers(self):
        tensors = {**self.gradient_buffers(), "input": self.laid_out(self.input)}
        tensors["grad_weight"] = self.laid_out(torch.full_like(self.filter, math.nan))
        if self.problem.bias:
            tensors["grad_bias"] = torch.full((self.problem.k,), math.nan, dtype=self.dtype)
        return tensors

    def run(self, plan=None, **options):
        tensors = self.buffers()
        run(plan or self.plan(), tensors, **options)
        return self.result(tensors)

    def result(self, tensors):
        return self.results(tensors, "grad_weight", *(["grad_bias"] if self.problem.bias else []))

    def check(self, plan=None, **options):
        results = self.run(plan, **options)
        for result, expected in zip(results, self.expected(), strict=True):
            assert torch.equal(result, expected.to(self.dtype)), self.difference(result, expected, plan)
        return results


class FarCornersWgrad(FarCorners, Wgrad):
    """The gradient of a filter that meets the corners of huge images: of few pixels, which are far apart."""

    def __init__(self, **options):
        super().__init__(**options)
        generator = torch.Generator().manual_seed(1)
        x = self.problem
        self.grad_output = torch.randint(-2, 2, (x.n, x.k, x.p, x.q), generator=generator).double()


class FarDgrad:
    """Images whose gradients have more than 2^31 elements together, of which the end of the last one is looked at:
    `near` has the same gradients in a small image, and all others are zeros."""

    def __init__(self, *, n, h, w, **sizes):
        steps = sizes.get("stride", (1, 1))
        self.near = Dgrad(n=1, h=min(h, 24 - -h % steps[0]), w=min(w, 40 - -w % steps[1]), **sizes)
        x = self.near.problem
        fields = {name: size for name, size in sizes.items() if name not in ("dtype", "tf32")}
        fields |= dict(dtype=x.dtype, layout=x.layout, pass_=x.pass_)
        self.problem = x = _C.Conv2dProblem(n=n, h=h, w=w, **fields)
        assert x.n * x.p * x.q * x.k > 2**31

    def plan(self, **options):
        return _C.plan_conv2d_dgrad(self.problem, "a100", tf32=self.near.tf32, **options)

    def last(self, tensor, like):
        return tensor[-1, -like.shape[1] :, -like.shape[2] :]

    def check(self, plan, **options):
        """What the last blocks of each launch write."""
        x, tensors = self.problem, self.near.buffers()
        for name, (h, w, c) in dict.fromkeys(("grad_output", "relu_output"), (x.p, x.q, x.k)).items():
            if name in tensors:
                near = tensors[name].numpy()
                tensors[name] = emulator.sparse((x.n, h, w, c), near.dtype)
                self.last(tensors[name], near)[:] = near[0]
        near = tensors["grad_input"].numpy()
        tensors["grad_input"] = emulator.sparse((x.n, x.h, x.w, x.c), near.dtype)
        self.last(tensors["grad_input"], near)[:] = math.nan
        run(plan, tensors, **options)
        found = torch.from_numpy(self.last(tensors["grad_input"], near).copy())
        expected = self.near.expected()[0].permute(1, 2, 0).to(found.dtype)
        written = ~found.isnan()
        ends = found[-self.problem.stride[0] :, -self.problem.stride[1] :]
        assert not ends.isnan().any() and (ends != 0).any()
        assert torch.equal(found[written], expected[written])


class FarWgrad:
    """A tensor of more than 2^31 elements, of whose channels ("c") or filters ("k") the last are looked at: `near` has
    them alone, and the others are zeros."""

    def __init__(self, letter, size, **sizes):
        self.letter, self.near = letter, Wgrad(**sizes)
        x = self.near.problem
        sizes = {name: getattr(x, name) for name in ("n", "c", "h", "w", "k", "r", "s", "padding")}
        fields = dict(dtype=x.dtype, layout=x.layout, pass_=x.pass_, masked=x.masked)
        self.problem = _C.Conv2dProblem(**{**sizes, letter: size}, **fields)
        x = self.problem
        assert max(x.n * x.h * x.w * x.c, x.n * x.p * x.q * x.k) > 2**31

    def plan(self, **options):
        return _C.plan_conv2d_wgrad(self.problem, "a100", tf32=self.near.tf32, **options)

    def last(self, tensor):
        """Of a filter's gradient."""
        x = self.near.problem
        return tensor[..., -x.c :] if self.letter == "c" else tensor[-x.k :]

    def buffers(self):
        x, tensors = self.problem, self.near.buffers()
        for name in ["input"] if self.letter == "c" else ["grad_output", "relu_output"]:
            if name in tensors:
                near = tensors[name].numpy()
                tensors[name] = emulator.sparse((*near.shape[:3], getattr(x, self.letter)), near.dtype)
                tensors[name][..., -near.shape[3] :] = near
        tensors["grad_weight"] = emulator.sparse((x.k, x.r, x.s, x.c), tensors["grad_weight"].numpy().dtype)
        self.last(tensors["grad_weight"])[:] = math.nan
        return tensors

    def check(self, plan, **options):
        """What the last blocks of each launch write; at least the end of the last filter. The addition's read more
        sums than the product's have written: of channels that are zeros."""
        sums = {name: emulator.sparse((size // 4,), np.float32) for name, size in plan.workspaces.items()}
        tensors = {**self.buffers(), **sums}
        run(SimpleNamespace(launches=plan.launches, workspaces={}), tensors, **options)
        found = torch.from_numpy(self.last(tensors["grad_weight"]).copy())
        (expected,) = self.near.expected()
        expected = expected.permute(0, 2, 3, 1).to(found.dtype)
        written = ~found.isnan()
        assert written[-1, -1, -1].all() and (found[written] != 0).any()
        assert torch.equal(found[written], expected[written])
