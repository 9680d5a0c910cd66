"""What wgrad moves, counted: every sector that is read is used, sums are written and read once, no bank conflicts."""

from __future__ import annotations

import pytest
import torch

from kernels.backward import Wgrad
from kernels.harness import run
from pyconvx import _C

F16, F32 = torch.float16, torch.float32
SIZES = dict(n=4, c=64, h=16, w=16, k=128)
WINDOWS = {"1x1": dict(r=1, s=1), "1x7": dict(r=1, s=7, padding=(0, 0, 3, 3))}


def moved(case, tile=""):
    """The counts of the product and of the sums' addition; what holds for all of them is checked."""
    plan = case.plan(tile=tile)
    product, addition = run(plan, case.buffers())
    for launch in product, addition:
        total = launch.counts.total
        assert total.wavefronts == total.ideal_wavefronts, launch.kernel
        for name in "cp.async.ca", "ld.global", "st.global":
            accesses = launch.counts.opcode(name)
            assert accesses.bytes_moved == accesses.bytes_asked, (launch.kernel, name)
    x = case.problem
    sums = plan.workspaces["wgrad_sums"]
    splits, rest = divmod(sums, 4 * (x.k * x.c // x.groups * x.r * x.s + (x.k if x.bias else 0)))
    assert splits > 0 and not rest
    assert product.counts.opcode("st.global").bytes_moved == addition.counts.opcode("ld.global").bytes_moved == sums
    return plan, product.counts


def blocks(plan):
    return plan.launches[0].grid[0]


@pytest.mark.parametrize(
    "window, tile, dtype, tf32",
    [
        ("1x1", "128x64x32", F16, False),
        ("1x7", "128x128x32", F16, False),
        ("1x7", "64x64x64", F16, False),
        ("1x7", "64x64x16", F32, True),
        ("1x7", "128x128x8", F32, False),
    ],
)
def test_gathers(window, tile, dtype, tf32):
    """A slice of a tile is as many filters and columns as it has, of as many pixels as it is deep."""
    case = Wgrad(**SIZES, **WINDOWS[window], dtype=dtype, tf32=tf32)
    plan, count = moved(case, tile)
    assert plan.family == ("wgrad_ffma" if dtype == F32 and not tf32 else "wgrad_tensor_core")
    assert count.opcode("ld.global").warp_instructions == count.opcode("cp.async.ca").warp_instructions == 0
    copies = count.opcode("cp.async.cg")
    # Of taps side by side, a warp asks for a pixel more than once.
    assert copies.bytes_moved == 32 * copies.sectors <= copies.bytes_asked
    filters, columns, _ = map(int, tile.split("x"))
    pixels = SIZES["n"] * SIZES["h"] * SIZES["w"]
    of_splits = blocks(plan) / (128 // filters) / -(-case.problem.r * case.problem.s * 64 // columns)
    slices = pixels / of_splits * blocks(plan)  # of one pixel, in all blocks
    assert copies.bytes_moved <= 1.10 * (filters + columns) * dtype.itemsize * slices


@pytest.mark.parametrize("c, vector", [(3, 4), (4, 16)])
def test_few_channels(c, vector):
    """At least three of four multiplications are of use: filters fill a tile, columns most of three or four."""
    case = Wgrad(n=1, c=c, h=64, w=64, k=64, r=7, s=7, padding=(3,) * 4, stride=(2, 2))
    plan = case.plan()
    count = run(plan, case.buffers())[0].counts
    multiplications = count.opcode("mma").warp_instructions * 16 * 8 * 16
    assert case.problem.flops / 2 >= 0.75 * multiplications
    assert count.opcode("ld.global").warp_instructions == 0
    copies = count.opcode("cp.async.cg" if vector == 16 else "cp.async.ca")
    assert copies.warp_instructions > 0 and plan.launches[0].kernel.split(", ")[-2] == str(vector)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stride, most", [(1, 1.6), (2, 1.2)])
def test_patches(stride, most, masked):
    case = Wgrad(**SIZES, r=3, s=3, padding=(1,) * 4, stride=(stride,) * 2, masked=masked)
    plan, count = moved(case)
    assert plan.family == "wgrad_patch"
    assert count.opcode("ld.global").warp_instructions == count.opcode("cp.async.ca").warp_instructions == 0
    copies = count.opcode("cp.async.cg")
    assert copies.bytes_moved == copies.bytes_asked
    # A tile of 64 filters by 32 channels reads its filters' gradients once, and the input with its patches' halos.
    x = case.problem
    gradients = x.n * x.p * x.q * x.k * 2 * (2 if masked else 1)
    input = x.n * x.h * x.w * x.c * 2
    assert copies.bytes_moved <= gradients * x.c / 32 + most * input * x.k / 64


def test_outputs_that_mask_are_read_like_the_gradients():
    count = {masked: moved(Wgrad(**SIZES, **WINDOWS["1x7"], masked=masked), "64x64x32")[1] for masked in (False, True)}
    assert count[True].opcode("cp.async.cg").sectors == count[False].opcode("cp.async.cg").sectors
    columns = 7
    assert count[True].opcode("ld.global").bytes_moved == 4 * 16 * 16 * 128 * 2 * columns


@pytest.mark.parametrize(
    "c, k, size, r",
    [(64, 64, 56, 3), (128, 128, 28, 3), (256, 256, 14, 3), (512, 512, 7, 3), (64, 256, 56, 1), (512, 2048, 7, 1)],
)
def test_splits_are_as_many_as_their_bytes_are_worth(c, k, size, r):
    """The rule of docs/kernels_backward.md, whose bytes test_gathers and test_patches count: no other number of runs
    takes clearly less by it."""
    fields = dict(n=32, c=c, h=size, w=size, k=k, r=r, s=r, padding=(r // 2,) * 4)
    problem = _C.Conv2dProblem(**fields, dtype=_C.DType.float16, layout=_C.Layout.nhwc, pass_=_C.Pass.wgrad)
    weights = k * c * r * r
    splits = _C.plan_conv2d_wgrad(problem, "a100").workspaces["wgrad_sums"] // (4 * weights)
    tiles = -(-k // 128) * -(-c * r * r // 128)
    alone = 32 * size * size * weights / (tiles * 1024)

    def clocks(runs):
        return alone / runs + runs * 2 * 4 * weights / 1400

    most = min(-(-256 // tiles), 32 * size * size // 256)
    assert splits <= most
    assert clocks(splits) <= 1.03 * min(map(clocks, range(1, most + 1)))
    assert clocks(splits) <= clocks(1)
