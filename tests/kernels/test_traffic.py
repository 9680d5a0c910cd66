"""What the kernels move, counted: no bank conflicts in shared memory, and nothing stored but whole sectors."""

from __future__ import annotations

import pytest
import torch

from kernels.convolution import Case
from kernels.harness import run

DENSE = dict(n=1, c=64, h=32, w=32, k=128, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2))  # 16 x 16 outputs


def counts(case, tile=""):
    """Those of every launch."""
    return [launch.counts for launch in run(case.plan(tile=tile), case.buffers())]


@pytest.mark.parametrize("dtype, tf32", [(torch.float16, False), (torch.float32, True), (torch.float32, False)])
def test_dense(dtype, tf32):
    case = Case(**DENSE, dtype=dtype, tf32=tf32)
    for candidate in case.plan().candidates:
        (count,) = counts(case, candidate.tile)
        assert count.total.wavefronts == count.total.ideal_wavefronts, candidate.tile
        stores = count.opcode("st.global")
        assert stores.sectors * 32 == stores.bytes_asked == 16 * 16 * 128 * dtype.itemsize, candidate.tile


def test_aligned_tensor_core_kernels_copy_by_16_bytes():
    (count,) = counts(Case(**DENSE))
    copies = count.opcode("cp.async.cg")
    assert copies.bytes_asked == copies.bytes_moved
    assert count.opcode("ld.global").warp_instructions == count.opcode("cp.async.ca").warp_instructions == 0


