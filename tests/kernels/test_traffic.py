"""What the kernels move, counted: no bank conflicts in shared memory, and nothing stored but whole sectors."""

from __future__ import annotations

import pytest
import torch

from kernels.convolution import Case
from kernels.harness import run

DENSE = dict(n=1, c=64, h=16, w=16, k=128, r=3, s=3, padding=(1, 1, 1, 1))


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


def test_few_channels():
    case = Case(n=1, c=4, h=32, w=64, k=64, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2))
    (count,) = counts(case, "8x16x64")
    for operands in count.opcode("ldmatrix"), count.opcode("ld.shared"):
        assert operands.wavefronts == operands.ideal_wavefronts > 0
    stores = count.opcode("st.global")
    assert stores.sectors * 32 == stores.bytes_asked == 16 * 32 * 64 * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_transposes(dtype):
    case = Case(n=2, c=64, h=8, w=16, k=32, r=1, s=1, dtype=dtype, layout="nchw")
    input = counts(case)[0].total
    assert input.wavefronts == input.ideal_wavefronts
    assert input.sectors * 32 == input.bytes_asked == 2 * 2 * 64 * 8 * 16 * dtype.itemsize
