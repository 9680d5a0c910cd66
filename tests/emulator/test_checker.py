"""Faults that must be reported, each beside a twin without it that must not: the kernels of faults.cu.

Whatever order the warps run in, the verdict has to be the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyconvx import emulator

FAULTS = Path(__file__).with_name("faults.cu").read_text()

# kernel: (kind of the report, threads of a block, blocks)
CASES = {
    "no_barrier_before_read": ("shared-race", 128, 1),
    "no_barrier_before_overwriting": ("shared-race", 128, 1),
    "two_warps_write_one_place": ("shared-race", 128, 1),
    "neighbouring_bytes": ("shared-race", 128, 1),
    "barrier_of_the_wrong_half": ("shared-race", 128, 1),
    "copy_overwrites_what_is_read": ("shared-race", 64, 1),
    "copies_of_others_without_barrier": ("shared-race", 64, 1),
    "atomics_and_plain_writes": ("shared-race", 64, 1),
    "no_syncwarp_before_read": ("warp-race", 32, 1),
    "syncwarp_of_one_half": ("warp-race", 32, 1),
    "no_syncwarp_before_overwriting": ("warp-race", 32, 1),
    "lanes_write_different_values": ("warp-race", 32, 1),
    "ldmatrix_without_syncwarp": ("warp-race", 32, 1),
    "shared_never_written": ("uninitialised-shared", 64, 1),
    "local_never_written": ("uninitialised-local", 32, 1),
    "copy_read_before_wait": ("unfinished-copy", 64, 1),
    "wait_allows_one_group_too_many": ("unfinished-copy", 64, 1),
    "copy_never_waited_for": ("abandoned-copy", 64, 1),
    "copy_of_more_than_its_size": ("bad-copy", 32, 1),
    "past_the_end": ("out-of-bounds", 64, 16),
    "before_the_start": ("out-of-bounds", 64, 1),
    "past_shared_memory": ("out-of-bounds", 64, 1),
    "misaligned_vector": ("misaligned", 32, 1),
    "misaligned_ldmatrix": ("misaligned", 32, 1),
    "barrier_in_one_branch": ("barrier-divergence", 64, 1),
    "another_barrier_in_each_branch": ("barrier-divergence", 64, 1),
    "part_of_a_warp_returns_early": ("barrier-divergence", 64, 1),
    "warps_at_different_barriers": ("deadlock", 64, 1),
    "barrier_expects_too_many": ("deadlock", 64, 1),
    "count_is_no_multiple_of_the_warp": ("barrier-count", 64, 1),
    "shuffle_names_lanes_that_never_come": ("missing-lanes", 32, 1),
    "shuffle_from_a_lane_that_is_not_there": ("missing-lanes", 32, 1),
    "lane_outside_its_own_mask": ("missing-lanes", 32, 1),
    "ldmatrix_after_lanes_have_left": ("missing-lanes", 32, 1),
    "two_blocks_write_one_address": ("block-race", 64, 4),
    "block_reads_what_another_wrote": ("block-race", 64, 4),
    "endless_loop": ("step-limit", 32, 1),
    "trap": ("trap", 32, 1),
}


@pytest.fixture(scope="module")
def kernels(cuda):
    """A function: name of a case, with the bug or without -> kernel."""
    modules = [cuda(FAULTS, BUG=bug) for bug in (0, 1)]
    return lambda name, bug: modules[bug].kernel(name)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
@pytest.mark.parametrize("name", CASES)
def test_reported_and_not_reported(name, order, kernels):
    kind, threads, blocks = CASES[name]
    for bug in (True, False):
        x = np.arange(1024, dtype=np.int32)
        launch = kernels(name, bug).launch(
            blocks, threads, [x], on_report="return", order=order, max_steps=20_000, workers=1
        )
        kinds = {report.kind for report in launch.reports}
        if name == "block_reads_what_another_wrote" and bug and order != "ascending":
            continue  # seen where the writer comes first; that is why kernels are run in every order
        assert (kind in kinds) == bug, [str(report) for report in launch.reports]
        assert bug or not kinds, kinds


def test_every_kind_has_a_case():
    """Those that need PTX or declared memory have tests of their own below and in test_launch.py."""
    kinds = {case[0] for case in CASES.values()} | {"uninitialised-register", "uninitialised-global", "read-only"}
    words = emulator.Report.__doc__.replace("\n", " ").split("one of ")[1].rstrip(". ").replace(",", "").split()
    assert kinds == {f"uninitialised{word}" if word.startswith("-") else word for word in words}


@pytest.mark.parametrize("use", ["st.global.b32 [%a], %v;", "@%p st.global.b32 [%a], 1;", "ld.global.b32 %t, [%w];"])
def test_registers_nobody_wrote(use, ptx_entry):
    body = ".reg .b64 %a, %w; .reg .b32 %v, %t; .reg .pred %p; ld.param.u64 %a, [x];\n{}" + use
    x = np.zeros(64, np.int32)
    kernel = emulator.Module(ptx_entry(body.format(""), ".param .u64 x")).kernel("k")
    launch = kernel.launch(1, 32, [x], on_report="return")
    assert "uninitialised-register" in {report.kind for report in launch.reports}
    written = "mov.b32 %v, 1; setp.eq.u32 %p, %v, 1; mov.b64 %w, %a;\n"
    emulator.Module(ptx_entry(body.format(written), ".param .u64 x")).kernel("k").launch(1, 32, [x])


@pytest.mark.parametrize("code", ["add.u32 %v, %hole, 1;", "mov.u32 %v, %hole;", "selp.b32 %v, %hole, 1, %p;"])
def test_undefined_values_stay_undefined(code, ptx_entry):
    body = f"""
    .reg .b64 %a; .reg .b32 %v, %hole; .reg .pred %p; ld.param.u64 %a, [x]; mov.u32 %v, 0; setp.eq.u32 %p, %v, 0;
    {code} st.global.b32 [%a], %v;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 x")).kernel("k")
    launch = kernel.launch(1, 1, [np.zeros(1, np.int32)], on_report="return")
    assert [r.kind for r in launch.reports] == ["uninitialised-register"]