@pytest.mark.parametrize("c, r, stride, tile", [(4, 7, 2, "16x16x64"), (3, 3, 2, "8x16x32"), (3, 3, 1, "8x16x64")])
def test_few_channels(c, r, stride, tile):
    pad, k = r // 2, int(tile.split("x")[2])
    case = Case(n=1, c=c, h=64, w=64, k=k, r=r, s=r, padding=(pad,) * 4, stride=(stride,) * 2)
    (count,) = counts(case, tile)
    operands, copies = count.opcode("ldmatrix"), count.opcode("cp.async.cg")
    assert operands.wavefronts == operands.ideal_wavefronts > 0
    assert count.opcode("ld.shared").warp_instructions == 0
    assert copies.wavefronts == copies.ideal_wavefronts and (copies.warp_instructions > 0) == (c == 4)
    output = (64 // stride) ** 2 * k * 2
    stores = count.opcode("st.global")
    assert stores.sectors * 32 == stores.bytes_asked == output
    # A patch has its halo; of 3 channels each of a pair's three words is a request of its own, of the same sectors; and
    # every block reads the filters, by 64 bytes that begin anywhere.
    blocks = case.plan(tile=tile).launches[0].grid[0]
    read = 32 * sum(count.opcode(name).sectors for name in ("ld.global", "cp.async"))
    assert read - 2 * blocks * k * r * r * c * 2 <= (5 if c == 3 else 2) * 64 * 64 * c * 2


@pytest.mark.parametrize("tile", ["", "all"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_depthwise(dtype, stride, tile):
    """At most 1.2 times the bytes of input and output, and no bank conflicts."""
    c, size = 64, 56
    case = Case(n=1, c=c, h=size, w=size, k=c, r=3, s=3, padding=(1,) * 4, groups=c, stride=(stride,) * 2, dtype=dtype)
    tiles = [candidate.tile for candidate in case.plan().candidates] if tile else [""]
    if tile and (dtype, stride) != (torch.float16, 1):
        pytest.skip("every tile once")
    for tile in tiles:
        (count,) = counts(case, tile)
        for name in "ld.shared", "cp.async.cg":
            assert count.opcode(name).wavefronts == count.opcode(name).ideal_wavefronts > 0, (name, tile)
        input, output = (c * pixels * dtype.itemsize for pixels in (size**2, (size // stride) ** 2))
        stores = count.opcode("st.global")
        assert stores.sectors * 32 == stores.bytes_asked == output, tile
        copies = count.opcode("cp.async.cg")
        assert copies.sectors * 32 == copies.bytes_asked, tile
        moved = 32 * sum(count.opcode(name).sectors for name in ("ld.global", "cp.async", "st.global"))
        assert moved <= 1.2 * (input + output) or tile, (moved / (input + output), tile)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_transposes(dtype):
    case = Case(n=2, c=64, h=8, w=16, k=32, r=1, s=1, dtype=dtype, layout="nchw")
    input = counts(case)[0].total
    assert input.wavefronts == input.ideal_wavefronts
    assert input.sectors * 32 == input.bytes_asked == 2 * 2 * 64 * 8 * 16 * dtype.itemsize


# Patches. Channels are few: every channel block moves as much.


def copied_input(case, plan, count):
    """Sectors that a launch copies of the input: all copies, but for the filters', which are known."""
    x = case.problem
    tile_filters = int(plan.tile.split("x")[1])
    blocks = plan.launches[0].grid[0]
    filters = blocks * tile_filters * x.r * x.s * (x.c // x.groups) * case.dtype.itemsize // 32
    return count.opcode("cp.async.cg").sectors - filters


PATCHES = {
    "3x3, 56x56": (dict(n=1, c=32, h=56, w=56, k=128, r=3, s=3, padding=(1, 1, 1, 1)), 1.6),
    "3x3, 112x112": (dict(n=1, c=32, h=112, w=112, k=64, r=3, s=3, padding=(1, 1, 1, 1)), 1.6),
    "1x7, 17x17": (dict(n=2, c=32, h=17, w=17, k=64, r=1, s=7, padding=(0, 0, 3, 3)), 1.6),
    "3x3, 35x35": (dict(n=1, c=32, h=35, w=35, k=64, r=3, s=3, padding=(1, 1, 1, 1)), 1.7),
    "3x3, tf32": (
        dict(n=1, c=16, h=56, w=56, k=64, r=3, s=3, padding=(1, 1, 1, 1), dtype=torch.float32, tf32=True),
        1.6,
    ),
    "3x3, f32": (dict(n=1, c=16, h=56, w=56, k=64, r=3, s=3, padding=(1, 1, 1, 1), dtype=torch.float32), 1.6),
}


@pytest.mark.parametrize("problem, most", PATCHES.values(), ids=PATCHES)
def test_patches(problem, most):
    case = Case(**problem)
    x = case.problem
    input, output = (
        n * c * h * w * case.dtype.itemsize // 32 for n, c, h, w in [(x.n, x.c, x.h, x.w), (x.n, x.k, x.p, x.q)]
    )
    depth = 64 // case.dtype.itemsize
    for tile in f"128x64x{depth}", f"128x128x{depth}", f"64x64x{depth}":
        plan = case.plan(tile=tile)
        assert plan.family == "fprop_resident_patch"
        (launch,) = run(plan, case.buffers())
        count = launch.counts
        assert count.total.wavefronts == count.total.ideal_wavefronts, tile
        stores = count.opcode("st.global")
        assert stores.sectors * 32 == stores.bytes_asked and stores.sectors == output, tile
        assert count.opcode("cp.async.ca").warp_instructions == count.opcode("ld.global").warp_instructions == 0
        columns = -(-x.k // int(tile.split("x")[1]))
        if x.k % int(tile.split("x")[1]) == 0:  # else a tile copies its last filter several times
            copies = count.opcode("cp.async.cg")
            assert copies.sectors * 32 == copies.bytes_asked, tile
            assert copied_input(case, plan, count) <= most * input * columns, tile


@pytest.mark.parametrize("h, n", [(7, 1), (7, 2), (7, 8), (14, 1), (14, 4)])
def test_small_maps(h, n):
    case = Case(n=n, c=64 if h == 14 else 256, h=h, w=h, k=64, r=3, s=3, padding=(1, 1, 1, 1))
    x = case.problem
    plan = case.plan(tile="64x64x64")
    launches = run(plan, case.buffers())
    assert ["sum_splits" in launch.kernel for launch in launches] == [False, True][: len(launches)]
    assert len(launches) == (2 if h == 7 else 1)
    multiplications = launches[0].counts.opcode("mma").warp_instructions * 16 * 8 * 16
    assert x.flops / 2 >= 0.75 * multiplications
    for launch in launches:
        assert launch.counts.total.wavefronts == launch.counts.total.ideal_wavefronts
        for opcode in "cp.async.cg", "ld.global", "st.global":
            accesses = launch.counts.opcode(opcode)
            assert accesses.sectors * 32 == accesses.bytes_asked, opcode
    assert launches[-1].counts.opcode("st.global").bytes_asked == n * h * h * 64 * 2


@pytest.mark.parametrize("problem", [DENSE, dict(n=1, c=256, h=16, w=16, k=128, r=1, s=1)], ids=["3x3 stride 2", "1x1"])
def test_gathers(problem):
    """A slice of a tile is as many elements of pixels and of filters as it is deep, and no more is read."""
    case = Case(**problem)
    x = case.problem
    for tile in "128x128x32", "128x64x32", "64x64x64":
        plan = case.plan(tile=tile)
        (launch,) = run(plan, case.buffers())
        pixels, filters, depth = map(int, tile.split("x"))
        slices = -(-x.r * x.s * x.c // depth) * launch.counts.opcode("st.global").bytes_asked // (pixels * filters * 2)
        most = 1.10 * (pixels + filters) * depth * 2 / 32 * slices
        copies = launch.counts.opcode("cp.async.cg")
        assert copies.sectors * 32 == copies.bytes_asked
        assert copies.sectors <= most, tile
