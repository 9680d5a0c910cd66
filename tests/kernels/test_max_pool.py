"""Max pooling's kernels, whose results must be csrc/cpu's: values and indices of every form, to the bit; gradients,
which are sums in one fixed order; and what lies where the winners were."""

from __future__ import annotations

import itertools

import pytest
import torch

from kernels.harness import DTYPES as DTYPES_OF
from kernels.pooling import Case
from pyconvx import _C
from pyconvx._problem import INDEX_TYPES

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
DTYPES = (F16, BF16, F32, F64)
INDICES = (None, torch.uint8, torch.int32, torch.int64)

PAD = (1, 1, 1, 1)
# n, h, w and the window. Sizes leave partial tiles in both directions.
CONSTANT = {
    "2x2": dict(n=2, h=7, w=11, r=2, s=2, stride=(2, 2)),
    "2x2, ceil": dict(n=1, h=7, w=9, r=2, s=2, stride=(2, 2), ceil_mode=True),
    "3x3 stride 2": dict(n=2, h=13, w=21, r=3, s=3, stride=(2, 2), padding=PAD),
    "3x3 stride 2, ceil": dict(n=1, h=10, w=8, r=3, s=3, stride=(2, 2), padding=(0, 1, 1, 0), ceil_mode=True),
    "3x3": dict(n=1, h=9, w=7, r=3, s=3, padding=PAD),
    "one pixel": dict(n=3, h=1, w=1, r=3, s=3, padding=PAD),
}
ANY = {
    "1x1": dict(n=2, h=4, w=5, r=1, s=1),
    "5x1": dict(n=1, h=9, w=3, r=5, s=1, stride=(2, 1), padding=(2, 2, 0, 0)),
    "dilated": dict(n=1, h=9, w=10, r=3, s=2, stride=(1, 2), padding=PAD, dilation=(2, 3)),
    "dilated, ceil": dict(n=1, h=8, w=9, r=2, s=3, stride=(3, 2), padding=PAD, dilation=(3, 2), ceil_mode=True),
    "stride beyond the window": dict(n=1, h=11, w=13, r=3, s=3, stride=(4, 5), padding=PAD),
    "unequal padding": dict(n=2, h=6, w=7, r=3, s=4, stride=(2, 3), padding=(1, 0, 0, 2), ceil_mode=True),
    "no tap inside": dict(n=1, h=2, w=5, r=2, s=2, padding=PAD, dilation=(3, 3)),
    "no tap inside, right": dict(n=1, h=4, w=1, r=2, s=2, padding=(0, 0, 1, 1), dilation=(1, 2)),
    "the window is the image": dict(n=2, h=5, w=6, r=5, s=6),
    "the window exceeds the image": dict(n=1, h=2, w=3, r=4, s=5, padding=PAD),
    "255 taps": dict(n=1, h=17, w=18, r=15, s=17),
}


WINDOWS = {**CONSTANT, **ANY}


def indices_of(problem):
    return INDICES if problem["r"] * problem["s"] <= 255 else (None, torch.int32, torch.int64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CONSTANT)
def test_constant_windows(name, dtype):
    """Channels of 16-byte vectors: those of lanes that exchange indices, and those of a few."""
    for i, index in enumerate(INDICES):
        for c in (64, 16 * (3 + i % 2) // dtype.itemsize):
            case = Case(c=c, dtype=dtype, index=index, **CONSTANT[name])
            assert case.plan().family == "max_pool"
            case.check(case.plan(tile=case.plan().candidates[i % len(case.plan().candidates)].tile))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ANY)
def test_any_window(name, dtype):
    for i, index in enumerate(indices_of(ANY[name])):
        case = Case(c=(64, 24, 5, 10)[(i + DTYPES.index(dtype)) % 4], dtype=dtype, index=index, **ANY[name])
        assert case.plan().family == "max_pool_any"
        case.check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["2x2", "3x3 stride 2", "dilated", "no tap inside"])
