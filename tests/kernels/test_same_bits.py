"""Results do not depend on the tile, the batch, the device, the vector length or the run, bit for bit."""

from __future__ import annotations

import pytest
import torch

from kernels.convolution import Case
from pyconvx import _C

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

# Floats, of which sums in another order would differ; channels that no tile's depth divides.
PROBLEMS = {
    "resident patch": dict(c=104, h=6, w=37, k=72, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "resident patch, tf32": dict(c=44, h=19, w=17, k=40, r=5, s=1, padding=(1, 2, 0, 0), dtype=F32, tf32=True),
    "resident patch, f32": dict(c=47, h=6, w=17, k=72, r=3, s=2, padding=(1, 1, 1, 0), dtype=F32),
    "small map": dict(c=264, h=7, w=6, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "tensor core": dict(c=40, h=6, w=7, k=72, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "tensor core, any window": dict(c=24, h=6, w=7, k=40, r=2, s=4, padding=(1, 1, 1, 1), dtype=BF16),
    "1x1": dict(c=200, h=6, w=7, k=72, r=1, s=1, dtype=BF16),
    "tensor core, tf32": dict(c=20, h=6, w=7, k=72, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32, tf32=True),
    "ffma": dict(c=52, h=6, w=7, k=72, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32),
    "few channels": dict(c=3, h=21, w=20, k=72, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2), dtype=F16, bias=True),
    "few channels, any window": dict(c=2, h=21, w=20, k=72, r=5, s=4, padding=(1, 1, 1, 1), dtype=BF16, bias=True),
    "few channels, tf32": dict(c=4, h=9, w=9, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32, tf32=True, bias=True),
    "depthwise": dict(c=40, h=9, w=9, k=40, r=5, s=5, padding=(2, 2, 2, 2), groups=40, dtype=F16, bias=True),
    "plain": dict(c=24, h=6, w=7, k=10, r=3, s=3, padding=(1, 1, 1, 1), dtype=F64),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_tiles(problem):
    case = Case(n=2, **problem, integers=False)
    expected = case.run()
    for candidate in case.plan().candidates:
        assert torch.equal(case.run(case.plan(tile=candidate.tile)), expected), candidate.tile


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_batches(problem):
    case = Case(n=5, **problem, integers=False)
    together = case.run()
    for first, images in [(0, 1), (1, 3), (4, 1)]:
        part = Case(n=images, **problem, integers=False)
        part.input, part.filter, part.bias = case.input[first : first + images], case.filter, case.bias
        assert torch.equal(part.run(), together[first : first + images])


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_devices(problem):
    case = Case(n=2, **problem, integers=False)
    expected = case.run()
    for device in _C.devices():
        if device.capability >= 80:
            plan = case.plan(device.name)
            assert plan.family == case.plan().family
            assert torch.equal(case.run(plan), expected), device.name


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_vector_lengths(problem):
    case = Case(n=1, **problem, integers=False)
    expected = case.run()
    for alignment in 8, 4, 2:
        case.alignment = max(alignment, case.dtype.itemsize)
        assert torch.equal(case.run(), expected), alignment


@pytest.mark.parametrize("dtype", [F16, F32, F64])
def test_layouts(dtype):
    problem = dict(n=2, c=24, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=dtype, integers=False)
    assert torch.equal(Case(**problem, layout="nchw").run(), Case(**problem, layout="nhwc").run())
