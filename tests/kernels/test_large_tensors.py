"""Tensors of more than 2^31 elements, of which memory holds the few pages that are touched."""

from __future__ import annotations

import pytest
import torch

from kernels.backward import FarCornersWgrad, FarDgrad, FarWgrad
from kernels.convolution import FarCorners, FarEnd


@pytest.mark.parametrize(
    "c, groups, dtype, family",
    [
        (16, 1, torch.float16, "fprop_tensor_core"),
        (16, 1, torch.float32, "fprop_ffma"),
        (16, 16, torch.float16, "fprop_depthwise"),
        (16, 1, torch.float64, "fprop_plain"),
    ],
)
def test_input_beyond_31_bits(c, groups, dtype, family):
    case = FarCorners(c=c, groups=groups, dtype=dtype)
    plan = case.plan()
    assert plan.family == family
    case.check(plan)


SAME = dict(r=3, s=3, padding=(1, 1, 1, 1))
PATCHES = {
    "one image": (dict(n=1, c=32, h=8192, w=8200, k=32, **SAME), "64x32x32"),
    "images": (dict(n=600, c=32, h=355, w=339, k=32, **SAME), "64x32x32"),
    "f32": (dict(n=3, c=16, h=8192, w=8192, k=64, **SAME, dtype=torch.float32), "64x64x16"),
    "small maps": (dict(n=2**31 // (49 * 64) + 2, c=64, h=7, w=7, k=32, **SAME), "64x32x64"),
    # The sums of splits that the last blocks add up are those that others of the last have written.
    "small maps, split": (dict(n=2**31 // (49 * 256) + 2, c=256, h=7, w=7, k=128, **SAME), "64x128x64"),
}


@pytest.mark.parametrize("problem, tile", PATCHES.values(), ids=PATCHES)
def test_patches_beyond_31_bits(problem, tile):
    case = FarEnd(**problem)
    plan = case.plan(tile=tile)
    assert plan.family == ("fprop_small_map" if problem["h"] == 7 else "fprop_resident_patch")
    case.check(plan, last_blocks=4)


DGRAD = {
    "one image": dict(n=1, c=16, h=8200, w=8200, k=32, **SAME),
    "images, masked": dict(n=600, c=16, h=355, w=339, k=32, **SAME, masked=True),
    "strided": dict(n=1, c=16, h=16400, w=16400, k=32, **SAME, stride=(2, 2)),
    "gather, masked": dict(n=1, c=16, h=8200, w=8200, k=32, r=1, s=1, masked=True),
    "rows left over": dict(n=2, c=16, h=16400, w=8200, k=32, r=1, s=1, stride=(2, 1)),
    "f32": dict(n=1, c=16, h=8200, w=8200, k=36, r=1, s=2, dtype=torch.float32),
    "depthwise, masked": dict(n=3, c=32, h=8200, w=8200, k=32, r=3, s=5, padding=(1, 1, 2, 2), groups=32, masked=True),
    "plain": dict(n=2, c=4, h=16400, w=16400, k=6, r=2, s=3, dtype=torch.float64),
}


@pytest.mark.parametrize("problem", DGRAD.values(), ids=DGRAD)
def test_dgrad_beyond_31_bits(problem):
    case = FarDgrad(**problem)
    plan = case.plan()
    case.check(plan, last_blocks=plan.launches[0].grid[0])  # all that rearrange filters


@pytest.mark.parametrize(
    "groups, dtype, family",
    [
        (1, torch.float16, "wgrad_tensor_core"),
        (1, torch.float32, "wgrad_ffma"),
        (16, torch.float16, "wgrad_depthwise"),
        (1, torch.float64, "wgrad_plain"),
    ],
)
def test_wgrad_of_an_input_beyond_31_bits(groups, dtype, family):
    case = FarCornersWgrad(c=16, groups=groups, dtype=dtype)
    plan = case.plan()
    assert plan.family == family
    case.check(plan)


WGRAD = {
    "patch, input": ("c", 2**22, dict(n=1, c=256, h=23, w=24, k=8, **SAME)),
    "patch, gradients": ("k", 2**20, dict(n=3, c=16, h=28, w=28, k=256, **SAME, masked=True)),
    "gather, input": ("c", 2**22, dict(n=1, c=1024, h=23, w=24, k=8, r=1, s=3)),
    "gather, gradients": ("k", 2**20, dict(n=3, c=16, h=28, w=31, k=256, r=1, s=3, masked=True)),
    "ffma, 1x1, gradients": (
        "k",
        2**20,
        dict(n=3, c=16, h=28, w=28, k=256, r=1, s=1, masked=True, dtype=torch.float32),
    ),
}


@pytest.mark.parametrize("problem", WGRAD.values(), ids=WGRAD)
def test_wgrad_beyond_31_bits(problem):
    letter, size, sizes = problem
    case = FarWgrad(letter, size, **sizes)
    plan = case.plan()
    assert plan.family != "wgrad_plain"
    case.check(plan, last_blocks=8)
