"""What is fused to a convolution's end, in every kernel family: bias, scale and shift, residual, ReLU."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from kernels.convolution import Case

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

FAMILIES = {
    "fprop_resident_patch": dict(n=1, c=32, h=9, w=19, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=BF16),
    "fprop_resident_patch, tf32": dict(
        n=1, c=16, h=19, w=9, k=40, r=3, s=1, padding=(1, 1, 0, 0), dtype=F32, tf32=True
    ),
    "fprop_resident_patch, odd": dict(n=1, c=31, h=9, w=19, k=43, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "fprop_resident_patch, f32": dict(n=1, c=16, h=9, w=19, k=43, r=1, s=3, padding=(0, 0, 1, 1), dtype=F32),
    "fprop_small_map": dict(n=1, c=64, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "fprop_small_map, split": dict(n=1, c=264, h=9, w=7, k=43, r=3, s=3, padding=(1, 1, 1, 1), dtype=BF16),
    "fprop_tensor_core": dict(n=1, c=24, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=BF16),
    "fprop_tensor_core, tf32": dict(n=1, c=12, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32, tf32=True),
    "fprop_tensor_core, odd": dict(n=1, c=24, h=9, w=8, k=43, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "fprop_ffma": dict(n=1, c=12, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32),
    "fprop_ffma, odd": dict(n=1, c=12, h=9, w=8, k=43, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32),
    "fprop_few_channels": dict(n=1, c=3, h=19, w=18, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16, stride=(2, 2)),
    "fprop_depthwise": dict(n=1, c=40, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16, groups=40),
    "fprop_plain": dict(n=1, c=12, h=9, w=8, k=40, r=3, s=3, padding=(1, 1, 1, 1), dtype=F64),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_combinations(family):
    for bias, scale, residual, relu in itertools.product([False, True], repeat=4):
        case = Case(**FAMILIES[family], bias=bias, scale=scale, residual=residual, relu=relu)
        plan = case.plan()
        assert plan.family == family.partition(",")[0]
        case.check(plan)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_nan_and_infinity_stay(family, relu):
    """An infinity meets filters that are zero and makes NaN there; nothing spreads beyond the windows it is in."""
    case = Case(**FAMILIES[family], relu=relu)
    case.input[0, 1, 4, 3] = math.inf
    case.input[0, 2, 1, 6] = -math.inf
    case.input[0, 0, 7, 1] = math.nan
    expected, output = case.expected(), case.run()
    assert expected.isnan().any() and expected.isinf().any()
    assert torch.equal(output.isnan(), expected.isnan())
    assert torch.equal(output.double().nan_to_num(nan=0.5), expected.to(case.dtype).double().nan_to_num(nan=0.5))
