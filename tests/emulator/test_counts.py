"""Transactions counted against what the access patterns need, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pyconvx import emulator


def kernel_of(ptx_entry, body, target="sm_80"):
    """A kernel with its argument in %x, the thread in %t, a b32 %a, zeros in %v0 to %v3, a predicate %p."""
    start = ".reg .b64 %x; .reg .b32 %t, %a, %v<4>; .reg .pred %p; ld.param.u64 %x, [px]; mov.u32 %t, %tid.x;\n"
    start += "".join(f"mov.b32 %v{k}, 0; " for k in range(4))
    return emulator.Module(ptx_entry(start + body, ".param .u64 px", target=target)).kernel("k")


@pytest.mark.parametrize(
    ("stride", "offset", "width", "sectors"),
    [
        (4, 0, 1, 4),  # 128 bytes in a row
        (4, 16, 1, 5),  # the same, half a sector further
        (8, 0, 1, 8),  # every other word
        (128, 0, 1, 32),  # a sector each
        (0, 0, 1, 1),  # all the same word
        (16, 0, 4, 16),  # 512 bytes in a row
        (32, 0, 4, 32),  # half of each sector
    ],
)
def test_sectors(stride, offset, width, sectors, ptx_entry):
    access = "ld.global.b32 %v0, [%x];" if width == 1 else "ld.global.v4.b32 {%v0, %v1, %v2, %v3}, [%x];"
    kernel = kernel_of(ptx_entry, f"mad.wide.u32 %x, %t, {stride}, %x; add.u64 %x, %x, {offset}; {access}")
    site = kernel.launch(1, 32, [np.zeros(1100, np.int32)]).counts.opcode("ld.global")
    assert (site.requests, site.sectors, site.bytes_asked, site.bytes_moved) == (
        1,
        sectors,
        32 * 4 * width,
        32 * sectors,
    )


@pytest.mark.parametrize(
    ("stride", "width", "wavefronts", "ideal"),
    [
        (4, 1, 1, 1),
        (8, 1, 2, 1),  # only even banks
        (128, 1, 32, 1),  # all in one bank
        (0, 1, 1, 1),  # broadcast
        (132, 1, 1, 1),  # a pitch of 33 words
        (8, 2, 2, 2),  # two half warps
        (16, 2, 4, 2),
        (16, 4, 4, 4),  # four quarter warps
        (128, 4, 32, 4),  # eight lanes of a quarter all in banks 0 to 3
        (144, 4, 4, 4),  # a pitch of 36 words
    ],
)
def test_wavefronts(stride, width, wavefronts, ideal, ptx_entry):
    values = ["%v0", "{%v0, %v1}", None, "{%v0, %v1, %v2, %v3}"][width - 1]
    vector = ["", ".v2", None, ".v4"][width - 1]
    body = f"""
    .shared .align 16 .b8 box[8192]; mov.u32 %a, box; mad.lo.u32 %a, %t, {stride}, %a;
    st.shared{vector}.b32 [%a], {values};
    """
    site = kernel_of(ptx_entry, body).launch(1, 32, [None]).counts.opcode("st.shared")
    assert (site.wavefronts, site.ideal_wavefronts, site.shared_bytes) == (wavefronts, ideal, 128 * width)


@pytest.mark.parametrize(("lanes", "width", "wavefronts"), [(32, 1, 1), (16, 2, 2), (8, 4, 4)])
def test_parts_of_a_warp_take_turns(lanes, width, wavefronts, ptx_entry):
    # Every part of the warp, half or quarter, reads the same 128 bytes: one wavefront each, none saved.
    vector = {1: "ld.shared.b32 %v0", 2: "ld.shared.v2.b32 {%v0, %v1}", 4: "ld.shared.v4.b32 {%v0, %v1, %v2, %v3}"}
    body = f"""
    .shared .align 16 .b8 box[128]; mov.u32 %a, box; mad.lo.u32 %v0, %t, 4, %a; st.shared.b32 [%v0], %t;
    bar.warp.sync -1; and.b32 %v0, %t, {lanes - 1}; mad.lo.u32 %a, %v0, {4 * width}, %a; {vector[width]}, [%a];
    """
    site = kernel_of(ptx_entry, body).launch(1, 32, [None]).counts.opcode("ld.shared")
    assert (site.wavefronts, site.ideal_wavefronts) == (wavefronts, wavefronts)


@pytest.mark.parametrize(("pitch", "wavefronts"), [(16, 4), (128, 32), (144, 4), (64, 16)])
def test_ldmatrix_and_cp_async(pitch, wavefronts, ptx_entry):
    body = f"""
    .shared .align 16 .b8 box[8192]; mov.u32 %a, box; mad.lo.u32 %a, %t, {pitch}, %a; mad.wide.u32 %x, %t, 16, %x;
    cp.async.cg.shared.global [%a], [%x], 16; cp.async.wait_all; bar.warp.sync -1;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%v0, %v1, %v2, %v3}}, [%a];
    """
    counts = kernel_of(ptx_entry, body).launch(1, 32, [np.zeros(128, np.int32)]).counts
    copy, matrix = counts.opcode("cp.async.cg"), counts.opcode("ldmatrix")
    assert (copy.requests, copy.sectors, copy.wavefronts, copy.ideal_wavefronts) == (1, 16, wavefronts, 4)
    assert (matrix.wavefronts, matrix.ideal_wavefronts) == (wavefronts, 4)


def test_instructions(ptx_entry):
    body = """
    setp.lt.u32 %p, %t, 10;
    @%p add.u32 %v0, %v0, 1;
    @!%p bra skip;
    mul.lo.u32 %v0, %v0, 3;
    skip: bar.sync 0;
    """
    counts = kernel_of(ptx_entry, body).launch(2, 64, [None]).counts
    by = counts.by_opcode()
    assert (by["add.u32"].warp_instructions, by["add.u32"].thread_instructions) == (4, 20)
    assert (by["mul.lo.u32"].warp_instructions, by["mul.lo.u32"].thread_instructions) == (2, 20)
    assert (by["bar.sync"].warp_instructions, by["bar.sync"].thread_instructions) == (4, 128)
    assert counts.total.warp_instructions == sum(site.warp_instructions for site in by.values())
    lines = [site.ptx_line for site in counts.sites]
    assert lines == sorted(lines)


def test_only_lanes_that_read_count(ptx_entry):
    body = """
    .shared .align 16 .b8 box[512]; mov.u32 %a, box; mad.lo.u32 %a, %t, 16, %a; mad.wide.u32 %x, %t, 16, %x;
    setp.lt.u32 %p, %t, 8; selp.b32 %v0, 16, 0, %p;
    cp.async.cg.shared.global [%a], [%x], 16, %v0; cp.async.wait_all;
    """
    counts = kernel_of(ptx_entry, body).launch(1, 32, [np.zeros(32, np.int32)]).counts
    assert counts.opcode("cp.async.cg").sectors == 4
