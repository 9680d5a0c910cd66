"""Kernels of pooling, unpooling and the residual add that nvcc compiles when pyconvx is built: plans keep to them, they
give the same bits as those that are compiled when needed, and what has none is refused in a sentence."""

from __future__ import annotations

import itertools

import pytest
import torch

from kernels.harness import DTYPES, run
from kernels.unpooling import Unpooling, same_bits
from pyconvx import _C
from pyconvx._problem import ACTIVATIONS, ElementwiseProblem

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
U8, I32, I64 = torch.uint8, torch.int32, torch.int64
COMPILED = {kernel.name: kernel.header for kernel in _C.ahead_of_time_kernels()}


def compiled(*headers):
    return {name for name, header in COMPILED.items() if header in headers}


def test_there_are_few():
    """nvcc takes seconds for each."""
    assert sum(header.startswith(("pool/", "residual/")) for header in COMPILED.values()) <= 98


WINDOWS = {  # size, window, stride, padding
    "2x2": ((2, 32, 7, 9), (2, 2), (2, 2)),
    "2x2, 5 channels": ((1, 5, 6, 5), (2, 2), (2, 2)),
    "3x3 stride 2": ((2, 16, 9, 11), (3, 3), (2, 2), (1, 1, 1, 1)),
    "many windows over one output": ((1, 4, 9, 12), (7, 7), (2, 2), (3, 3, 3, 3)),
    "dilated, apart": ((1, 16, 12, 11), (2, 2), (4, 3), (0, 0, 1, 1), (3, 2)),
    "the window is the plane": ((1, 3, 5, 6), (5, 6), (1, 1)),
}


def test_unpooling():
    """In every layout, dtype and window that has kernels: the values, the gradients and the report of a bad index."""
    seen = set()
    for (name, window), layout in itertools.product(WINDOWS.items(), ("nhwc", "nchw")):
        for dtype, index in ((F16, U8), (F32, U8), (BF16, I64), (F32, I64)):
            case = Unpooling(*window, dtype=dtype, index=index, layout=layout)
            for backward in (False, True):
                plan = case.plan(backward, ahead_of_time=True)
                seen |= {launch.kernel for launch in plan.launches}
                result, bad = case.run(backward, plan)
                assert bad == -1
                assert same_bits(result, case.expected_backward() if backward else case.expected()), (name, layout)
    assert seen == compiled("pool/max_unpool.cuh", "pool/max_unpool_backward.cuh", "pool/unpool_last.cuh")


@pytest.mark.parametrize("index", [U8, I64], ids=str)
def test_bad_indices_are_reported(index):
    case = Unpooling((1, 16, 6, 6), (3, 3), (3, 3), (1, 0, 1, 0), dtype=F16, index=index)
    case.indices[0, 5, 1, 0] = 200
    for backward in (False, True):
        assert case.run(backward, case.plan(backward, ahead_of_time=True))[1] == 2 * 16 + 5


def test_nearest_unpooling():
    seen = set()
    layouts = ("nhwc", "nchw")
    for dtype, c, layout, alignment in itertools.product((F16, BF16, F32), (16, 5), layouts, (16, 4)):
        problem = _C.NearestUnpool2dProblem(
            n=2, c=c, p=3, q=4, scale=(2, 3), dtype=DTYPES[dtype], layout=getattr(_C.Layout, layout)
        )
        small, large = ((2, 3, 4, c), (2, 6, 12, c)) if layout == "nhwc" else ((2, c, 3, 4), (2, c, 6, 12))
        x, grad = torch.randint(-9, 9, small).to(dtype), torch.randint(-9, 9, large).to(dtype)
        buffers = {"input": x, "output": torch.zeros(large, dtype=dtype)}
        back = {"grad_output": grad, "grad_input": torch.zeros(small, dtype=dtype)}
        for plan, tensors in ((_C.plan_nearest_unpool2d, buffers), (_C.plan_nearest_unpool2d_backward, back)):
            launches = plan(problem, "t4", alignment=alignment, ahead_of_time=True)
            seen |= {launch.kernel for launch in launches.launches}
            run(launches, tensors)
        down, across = (1, 2) if layout == "nhwc" else (2, 3)
        assert torch.equal(buffers["output"], x.repeat_interleave(2, down).repeat_interleave(3, across))
        cells = grad.float().unflatten(across, (4, 3)).unflatten(down, (3, 2)).sum((down + 1, across + 2))
        assert torch.equal(back["grad_input"], cells.to(dtype))
    assert seen == compiled("pool/nearest_unpool.cuh")


PLANS = {
    "residual_add": ("x", "residual", "output"),
    "residual_add_mask": ("x", "residual", "output", "mask"),
    "relu_backward": ("grad_output", "output", "grad_input"),
    "relu_backward_mask": ("grad_output", "mask", "grad_input"),
}


def elementwise(operation, dtype, activation="relu", count=1003, **options):
    problem = ElementwiseProblem(operation, (count,), DTYPES[dtype], ACTIVATIONS[activation])
    return getattr(_C, f"plan_{operation}")(problem, "t4", **options)


def test_residual_add():
    seen = set()
    for dtype, (operation, names), activation in itertools.product((F16, BF16, F32), PLANS.items(), ("none", "relu")):
        generator = torch.Generator().manual_seed(0)
        tensors = {name: torch.randn(1003, generator=generator).to(dtype) for name in names}
        if "mask" in names:
            tensors["mask"] = torch.randint(0, 256, (126,), generator=generator, dtype=U8)
        results = []
        for ahead in (False, True):
            copies = {name: tensor.clone() for name, tensor in tensors.items()}
            plan = elementwise(operation, dtype, activation, ahead_of_time=ahead)
            run(plan, copies)
            results.append(copies)
        seen |= {launch.kernel for launch in plan.launches}
        assert all(torch.equal(results[0][name], results[1][name]) for name in names)
    assert seen == compiled("residual/residual_add.cuh")


def test_what_has_no_kernel_is_refused_in_a_sentence():
    unpooling = dict(size=(1, 4, 6, 6), window=(2, 2), stride=(2, 2))
    far = _C.Unpool2dProblem(
        n=1,
        c=1,
        p=2**17,
        q=2**16,
        h=2**18,
        w=2**17,
        r=2,
        s=2,
        stride=(2, 2),
        dtype=DTYPES[F16],
        index=_C.IndexType.int64,
    )
    nearest = _C.NearestUnpool2dProblem(n=1, c=4, p=2, q=2, scale=(2, 2), dtype=DTYPES[F64], layout=_C.Layout.nhwc)
    for refused, what in (
        (lambda: Unpooling(**unpooling, dtype=F64).plan(ahead_of_time=True), "float64"),
        (lambda: Unpooling(**unpooling, dtype=F16, index=I32).plan(True, ahead_of_time=True), "indices of int32"),
        (lambda: _C.plan_max_unpool2d(far, "t4", ahead_of_time=True), "planes of 2^32 pooled values"),
        (lambda: _C.plan_nearest_unpool2d(nearest, "t4", ahead_of_time=True), "float64"),
        (lambda: elementwise("residual_add", F64, ahead_of_time=True), "float64"),
        (lambda: elementwise("relu_backward", F16, ahead_of_time=True, alignment=8), "addresses that are no multiples"),
    ):
        with pytest.raises(
            ValueError, match=r"nvcc compiles no kernel of it ahead of time for .*; use backend cupy"
        ) as why:
            refused()
        assert what in str(why.value)
