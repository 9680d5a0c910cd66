"""What the gradients' kernels move, counted: as test_traffic.py does of forward convolution."""

from __future__ import annotations

import os

import pytest
import torch

from kernels.backward import Dgrad, Wgrad
from kernels.harness import run

SAME = dict(r=3, s=3, padding=(1, 1, 1, 1))
MOVES = ("ld.global", "cp.async", "st.global")


def moved(launches):
    """Bytes that blocks ask of L2, in whole sectors."""
    return 32 * sum(launch.counts.opcode(name).sectors for launch in launches for name in MOVES)


def of_tensors(plans, sizes):
    """Bytes of those tensors that the launches read and write, each of them once a launch."""
    return sum(sizes.get(slot.buffer, 0) for plan in plans for step in plan.launches for slot in step.pointers)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype, depth", [(torch.float16, 32), (torch.float32, 16)])
def test_patches(dtype, depth, masked):
    case = Dgrad(n=1, c=64, h=28, w=28, k=depth, **SAME, dtype=dtype, masked=masked)
    plan = case.plan(tile=f"128x64x{depth}")
    assert plan.family == "dgrad by fprop_resident_patch"
    launches = run(plan, case.buffers())
    for launch in launches:  # a few lanes mask nothing, in places of their own among the others' in the patch
        total = launch.counts.total
        assert total.ideal_wavefronts <= total.wavefronts <= (1.02 if masked else 1) * total.ideal_wavefronts
    gradients, result = (28 * 28 * channels * dtype.itemsize for channels in (depth, 64))
    filters, product = (launch.counts for launch in launches)
    assert filters.opcode("st.global").sectors * 32 == 64 * depth * 9 * dtype.itemsize
    stores, copies = product.opcode("st.global"), product.opcode("cp.async.cg")
    assert stores.sectors * 32 == stores.bytes_asked == result
    assert product.opcode("cp.async.ca").warp_instructions == product.opcode("ld.global").warp_instructions == 0
    assert copies.sectors * 32 == copies.bytes_asked
    of_filters = plan.launches[1].grid[0] * 64 * 9 * depth * dtype.itemsize
    assert copies.bytes_asked - of_filters <= 1.7 * gradients * (2 if masked else 1)


@pytest.mark.parametrize("r", [3, 1])
def test_strided(r):
    """Every pixel of the result is written once, and no gradient is read more often than its classes see it."""
    case = Dgrad(n=1, c=64, h=56, w=56, k=32, r=r, s=r, padding=(r // 2,) * 4, stride=(2, 2))
    plan = case.plan(tile="128x64x32")
    _, *classes = run(plan, case.buffers())
    stores = [launch.counts.opcode("st.global") for launch in classes]
    assert sum(store.sectors for store in stores) * 32 == sum(store.bytes_asked for store in stores) == 56 * 56 * 64 * 2
    copied = 0
    for step, launch in zip(plan.launches[1:], classes, strict=True):
        count = launch.counts
        assert count.total.wavefronts == count.total.ideal_wavefronts
        assert count.opcode("cp.async.ca").warp_instructions == count.opcode("ld.global").warp_instructions == 0
        copies = count.opcode("cp.async.cg")
        taps = step.constants["PYCONVX_R"] * step.constants["PYCONVX_S"]
        copied += copies.sectors * 32 - (step.grid[0] * 64 * taps * 32 * 2 if copies.warp_instructions else 0)
    assert copied <= (4 if r == 3 else 1) * 1.6 * 28 * 28 * 32 * 2


@pytest.mark.parametrize(
    "size", [28, pytest.param(56, marks=pytest.mark.skipif(not os.environ.get("PYCONVX_SLOW"), reason="slow"))]
)
def test_a_mask_in_the_load_moves_less_than_one_before(size):
    """Both gradients of a 3 x 3 layer of ResNet-50, 64 channels of 56 x 56, with a ReLU. If every launch moves each of
    its tensors once, six tensors of that size instead of seven; blocks ask L2 for a little more."""
    layer = dict(n=1, c=64, h=size, w=size, k=64, **SAME)
    tensor = size * size * 64 * 2
    sizes = dict.fromkeys(("input", "grad_output", "relu_output", "grad_input"), tensor)
    figures = {}
    for masked in (False, True):
        cases = [Dgrad(**layer, masked=masked), Wgrad(**layer, masked=masked)]
        plans = [case.plan() for case in cases]
        launches = [launch for case, plan in zip(cases, plans, strict=True) for launch in run(plan, case.buffers())]
        assert not any("relu_backward" in step.kernel for plan in plans for step in plan.launches)
        figures[masked] = of_tensors(plans, sizes), moved(launches)
    before = 3 * tensor  # relu_backward, which reads two and writes one
    assert figures[True][0] == 6 * tensor
    assert figures[False][0] + before == 7 * tensor
    assert figures[True][1] <= 1.10 * (figures[False][1] + before)