def test_planes(name, dtype):
    for index in INDICES:
        Case(c=5, dtype=dtype, index=index, layout="nchw", **WINDOWS[name]).check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_tile_and_vector(dtype):
    """Channels that allow vectors of 16, 8, 4 and 2 bytes."""
    for i, (c, name) in enumerate(itertools.product((32, 12, 6, 5), ("2x2", "3x3 stride 2", "3x3"))):
        case = Case(c=c, dtype=dtype, index=INDICES[i % 4], **CONSTANT[name])
        for candidate in case.plan().candidates:
            case.check(case.plan(tile=candidate.tile))
    for alignment in (16, 8, 4, 2):
        if alignment >= dtype.itemsize:
            plan = case.plan(alignment=alignment)
            assert (
                f", {max(min(alignment, 16), dtype.itemsize)}, "
                in Case(c=32, dtype=dtype, **CONSTANT["2x2"]).plan(alignment=alignment).launches[0].kernel
            )
            case.check(plan)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_gradients(name, dtype):
    """Sums of floats, which only one order of summation gives."""
    for i, index in enumerate(indices_of(WINDOWS[name])[1:]):
        c = (64, 16 * 3 // dtype.itemsize, 5)[(i + DTYPES.index(dtype)) % 3]
        case = Case(c=c, dtype=dtype, index=index, **WINDOWS[name])
        plan = _C.plan_max_pool2d_backward(case.problem, "a100")
        assert plan.family == ("max_pool_backward" if name in CONSTANT else "max_pool_backward_any")
        case.check_backward(torch.randn(case.pooled().shape, generator=torch.Generator().manual_seed(1)).to(dtype))
        if name in CONSTANT:
            for candidate in plan.candidates[1:]:
                plan = _C.plan_max_pool2d_backward(case.problem, "a100", tile=candidate.tile)
                case.check_backward(case.gradient(finite=False), plan)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["2x2", "3x3 stride 2", "dilated", "no tap inside"])
def test_gradients_of_planes(name, dtype):
    for index in INDICES[1:]:
        Case(c=5, dtype=dtype, index=index, layout="nchw", **WINDOWS[name]).check_backward()


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("name", ["3x3 stride 2", "dilated", "no tap inside"])
def test_gather(name, layout):
    for dtype, index, c in itertools.product(DTYPES, INDICES[1:], (16, 5)):
        case = Case(c=c, dtype=dtype, index=index, layout=layout, **WINDOWS[name])
        case.check_gather()
        # Indices that lead out of the plane read nothing.
        case.check_gather(torch.from_numpy(case.rng.integers(-5, 300, case.pooled().shape)).to(index))


@pytest.mark.parametrize("order", ["descending", "random"])
def test_order_of_threads_changes_nothing(order):
    for name, index in itertools.product(("2x2", "3x3 stride 2", "dilated"), (torch.uint8, torch.int64)):
        case = Case(c=32, dtype=BF16, index=index, **WINDOWS[name])
        case.check(order=order, seed=3)
        case.check_backward(order=order, seed=4)
        case.check_gather(order=order, seed=5)


def test_plans_ahead_of_time_keep_to_what_is_compiled():
    compiled = {kernel.name for kernel in _C.ahead_of_time_kernels() if kernel.header.startswith("pool/max_pool")}
    seen = set()
    for dtype, index, c, layout in itertools.product(DTYPES, INDICES, (64, 5), ("nhwc", "nchw")):
        for window in (*WINDOWS.values(), dict(n=1, h=2**17, w=2**15, r=3, s=3)):
            if index not in indices_of(window):
                continue
            fields = dict(dtype=DTYPES_OF[dtype], index=INDEX_TYPES[index], layout=getattr(_C.Layout, layout))
            problem = _C.Pool2dProblem(**{**window, **fields, "c": c})
            for plan in (_C.plan_max_pool2d, _C.plan_max_pool2d_backward, _C.plan_max_pool2d_gather):
                if index is not None or plan is _C.plan_max_pool2d:
                    launches = plan(problem, "t4", ahead_of_time=True).launches
                    seen |= {launch.kernel for launch in launches}
    assert seen == compiled
