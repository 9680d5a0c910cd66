"""The Python face: modules, arguments, memory, limits, and what errors say."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from pyconvx import emulator

COPY = """
.reg .b64 %x, %y; .reg .b32 %i, %v;
ld.param.u64 %x, [px]; ld.param.u64 %y, [py]; mov.u32 %i, %tid.x;
mad.wide.u32 %x, %i, 4, %x; mad.wide.u32 %y, %i, 4, %y;
ld.global.b32 %v, [%x]; st.global.b32 [%y], %v;
"""
PARAMS = ".param .u64 px, .param .u64 py"


@pytest.fixture
def copy(ptx_entry):
    return emulator.Module(ptx_entry(COPY, PARAMS)).kernel("k")


def test_importing_pyconvx_does_not_import_the_emulator():
    code = (
        "import pyconvx, sys; assert 'pyconvx.emulator' not in sys.modules and 'pyconvx._emulator' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_of_every_kind(copy):
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    copy.launch(1, 64, [x, y])
    assert np.array_equal(x, y)
    memory = emulator.Memory(np.zeros(100, np.float32))
    copy.launch(1, 32, [emulator.Memory(x).at(128), memory.at(16)])
    assert np.array_equal(np.frombuffer(memory._keep_alive, np.float32)[4:36], x[32:])
    torch = pytest.importorskip("torch")
    source, target = torch.arange(64.0), torch.zeros(64)
    copy.launch(1, 32, [source[8:], target])
    assert torch.equal(target[:32], source[8:40])
    with pytest.raises(emulator.EmulatorError, match="out-of-bounds"):
        copy.launch(1, 64, [source[8:], target])
    by_address = emulator.Memory((y.ctypes.data, y.nbytes), name="raw")
    copy.launch(1, 64, [np.zeros(64, np.float32), by_address])
    assert not y.any()


def test_structs_and_numbers(ptx_entry):
    body = """
    .reg .b64 %p; .reg .b32 %v; .reg .b64 %w; .reg .b16 %h;
    ld.param.u64 %p, [s]; ld.param.u32 %v, [s+8]; st.global.u32 [%p], %v;
    ld.param.f32 %v, [f]; st.global.u32 [%p+4], %v; ld.param.u8 %h, [b]; st.global.u8 [%p+8], %h;
    ld.param.f64 %w, [d]; st.global.u64 [%p+16], %w;
    """
    params = ".param .align 8 .b8 s[16], .param .f32 f, .param .u8 b, .param .b64 d"
    kernel = emulator.Module(ptx_entry(body, params)).kernel("k")
    out = np.zeros(6, np.uint32)
    kernel.launch(1, 1, [emulator.Struct("Pi4x", out, -5), 1.5, True, 0.25])
    assert out[0] == 2**32 - 5 and out[1:2].view(np.float32)[0] == 1.5 and out[2] == 1
    assert out[4:6].view(np.float64)[0] == 0.25
    assert [p.type for p in kernel.parameters] == ["bytes", "f32", "u8", "b64"]


def test_wrong_arguments(copy):
    x = np.zeros(32, np.float32)
    with pytest.raises(TypeError, match="takes 2 arguments"):
        copy.launch(1, 32, [x])
    with pytest.raises(ValueError, match="C-contiguous"):
        copy.launch(1, 32, [x[::2], x])
    with pytest.raises(ValueError, match="overlaps"):
        copy.launch(1, 8, [x[:16], x[8:]])
    with pytest.raises(TypeError, match="8 bytes"):
        copy.launch(1, 8, [x, b"abc"])
    with pytest.raises(ValueError, match="expected one to three"):
        copy.launch((1, 1, 1, 1), 8, [x, x])
    frozen = np.zeros(32, np.float32)
    frozen.flags.writeable = False
    copy.launch(1, 32, [frozen, x])
    with pytest.raises(emulator.EmulatorError, match="read-only"):
        copy.launch(1, 32, [x, frozen])


def test_finding_a_kernel(ptx_entry):
    module = emulator.Module(ptx_entry("", "") + "\n.visible .entry other() { ret; }")
    assert module.kernels == ["k", "other"] and module.target == "sm_80"
    assert module.kernel("oth").name == "other"
    with pytest.raises(LookupError, match="0 kernels match 'nothing'"):
        module.kernel("nothing")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("wgmma.fence.sync.aligned;", "wgmma.fence.sync.aligned"),
        ("add.sat.u32 %a, %a, %a;", "add.sat.u32"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk.commit_group"),
        ("mad.lo.sat.s32 %a, %a, %a, %a;", "mad.lo.sat.s32"),
        ("cvt.rn.satfinite.e4m3x2.f32 %a, %a, %a;", "e4m3x2"),
        ("frobnicate.b32 %a, %a;", "frobnicate.b32"),
    ],
)
def test_unknown_instructions_are_named(line, named, ptx_entry):
    text = ptx_entry(f".reg .b32 %a;\n{line}")
    number = text.splitlines().index(line) + 1
    module = emulator.Module(text)  # another kernel of the module may still be run
    with pytest.raises(RuntimeError) as error:
        module.kernel("k")
    assert named in str(error.value) and f"PTX line {number}" in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "add.u32 %a, %a;",
        "add.u32 %a, %a, %wide;",
        "mov.u32 %a, %nobody;",
        "bra nowhere;",
        "ld.global.b32 %a, %a;",
        "add.u32 %a, %p, 1;",
    ],
)
def test_wrong_operands_are_refused(line, ptx_entry):
    text = ptx_entry(f".reg .b32 %a; .reg .b64 %wide; .reg .pred %p;\n{line}")
    with pytest.raises(RuntimeError, match=r"PTX line 8|PTX line 7"):
        emulator.Module(text).kernel("k")


@pytest.mark.parametrize("text", ["", "hello", ".version 8.0\n.entry k( {", '.file 1 "open'])
def test_text_that_is_not_ptx(text):
    with pytest.raises((RuntimeError, LookupError)):
        emulator.Module(text).kernel("k")


@pytest.mark.parametrize(
    ("target", "limit"),
    [("sm_80", 163), ("sm_86", 99), ("sm_89", 99), ("sm_90a", 227), ("sm_100a", 227), ("sm_120", 99)],
)
def test_shared_memory_limits(target, limit, ptx_entry):
    kernel = emulator.Module(ptx_entry("", target=target)).kernel("k")
    kernel.launch(1, 32, [], shared_bytes=limit * 1024)
    with pytest.raises(RuntimeError, match=f"at most {limit * 1024} on {target}"):
        kernel.launch(1, 32, [], shared_bytes=limit * 1024 + 1)


def test_other_limits(ptx_entry):
    kernel = emulator.Module(ptx_entry("")).kernel("k")
    for grid, block in [(1, 1025), (1, (32, 33)), (1, (1, 1, 65)), (1, 0), (0, 32), ((1, 65536), 32)]:
        with pytest.raises(RuntimeError, match=r"must have 1 to 1024|goes from 1"):
            kernel.launch(grid, block, [])
    bounded = emulator.Module(ptx_entry("").replace("k()", "k()\n.maxntid 128")).kernel("k")
    bounded.launch(1, 128, [])
    with pytest.raises(RuntimeError, match="compiled for at most 128"):
        bounded.launch(1, 129, [])
    with pytest.raises(RuntimeError, match="sm_20"):
        emulator.Module(ptx_entry("", target="sm_20")).kernel("k").launch(1, 1, [])
    static = emulator.Module(ptx_entry(".shared .b8 box[50000]; .reg .b32 %a; mov.u32 %a, box;")).kernel("k")
    with pytest.raises(RuntimeError, match="more than 49152 must be dynamic"):
        static.launch(1, 1, [])


def test_module_variables(ptx_entry):
    before = ".const .align 4 .b32 table[4] = {1, 2, 0x30, -4};\n.global .align 4 .b32 total;\n"
    body = """
    .reg .b64 %p; .reg .b32 %t, %v, %o;
    mov.u32 %t, %tid.x; mov.u64 %p, table; mad.wide.u32 %p, %t, 4, %p; ld.const.b32 %v, [%p];
    red.global.add.u32 [total], %v;
    """
    module = emulator.Module(ptx_entry(body, before=before))
    kernel = module.kernel("k")
    kernel.launch(1, 4, [])
    kernel.launch(1, 4, [])
    assert module.variable("total").view(np.int32)[0] == 2 * (1 + 2 + 0x30 - 4)


def test_addresses_beyond_two_to_the_31(ptx_entry):
    body = """
    .reg .b64 %x, %i, %o; .reg .b32 %t; .reg .b16 %h;
    ld.param.u64 %x, [px]; ld.param.u64 %i, [first]; mov.u32 %t, %tid.x; cvt.u64.u32 %o, %t; add.u64 %i, %i, %o;
    shl.b64 %i, %i, 1; add.u64 %x, %x, %i; ld.global.b16 %h, [%x]; add.u16 %h, %h, 1; st.global.b16 [%x], %h;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 px, .param .u64 first")).kernel("k")
    array = emulator.sparse((2**32 + 64,), np.uint16)
    array[2**32 + 3] = 41
    kernel.launch(1, 64, [array, 2**32])
    assert array[2**32 + 3] == 42 and array[2**32] == 1 and array[3] == 0
    with pytest.raises(emulator.EmulatorError, match="out-of-bounds"):
        kernel.launch(1, 64, [array, 2**32 + 1])


