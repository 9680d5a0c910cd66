"""Tensors of more than 2^31 elements, of which memory holds the few pages that are touched."""

from __future__ import annotations

import pytest
import torch

from kernels.convolution import FarCorners


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
