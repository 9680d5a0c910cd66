"""What unpooling moves, counted: the fewest bytes there are, by 16 at a time, in full sectors."""

from __future__ import annotations

import pytest
import torch

from kernels.harness import run
from kernels.unpooling import Unpooling
from pyconvx import _C

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64


def check_wide(counts, loaded, stored):
    """Every access has 16 bytes, every sector is used in full, and no byte is moved twice."""
    for opcode, fewest in (("ld.global", loaded), ("st.global", stored)):
        site = counts.opcode(opcode)
        assert site.bytes_moved == site.bytes_asked == 16 * site.thread_instructions == fewest, opcode
    assert counts.total.wavefronts == counts.total.ideal_wavefronts


@pytest.mark.parametrize("dtype, channels", [(BF16, 64), (BF16, 32), (F32, 64), (F64, 128)], ids=str)
@pytest.mark.parametrize("window", [2, 3])
def test_byte_offsets_cost_the_fewest_bytes(dtype, channels, window):
    """In bfloat16, for a window of 2 x 2: 2 of the value, 1 of the index and 8 of the plane, 11 a pooled value."""
    size = (2, channels, 4 * window, 6 * window)
    case = Unpooling(size, (window, window), (window, window), dtype=dtype)
    pooled, plane = case.input.numel(), case.grad_output.numel()
    (forward,) = run(case.plan(), case.buffers())
    check_wide(forward.counts, pooled * (dtype.itemsize + 1), plane * dtype.itemsize)
    (backward,) = run(case.plan(backward=True), case.buffers(backward=True))
    check_wide(backward.counts, plane * dtype.itemsize + pooled, pooled * dtype.itemsize)
    if dtype == BF16 and window == 2:
        for launch in (forward, backward):
            assert launch.counts.total.bytes_moved == 11 * pooled


@pytest.mark.parametrize("size", [(1, 32, 32, 32), (1, 64, 14, 14), (1, 16, 30, 50)], ids=str)
def test_planes_cost_the_fewest_bytes(size):
    """N C H W: full sectors by 16 bytes, but for the last bytes of a tensor, in 11 bytes a pooled value."""
    case = Unpooling(size, (2, 2), (2, 2), dtype=BF16, layout="nchw")
    names = ["h", "w", "p", "q", "r", "s", "stride", "dtype", "layout", "index"]
    batch = _C.Unpool2dProblem(n=256, c=64, **{name: getattr(case.problem, name) for name in names})
    for backward in (False, True):
        tile = (_C.plan_max_unpool2d_backward if backward else _C.plan_max_unpool2d)(batch, "a100").tile
        (launch,) = run(case.plan(backward, tile=tile), case.buffers(backward))
        counts = launch.counts
        narrow = counts.where(lambda site: ".global." in site.opcode and ".v4." not in site.opcode)
        assert narrow.bytes_asked <= 64
        assert counts.total.bytes_moved <= 11.15 * case.input.numel()
        assert counts.total.wavefronts <= 1.5 * counts.total.ideal_wavefronts


def test_overlapping_windows_write_every_output_once():
    """And read an index for each window over an output, of which a 3 x 3 window with stride 2 has 2.25 on average."""
    case = Unpooling((1, 64, 16, 16), (3, 3), (2, 2), (1, 1, 1, 1), dtype=BF16)
    (launch,) = run(case.plan(), case.buffers())
    stores, loads = launch.counts.opcode("st.global"), launch.counts.opcode("ld.global")
    assert stores.bytes_moved == stores.bytes_asked == case.grad_output.numel() * 2
    indices = launch.counts.where(lambda site: site.opcode == "ld.global.v2.u32")
    assert indices.bytes_asked / case.grad_output.numel() < 2.25 + 0.25  # and each once more, to be checked
    assert loads.bytes_asked - indices.bytes_asked <= 2.25 * case.grad_output.numel() * 2


def test_positions_cost_a_workspace():
    """Bytes of a pooled value in bfloat16, 2 x 2: the fewest are 2 + 8 + 8; the workspace adds 16 of zeros, 16 to be
    read and an atomic, of which the sectors depend on the winners."""
    case = Unpooling((1, 64, 16, 16), (2, 2), (2, 2), dtype=BF16, index=torch.int64)
    pooled = case.input.numel()
    fill, mark, take = (launch.counts for launch in run(case.plan(), case.buffers()))
    assert fill.total.bytes_moved == 16 * pooled
    assert mark.opcode("ld.global").bytes_moved == 8 * pooled
    assert mark.opcode("red").thread_instructions + mark.opcode("atom").thread_instructions == pooled
    stores = take.opcode("st.global")
    assert stores.bytes_moved == stores.bytes_asked == 8 * pooled
