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
