"""Warp collectives, divergence, calls, barriers that count: against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from pyconvx import emulator

LANES = np.arange(32)


def shuffled(mode, lane, b, width):
    """__shfl_sync and its kin as the CUDA programming guide describes them."""
    first = lane // width * width
    source = {"idx": first + b % width, "up": lane - b, "down": lane + b, "bfly": lane ^ b}[mode]
    inside = {"up": source >= first}.get(mode, source < first + width)
    return source if inside else lane, inside


@pytest.mark.parametrize("mode", ["idx", "up", "down", "bfly"])
@pytest.mark.parametrize("width", [32, 16, 4])
def test_shuffle(mode, width, elementwise, random):
    values = random.integers(0, 1000, 32).astype(np.uint32)
    for b in (0, 1, 3, 7, 17, 31):
        by = np.full(32, b, np.uint32)
        c = (32 - width) << 8 | (0 if mode == "up" else 31)
        code = f"shfl.sync.{mode}.b32 %d|%p, %a, %b, {c}, -1; @%p add.u32 %d, %d, 5000;"
        got = elementwise(code, [values, by], np.uint32)
        pairs = [shuffled(mode, lane, b if mode == "idx" else b & 31, width) for lane in range(32)]
        want = [values[s] + 5000 * bool(inside) for s, inside in pairs]
        assert np.array_equal(got, want), (mode, width, b)


def test_votes_matches_and_reductions(elementwise, random):
    a = random.integers(0, 4, 32).astype(np.int32)
    positive = a > 1
    ballot = sum(1 << int(lane) for lane in LANES[positive])
    vote = "setp.gt.s32 %p, %a, 1; vote.sync.{}.pred %q, %p, -1; selp.u32 %d, 1, 0, %q;"
    for mode, want in {
        "all": positive.all(),
        "any": positive.any(),
        "uni": positive.all() or not positive.any(),
    }.items():
        assert (elementwise(vote.format(mode), [a], np.uint32) == want).all(), mode
    got = elementwise("setp.gt.s32 %p, %a, 1; vote.sync.ballot.b32 %d, %p, -1;", [a], np.uint32)
    assert (got == ballot).all()
    got = elementwise("match.any.sync.b32 %d, %a, -1;", [a], np.uint32)
    assert np.array_equal(got, [sum(1 << int(k) for k in LANES[a == x]) for x in a])
    got = elementwise("match.all.sync.b32 %d|%p, %a, -1; @%p add.u32 %d, %d, 7;", [a], np.uint32)
    assert (got == 0).all()
    same = np.full(32, 9, np.int32)
    got = elementwise("match.all.sync.b32 %d|%p, %a, -1; @!%p mov.u32 %d, 7;", [same], np.uint32)
    assert (got == 0xFFFFFFFF).all()
    b = random.integers(-(2**31), 2**31, 32).astype(np.int32)
    for op, function in {
        "add.s32": np.add,
        "min.s32": np.minimum,
        "max.s32": np.maximum,
        "and.b32": np.bitwise_and,
        "or.b32": np.bitwise_or,
        "xor.b32": np.bitwise_xor,
    }.items():
        assert (elementwise(f"redux.sync.{op} %d, %a, -1;", [b], np.int32) == function.reduce(b)).all(), op


def test_masks_of_diverged_lanes(elementwise):
    code = """
        setp.lt.u32 %p, %lane, 10;
        @%p bra low;
        redux.sync.add.u32 %d, %lane, 0xfffffc00;
        bra done;
    low:
        redux.sync.add.u32 %d, %lane, 0x3ff;
    done:
    """
    got = elementwise(code, [np.zeros(32, np.uint32)], np.uint32)
    assert np.array_equal(got, np.where(LANES < 10, sum(range(10)), sum(range(10, 32))))
    # one instruction, each half of the warp with a mask of its own
    code = """
        setp.lt.u32 %p, %lane, 16;
        selp.b32 %t0, 0xffff, 0xffff0000, %p;
        redux.sync.max.u32 %d, %lane, %t0;
    """
    got = elementwise(code, [np.zeros(32, np.uint32)], np.uint32)
    assert np.array_equal(got, np.where(LANES < 16, 15, 31))


def test_a_complete_company_does_not_wait_for_another(ptx_entry):
    # Lanes 0 to 7 come last: they wait for a flag that lanes 16 to 31 set after their own reduction.
    body = """
    .reg .b32 %lane, %mask, %v, %f; .reg .pred %p, %q; .reg .b64 %x, %o; .shared .align 4 .b32 flag[1];
    mov.u32 %lane, %tid.x; ld.param.u64 %x, [px]; setp.eq.u32 %p, %lane, 0; @%p st.shared.b32 [flag], 0;
    bar.warp.sync -1;
    setp.lt.u32 %p, %lane, 16; selp.b32 %mask, 0xffff, 0xffff0000, %p;
    setp.ge.u32 %q, %lane, 8; @%q bra reduce;
    wait: ld.volatile.shared.b32 %f, [flag]; setp.eq.u32 %q, %f, 0; @%q bra wait;
    reduce: redux.sync.max.u32 %v, %lane, %mask;
    @!%p st.volatile.shared.b32 [flag], 1;
    mad.wide.u32 %o, %lane, 4, %x; st.global.b32 [%o], %v;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 px")).kernel("k")
    out = np.zeros(32, np.uint32)
    kernel.launch(1, 32, [out], order="random", on_report="return", max_steps=100_000)
    assert np.array_equal(out, np.where(LANES < 16, 15, 31))