def test_outputs_declared_uninitialised(copy):
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    output = emulator.Memory(y, uninitialised=True)
    copy.launch(1, 60, [x, output])
    assert output.unwritten() == 16
    copy.launch(1, 60, [output, x])
    with pytest.raises(emulator.EmulatorError, match="uninitialised-global"):
        copy.launch(1, 61, [output, x])
    with pytest.raises(ValueError, match="uninitialised=True"):
        emulator.Memory(x).unwritten()


def test_counts_and_errors_are_data(copy):
    x, y = np.zeros(64, np.float32), np.zeros(64, np.float32)
    launch = copy.launch(1, 64, [x, y])
    as_dict = json.loads(json.dumps(launch.counts.as_dict()))
    assert as_dict["opcodes"]["ld.global.b32"]["thread_instructions"] == 64
    assert as_dict["total"]["sectors"] == 16 and as_dict["total"]["bytes_moved"] == 512
    launch = copy.launch(1, 96, [x, y], on_report="return")
    assert {report.kind for report in launch.reports} == {"out-of-bounds"}
    report = launch.reports[0]
    assert (report.kernel, report.block, report.thread, report.count) == ("k", (0, 0, 0), (64, 0, 0), 32)
    assert report.ptx.startswith("ld.global.b32")
    with pytest.raises(emulator.EmulatorError) as error:
        copy.launch(1, 96, [x, y])
    assert error.value.reports == launch.reports
    with pytest.raises(ValueError, match="on_report"):
        copy.launch(1, 96, [x, y], on_report="ignore")
    with pytest.raises(RuntimeError, match="not one of ascending"):
        copy.launch(1, 96, [x, y], order="sideways")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_blocks_spread_over_cores(workers, ptx_entry):
    body = """
    .reg .b64 %x; .reg .b32 %b, %n, %t, %v;
    ld.param.u64 %x, [px]; mov.u32 %b, %ctaid.y; mov.u32 %n, %nctaid.x; mov.u32 %t, %ctaid.x; mad.lo.u32 %b, %b, %n, %t;
    mov.u32 %n, %ntid.x; mov.u32 %t, %tid.x; mad.lo.u32 %v, %b, %n, %t; mad.wide.u32 %x, %v, 4, %x;
    st.global.b32 [%x], %v;
    """
    kernel = emulator.Module(ptx_entry(body, ".param .u64 px")).kernel("k")
    for order in ("ascending", "descending", "random"):
        out = np.zeros(7 * 5 * 40, np.uint32)
        launch = kernel.launch((7, 5), 40, [out], workers=workers, order=order, seed=3)
        assert np.array_equal(out, np.arange(out.size))
        assert launch.counts.opcode("st.global").thread_instructions == out.size
        out[:] = 0
        kernel.launch((7, 5), 40, [out], workers=workers, order=order, seed=3, last_blocks=3)
        assert np.array_equal(out[-3 * 40 :], np.arange(out.size)[-3 * 40 :]) and not out[: -3 * 40].any()
