"""Tensors of more than 2^31 elements, of which memory holds the few pages that are touched."""

from __future__ import annotations

import pytest
import torch

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