def test_values_not_chosen_may_be_undefined(ptx_entry):
    body = """
    .reg .b64 %a; .reg .b32 %v, %hole, %t; .reg .pred %p; ld.param.u64 %a, [x]; mov.u32 %t, %tid.x;
    setp.lt.u32 %p, %t, 32; selp.b32 %v, %t, %hole, %p; mad.wide.u32 %a, %t, 4, %a; st.global.b32 [%a], %v;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 x")).kernel("k")
    kernel.launch(1, 32, [np.zeros(64, np.int32)])
    launch = kernel.launch(1, 64, [np.zeros(64, np.int32)], on_report="return")
    assert [(r.kind, r.thread[0]) for r in launch.reports] == [("uninitialised-register", 32)]


def test_a_report_says_where(cuda):
    source = 'extern "C" __global__ void k(int* x) {\n  int i = blockIdx.y * 64 + threadIdx.x;\n  x[i] = 1;\n}'
    launch = cuda(source).kernel("k").launch((1, 3), 64, [np.zeros(150, np.int32)], on_report="return")
    (report,) = launch.reports
    assert (report.kind, report.block, report.thread, report.count) == ("out-of-bounds", (0, 2, 0), (22, 0, 0), 42)
    assert report.source_line == 3 and report.source_file.endswith(".cu")
    assert "st.global" in report.ptx and "offset 600 of k_param_0, which has 600 bytes" in report.message
    assert f"PTX line {report.ptx_line}" in str(report)


def test_a_deadlock_says_who_waits_where(kernels):
    kernel = kernels("warps_at_different_barriers", True)
    (report,) = kernel.launch(1, 64, [np.zeros(64, np.int32)], on_report="return").reports
    assert "warp 0 lanes 0-31 wait at PTX line" in report.message and "warp 1 lanes 0-31" in report.message


def test_check_off_keeps_bounds(kernels):
    kernel = kernels("no_barrier_before_read", True)
    kernel.launch(1, 128, [np.zeros(128, np.int32)], check=False)
    with pytest.raises(emulator.EmulatorError, match="shared-race"):
        kernel.launch(1, 128, [np.zeros(128, np.int32)])
    with pytest.raises(emulator.EmulatorError, match="out-of-bounds"):
        kernel.launch(1, 128, [np.zeros(127, np.int32)], check=False)


def test_memory_is_not_touched_out_of_bounds(cuda):
    kernel = cuda('extern "C" __global__ void k(int* x) { x[threadIdx.x] = 5; }').kernel("k")
    whole = np.zeros(96, np.int32)
    launch = kernel.launch(1, 96, [whole[:64]], on_report="return")
    assert launch.reports and (whole[:64] == 5).all() and not whole[64:].any()