def test_lanes_meet_again_after_a_branch(elementwise):
    code = """
        and.b32 %t0, %lane, 3;
        mov.u32 %d, 0;
    again:
        add.u32 %d, %d, 1;
        setp.lt.u32 %p, %d, %t0;
        @%p bra again;
        activemask.b32 %d;
    """
    got = elementwise(code, [np.zeros(32, np.uint32)], np.uint32)
    assert (got == 0xFFFFFFFF).all()


def test_lanes_that_jump_ahead_wait_for_those_behind(elementwise):
    code = """
        setp.lt.u32 %p, %lane, 10;
        @%p bra middle;
        bra end;
    middle:
        add.u32 %a, %a, 1;
    end:
        activemask.b32 %d;
    """
    got = elementwise(code, [np.zeros(32, np.uint32)], np.uint32)
    assert (got == 0xFFFFFFFF).all()


def test_branch_table_and_special_registers(elementwise):
    code = """
        and.b32 %t0, %lane, 3;
    table: .branchtargets zero, one, two, three;
        brx.idx %t0, table;
    zero: mov.u32 %d, 100; bra done;
    one: mov.u32 %d, %lanemask_lt; bra done;
    two: mov.u32 %d, %ntid.x; bra done;
    three: mov.u32 %d, %laneid;
    done:
    """
    got = elementwise(code, [np.zeros(64, np.uint32)], np.uint32)
    lane = np.arange(64) % 32
    want = np.select([lane % 4 == 0, lane % 4 == 1, lane % 4 == 2], [100, (1 << lane) - 1, 64], lane)
    assert np.array_equal(got, want)


def test_calls(ptx_entry):
    before = """
    .func (.param .b32 r) twice (.param .b32 x)
    { .reg .b32 %v; .reg .pred %p; ld.param.b32 %v, [x];
      setp.gt.u32 %p, %v, 20; @%p bra big; add.u32 %v, %v, %v; big: st.param.b32 [r], %v; ret; }
    """
    body = """
    .reg .b32 %x; .reg .b64 %a;
    mov.u32 %x, %tid.x;
    { .param .b32 in; .param .b32 out; st.param.b32 [in], %x;
      call.uni (out), twice, (in); ld.param.b32 %x, [out]; }
    { .param .b32 in; .param .b32 out; st.param.b32 [in], %x;
      call.uni (out), twice, (in); ld.param.b32 %x, [out]; }
    ld.param.u64 %a, [p]; mov.u32 %t, %tid.x; mad.wide.u32 %a, %t, 4, %a; st.global.u32 [%a], %x;
    """
    kernel = emulator.Module(ptx_entry(".reg .b32 %t;" + body, ".param .u64 p", before=before)).kernel("k")
    out = np.zeros(32, np.uint32)
    kernel.launch(1, 32, [out])
    once = np.where(LANES > 20, LANES, 2 * LANES)
    assert np.array_equal(out, np.where(once > 20, once, 2 * once))


def test_barrier_reductions_and_named_barriers(ptx_entry):
    body = """
    .reg .b32 %t, %n; .reg .pred %p, %all, %any; .reg .b64 %a; .shared .align 4 .b32 box[64];
    mov.u32 %t, %tid.x; setp.lt.u32 %p, %t, 40;
    bar.red.popc.u32 %n, 0, %p; bar.red.and.pred %all, 0, %p; bar.red.or.pred %any, 0, %p;
    selp.b32 %t, 1000, 0, %all; add.u32 %n, %n, %t; selp.b32 %t, 100, 0, %any; add.u32 %n, %n, %t;
    mov.u32 %t, %tid.x; ld.param.u64 %a, [p]; mad.wide.u32 %a, %t, 4, %a; st.global.u32 [%a], %n;
    // warps 0 and 1 meet at barrier 1: 0 produces, 1 consumes
    .reg .b32 %s, %v; .reg .pred %w0, %w1;
    mov.u32 %s, box; shl.b32 %v, %t, 2; add.u32 %s, %s, %v;
    setp.lt.u32 %w0, %t, 32; setp.lt.u32 %w1, %t, 64; setp.ge.and.u32 %w1, %t, 32, %w1;
    @%w0 st.shared.u32 [%s], %t;
    @%w0 bar.arrive 1, 64;
    @%w1 bar.sync 1, 64;
    @%w1 ld.shared.u32 %v, [%s-128];
    @%w1 st.global.u32 [%a+256], %v;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 p")).kernel("k")
    for order in ("ascending", "descending", "random"):
        out = np.zeros(160, np.uint32)
        kernel.launch(1, 96, [out], order=order)
        assert (out[:96] == 140).all()
        assert np.array_equal(out[96:128], LANES)


def test_atomics(ptx_entry, random):
    body = """
    .reg .b32 %t, %v, %old; .reg .b64 %a; .reg .f32 %f; .shared .align 4 .b32 sum[1]; .reg .pred %first;
    mov.u32 %t, %tid.x; setp.eq.u32 %first, %t, 0; @%first st.shared.u32 [sum], 0; bar.sync 0;
    atom.shared.add.u32 %old, [sum], %t; bar.sync 0; ld.shared.u32 %v, [sum];
    ld.param.u64 %a, [p];
    @%first st.global.u32 [%a], %v;
    red.global.max.s32 [%a+4], %t; atom.global.inc.u32 %v, [%a+8], 9; atom.global.cas.b32 %v, [%a+12], 0, %t;
    cvt.rn.f32.u32 %f, %t; red.global.add.f32 [%a+16], %f; atom.global.exch.b32 %v, [%a+20], %t;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 p")).kernel("k")
    out = np.zeros(6, np.uint32)
    kernel.launch(1, 64, [out])
    assert list(out[:4]) == [2016, 63, 64 % 10, 1]
    assert out[4:5].view(np.float32)[0] == 2016
    assert out[5] == 63
