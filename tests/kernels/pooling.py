"""Poolings, their tensors, and what they should give: what csrc/cpu computes, which tests/test_max_pool.py holds
against a plain reference and against torch."""

from __future__ import annotations

import numpy as np
import torch
from checking import BITS

from kernels.harness import DTYPES, run
from pyconvx import _C
from pyconvx._problem import INDEX_TYPES

LEVELS = (-np.inf, -1.0, -0.0, 0.0, 1.0, 2.0, np.inf, np.nan, -np.nan)
CHANCES = (0.25, 0.15, 0.2, 0.2, 0.1, 0.05, 0.02, 0.02, 0.01)


class Case:
    """A max pooling with an input of ties, zeros, infinities and NaNs of both signs; one channel is all -inf."""

    def __init__(self, *, dtype=torch.float16, layout="nhwc", index=torch.uint8, relu=False, seed=0, **sizes):
        self.dtype, self.index, self.nhwc, self.relu = dtype, index, layout == "nhwc", relu
        activation = _C.Activation.relu if relu else _C.Activation.none
        fields = dict(
            activation=activation, dtype=DTYPES[dtype], layout=getattr(_C.Layout, layout), index=INDEX_TYPES[index]
        )
        self.problem = x = _C.Pool2dProblem(**fields, **sizes)
        self.rng = np.random.default_rng(seed)
        self.input = torch.from_numpy(self.rng.choice(LEVELS, size=self.shape(x.h, x.w), p=CHANCES)).to(dtype)
        if x.c > 1:
            self.input.select(-1 if self.nhwc else 1, 1).fill_(-torch.inf)

    def shape(self, h, w):
        """As the tensors lie in memory."""
        x = self.problem
        return (x.n, h, w, x.c) if self.nhwc else (x.n, x.c, h, w)

    def pooled(self, dtype=None):
        """An output that nothing has been written to, or its indices."""
        dtype = dtype or self.dtype
        shape = self.shape(self.problem.p, self.problem.q)
        return torch.full(shape, 77 if dtype in (torch.uint8, torch.int32, torch.int64) else -77.5, dtype=dtype)

    def plan(self, device="a100", **options):
        return _C.plan_max_pool2d(self.problem, device, **options)

    def expected(self):
        """The output and the indices, None if there are none."""
        output, indices = self.pooled(), None if self.index is None else self.pooled(self.index)
        # Written so that -0 becomes 0, and NaN stays.
        input = torch.where(self.input <= 0, 0.0, self.input).to(self.dtype) if self.relu else self.input
        _C.cpu.max_pool2d(
            self.problem, input.data_ptr(), output.data_ptr(), 0 if indices is None else indices.data_ptr()
        )
        return output, indices

    def run(self, plan=None, **options):
        tensors = {"input": self.input, "output": self.pooled()}
        if self.index is not None:
            tensors["indices"] = self.pooled(self.index)
        self.launches = run(plan or self.plan(), tensors, **options)
        return tensors["output"], tensors.get("indices")

    def check(self, plan=None, **options):
        for actual, expected in zip(self.run(plan, **options), self.expected(), strict=True):
            assert_same(actual, expected, self.problem)

    def gradient(self, finite=True):
        """Of the output: whole numbers, of which sums are exact, or what no sum may lose."""
        shape = self.shape(self.problem.p, self.problem.q)
        values = self.rng.integers(-3, 4, shape) if finite else self.rng.choice(LEVELS, shape, p=CHANCES)
        return torch.from_numpy(values).to(self.dtype)

    def backward_plan(self, device="a100", **options):
        return _C.plan_max_pool2d_backward(self.problem, device, **options)

    def backward(self, gradient, indices, plan=None, output=None, **options):
        tensors = {"grad_output": gradient, "indices": indices, "grad_input": self.image()}
        if self.relu:
            tensors["relu_output"] = output
        self.launches = run(plan or self.backward_plan(), tensors, **options)
        return tensors["grad_input"]

    def check_backward(self, gradient=None, plan=None, **options):
        x, (output, indices) = self.problem, self.expected()
        gradient, expected = self.gradient() if gradient is None else gradient, self.image()
        masked = torch.where(output <= 0, 0, gradient) if self.relu else gradient  # a NaN output passes it on
        _C.cpu.max_pool2d_backward(x, masked.data_ptr(), indices.data_ptr(), expected.data_ptr())
        assert_same(self.backward(gradient, indices, plan, output, **options), expected, x, bits=False)

    def gather(self, indices, **options):
        tensors = {"input": self.input, "indices": indices, "output": self.pooled()}
        self.launches = run(_C.plan_max_pool2d_gather(self.problem, "a100"), tensors, **options)
        return tensors["output"]

    def check_gather(self, indices=None, **options):
        x, indices, expected = self.problem, self.expected()[1] if indices is None else indices, self.pooled()
        _C.cpu.max_pool2d_gather(x, self.input.data_ptr(), indices.data_ptr(), expected.data_ptr())
        assert_same(self.gather(indices, **options), expected, x)

    def image(self):
        """A gradient that nothing has been written to."""
        return torch.full(self.shape(self.problem.h, self.problem.w), -77.5, dtype=self.dtype)


def assert_same(actual, expected, what, bits=True):
    """Assert equality to the bit, NaN's payload included; or of the values, -0 equal to 0 and NaN to NaN."""
    if expected is None:
        return
    if bits and expected.dtype in BITS:
        actual, expected = (x.view(BITS[x.dtype]) for x in (actual, expected))
    wrong = ((actual != expected) & ((actual == actual) | (expected == expected))).nonzero()
    assert len(wrong) == 0, (
        f"{what}: {len(wrong)} of {actual.numel()} differ, first at {tuple(wrong[0].tolist())}: "
        f"{actual[tuple(wrong[0])]} instead of {expected[tuple(wrong[0])]}"
    )
