"""Tensors of more than 2^31 elements, of which memory holds the few pages that are touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.convolution import Case
from kernels.harness import emulator, run
from pyconvx import _C


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
    """Three images, the last of which lies wholly beyond 2^31 elements, and windows at their four corners."""
    h, w = 5000 * 64 // c, 14000
    # A small convolution of the same pixels: its central window is what each corner of the large images holds.
    case = Case(n=3, c=c, h=3, w=3, k=16, r=3, s=3, padding=(1, 1, 1, 1), groups=groups, dtype=dtype)
    fields = dict(r=3, s=3, stride=(h - 3, w - 3), groups=groups, dtype=case.problem.dtype, layout=_C.Layout.nhwc)
    problem = _C.Conv2dProblem(n=3, c=c, h=h, w=w, k=16, **fields)
    plan = _C.plan_conv2d(problem, "a100")
    assert plan.family == family
    assert 2 * c * h * w > 2**31
    buffers = case.buffers()
    corner = buffers["input"]
    numpy_dtype = np.dtype(str(dtype).removeprefix("torch."))
    input = emulator.sparse((3, h, w, c), numpy_dtype)
    for p, q in np.ndindex(2, 2):
        input[:, p * (h - 3) : p * (h - 3) + 3, q * (w - 3) : q * (w - 3) + 3] = corner.numpy()
    output = torch.full((3, 2, 2, 16), torch.nan, dtype=dtype)
    run(plan, {**buffers, "input": input, "output": output})
    expected = case.expected()[:, :, 1, 1].to(dtype)
    for p, q in np.ndindex(2, 2):
        assert torch.equal(output[:, p, q], expected)
