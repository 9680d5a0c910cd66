"""Results do not depend on the tile, the batch, the device, the vector length or the run, bit for bit."""

from __future__ import annotations

import os

import pytest
import torch

from kernels.backward import Dgrad
from kernels.convolution import Case
from pyconvx import _C

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

SAME = dict(r=3, s=3, padding=(1, 1, 1, 1))

# Floats, of which sums in another order would differ; channels that no tile's depth divides.
PROBLEMS = {
    "resident patch": dict(c=104, h=6, w=37, k=72, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "resident patch, tf32": dict(c=44, h=19, w=17, k=40, r=3, s=1, padding=(1, 0, 0, 0), dtype=F32, tf32=True),
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


# Small images: the family that runs them, and their convolution. Of dgrad, the channels of its convolution are k.
LAST = 33
IMAGES = {
    "resident patch": (Case, "fprop_resident_patch", dict(c=32, h=3, w=4, k=8, **SAME, dtype=F16)),
    "resident patch, tf32": (Case, "fprop_resident_patch", dict(c=16, h=3, w=4, k=8, **SAME, dtype=F32, tf32=True)),
    "resident patch, f32": (Case, "fprop_resident_patch", dict(c=16, h=3, w=4, k=8, **SAME, dtype=F32)),
    "small map": (Case, "fprop_small_map", dict(c=104, h=3, w=2, k=8, **SAME, dtype=BF16)),
    "tensor core": (Case, "fprop_tensor_core", dict(c=8, h=5, w=4, k=8, **SAME, stride=(2, 1), dtype=F16)),
    "1x1": (Case, "fprop_tensor_core", dict(c=24, h=3, w=3, k=8, r=1, s=1, dtype=BF16)),
    "tensor core, tf32": (Case, "fprop_tensor_core", dict(c=5, h=3, w=4, k=8, **SAME, dtype=F32, tf32=True)),
    "ffma": (Case, "fprop_ffma", dict(c=5, h=3, w=4, k=8, **SAME, dtype=F32)),
    "few channels": (Case, "fprop_few_channels", dict(c=3, h=5, w=6, k=8, **SAME, stride=(2, 2), dtype=F16, bias=True)),
    "few channels, any window": (Case, "fprop_few_channels", dict(c=2, h=4, w=5, k=8, r=2, s=3, dtype=BF16)),
    "depthwise": (Case, "fprop_depthwise", dict(c=8, h=4, w=5, k=8, **SAME, groups=8, dtype=F16, bias=True)),
    "depthwise, any window": (Case, "fprop_depthwise", dict(c=3, h=4, w=5, k=6, r=2, s=3, groups=3, dtype=F32)),
    "plain": (Case, "fprop_plain", dict(c=3, h=4, w=5, k=4, r=2, s=3, dtype=F64)),
    "dgrad, resident patch": (Dgrad, "dgrad by fprop_resident_patch", dict(c=8, h=3, w=4, k=32, **SAME, dtype=F16)),
    "dgrad, small map": (Dgrad, "dgrad by fprop_small_map", dict(c=8, h=3, w=2, k=104, **SAME, dtype=F16)),
    "dgrad, strided": (
        Dgrad, "dgrad by fprop_tensor_core", dict(c=8, h=5, w=4, k=24, **SAME, stride=(2, 2), dtype=BF16)
    ),
    "dgrad, f32": (Dgrad, "dgrad by fprop_ffma", dict(c=8, h=3, w=4, k=5, **SAME, dtype=F32)),
    "dgrad, few channels": (Dgrad, "dgrad by fprop_few_channels", dict(c=8, h=4, w=5, k=3, r=2, s=3, dtype=F16)),
    "dgrad, depthwise": (Dgrad, "dgrad by fprop_depthwise", dict(c=8, h=5, w=5, k=8, **SAME, groups=8, dtype=F16)),
    "dgrad, plain": (Dgrad, "dgrad by fprop_plain", dict(c=4, h=4, w=5, k=3, r=2, s=3, stride=(1, 2), dtype=F64)),
    "dgrad, strides without number": (
        Dgrad, "dgrad_plain", dict(c=4, h=18, w=17, k=3, r=2, s=3, stride=(17, 16), dtype=F16)
    ),
    "dgrad, masked": (
        Dgrad, "dgrad by fprop_resident_patch", dict(c=8, h=3, w=4, k=32, **SAME, dtype=F16, masked=True)
    ),
}  # fmt: skip
EVERY_BATCH = ("resident patch", "small map", "tensor core", "dgrad, resident patch", "dgrad, strided")
OF_IMAGES = ("input", "grad_output", "relu_output")


def images(case_of, whole, problem, first, count):
    part = case_of(n=count, **problem, integers=False)
    for name, tensor in vars(whole).items():
        if isinstance(tensor, torch.Tensor):
            setattr(part, name, tensor[first : first + count] if name in OF_IMAGES else tensor)
    return part


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_alone_and_in_every_batch(name):
    """Of 1 to 33 images, in which its place differs."""
    case_of, family, problem = IMAGES[name]
    whole = case_of(n=LAST, **problem, integers=False)
    assert whole.plan().family == family
    alone = [images(case_of, whole, problem, i, 1).run() for i in range(LAST)]
    every = name in EVERY_BATCH or os.environ.get("PYCONVX_SLOW")
    for n in range(2, LAST + 1) if every else (2, 5, 16, LAST):
        together = images(case_of, whole, problem, LAST - n, n).run()
        assert torch.equal(together, torch.cat(alone[LAST - n :])), f"{n} images"


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
