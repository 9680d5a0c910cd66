"""What the compiler leaves of the kernels: gates on the instructions of their main loops, and how these are read."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace

import pytest

from pyconvx import _C, kernel_report, sass
from pyconvx.__main__ import main

slow = pytest.mark.skipif(not os.environ.get("PYCONVX_SLOW"), reason="takes minutes; set PYCONVX_SLOW=1 to run it")
compiled = pytest.mark.skipif(kernel_report.missing() is not None, reason=str(kernel_report.missing()))

SUBJECTS = {subject.name: subject for subject in kernel_report.CATALOGUE}

# Instructions of the main loop for each of its math instructions, on sm_80, at most. Stems and depthwise: the whole
# loop over tiles, with copies, bias, ReLU and stores. A kernel that is new takes one line here and one in CATALOGUE.
MOST_PER_MATH = {
    "3x3": 2.0,
    "3x3 128x64": 2.4,
    "3x3 64x64": 3.15,
    "1x7": 2.1,
    "1x9": 2.35,
    "7x1": 2.1,
    "small map": 2.2,
    "small map tf32": 2.2,
    "3x3 resident tf32": 2.0,
    "gather 3x3": 2.6,
    "gather 3x3 deep": 2.3,
    "1x1": 2.3,
    "gather 3x3 tf32": 2.6,
    "3x3 f32": 1.2,
    "gather f32": 1.3,
    "stem 7x7 stride 2": 2.2,
    "stem 7x7 stride 2, C = 3": 2.3,
    "stem 3x3 stride 2": 4.8,
    "depthwise 3x3": 130 / 72,
    "depthwise 3x3 stride 2": 172 / 72,
    "depthwise 5x5": 1.9,
    "depthwise 7x7": 1.8,
    "depthwise 7x7 stride 2": 1.9,
    "dgrad 3x3": 2.1,
    "dgrad 3x3 stride 2": 2.4,
    "dgrad 3x3 stride 2, 1x2": 2.4,
    "dgrad 3x3 stride 2, 2x1": 2.4,
    "dgrad 3x3 stride 2, 1x1": 2.4,
    "dgrad 3x3 masked": 2.1,
    "dgrad 3x3 bf16 masked": 2.1,
    "dgrad 3x3 stride 2 masked": 2.6,
    "dgrad 1x1 masked": 3.1,
    "dgrad small map masked": 2.8,
    "dgrad depthwise 3x3 masked": 2.1,
    "dgrad f32 masked": 1.2,
    "wgrad 3x3": 2.1,
    "wgrad 3x3 stride 2": 2.5,
    "wgrad 1x1": 2.1,
    "wgrad any window": 2.2,
    "wgrad any window deep": 2.1,
    "wgrad stem, C = 4": 3.1,
    "wgrad stem, C = 3": 4.9,
}
SLOW = {
    "3x3 128x64",
    "7x1",
    "small map tf32",
    "3x3 resident tf32",
    "gather 3x3 deep",
    "stem 7x7 stride 2, C = 3",
    "depthwise 5x5",
    "depthwise 7x7 stride 2",
    "dgrad 3x3 bf16 masked",
    "dgrad 3x3 stride 2 masked",
    "dgrad small map masked",
}  # whose like is here already

# On the chips that are most unlike an A100: one of each kind.
OTHER_CHIPS = [
    *((name, 90) for name in ("3x3", "gather f32", "depthwise 3x3")),
    *((name, 120) for name in ("3x3", "3x3 f32", "gather f32", "depthwise 3x3", "depthwise 7x7")),
]


# Kernels of tensor cores for aligned tensors: of wgrad, those for whose gradients and inputs that holds.
COPIES_BY_16_BYTES = re.compile(
    r"(fprop_(tensor_core|resident_patch|small_map)<.*, 16|wgrad_(tensor_core|patch|ffma)<.*, 16, 16)(, (true|false))*>"
)


def check(figures):
    """What holds for every kernel on every chip."""
    assert figures.local == 0, f"{figures.kernel} spills {figures.spilled_bytes} bytes, some of them in its main loop"
    assert 0 < figures.registers <= 255
    assert figures.blocks_per_sm >= 1
    assert figures.math > 0 and sum(figures.loop.values()) == figures.instructions
    if COPIES_BY_16_BYTES.search(figures.kernel):
        assert figures.copies, figures.kernel
        for name in figures.copies:
            assert "BYPASS" in name and name.endswith(".128"), f"{figures.kernel} copies by {name}"


@compiled
@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) if n in SLOW else n for n in MOST_PER_MATH])
def test_instructions_of_the_main_loop(name):
    figures = kernel_report.figures(SUBJECTS[name], 80)
    check(figures)
    assert figures.per_math <= MOST_PER_MATH[name], f"{figures.instructions} for {figures.math}: {figures.loop}"


@compiled
def test_wgrad_with_its_tables_of_pixels():
    """A table is made for every 128 pixels, around the main loop over their slices."""
    figures = SUBJECTS["wgrad any window"]
    code = kernel_report.disassemble(figures.plan().launches[0], 80)
    loop = code.main_loop()
    around = min((other for other in code.loops() if len(other) > len(loop)), key=len)
    slices = 128 // 32
    assert {i.address for i in loop} < {i.address for i in around}
    assert len(loop) * slices + len(around) - len(loop) <= 2.5 * slices * code.math(loop)


@compiled
def test_all_parts_of_a_strided_dgrad_together():
    """Of the nine taps of 3 x 3, four are in one part, twice two in another, and one in the last."""
    parts = ["dgrad 3x3 stride 2", *(f"dgrad 3x3 stride 2, {taps}" for taps in ("1x2", "2x1", "1x1"))]
    figures = [kernel_report.figures(SUBJECTS[name], 80).per_math for name in parts]
    assert sum(taps * each for taps, each in zip((4, 2, 2, 1), figures, strict=True)) / 9 <= 2.2


@compiled
@pytest.mark.parametrize("name, arch", OTHER_CHIPS)
def test_other_chips(name, arch):
    check(kernel_report.figures(SUBJECTS[name], arch))


@compiled
@slow
@pytest.mark.parametrize("arch", kernel_report.ARCHITECTURES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_kernel_on_every_chip(name, arch):
    check(kernel_report.figures(SUBJECTS[name], arch))


# Planes that are pooled and unpooled through rows in shared memory: as many registers as leave an SM four blocks.


def rows_kernels():
    """Launches by name: the common windows, and float64 of any window, which has most to keep."""
    found = {}
    for name, dtype, size, stride in (("2x2", "bfloat16", 2, 2), ("3x3", "bfloat16", 3, 2), ("any", "float64", 5, 5)):
        fields = dict(
            n=8, c=64, h=55, w=55, r=size, s=size, stride=(stride, stride), dtype=getattr(_C.DType, dtype),
            layout=_C.Layout.nchw, index=_C.IndexType.uint8,
        )  # fmt: skip
        pooling = _C.Pool2dProblem(**fields, activation=_C.Activation.relu)
        plans = {"pool": _C.plan_max_pool2d(pooling, "a100"), "gradient": _C.plan_max_pool2d_backward(pooling, "a100")}
        if size == stride:
            unpooling = _C.Unpool2dProblem(**fields, p=pooling.p, q=pooling.q)
            plans["unpool"] = _C.plan_max_unpool2d(unpooling, "a100")
            plans["unpool gradient"] = _C.plan_max_unpool2d_backward(unpooling, "a100")
        found.update({f"{what} {name}": plan.launches[0] for what, plan in plans.items()})
    nearest = _C.NearestUnpool2dProblem(
        n=8, c=64, p=28, q=28, scale=(2, 2), dtype=_C.DType.bfloat16, layout=_C.Layout.nchw
    )
    return {**found, "nearest gradient": _C.plan_nearest_unpool2d_backward(nearest, "a100").launches[0]}


@compiled
@pytest.mark.parametrize("arch", [80, *(pytest.param(arch, marks=slow) for arch in (90, 120))])
@pytest.mark.parametrize("name", rows_kernels())
def test_rows_of_planes_spill_nothing(name, arch):
    launch = rows_kernels()[name]
    assert "_rows" in launch.kernel
    code = kernel_report.disassemble(launch, arch)
    assert code.spilled_bytes() == 0 and not any(i.is_a("LDL") or i.is_a("STL") for i in code.instructions)
    assert code.registers <= 64


MEMORY_BOUND = sorted(
    (kernel.header, kernel.name)
    for kernel in _C.ahead_of_time_kernels() if kernel.header.startswith(("pool/", "residual/"))
)  # fmt: skip


@compiled
@slow
@pytest.mark.parametrize("arch", (80, 90, 120))
def test_pooling_and_adding_ahead_of_time_spill_nothing(arch):
    for header, name in MEMORY_BOUND:
        launch = SimpleNamespace(kernel=name, header=header, constants={}, block=256, shared_bytes=0)
        code = kernel_report.disassemble(launch, arch)
        assert not any(i.is_a("LDL") or i.is_a("STL") for i in code.instructions), (name, arch)


# How SASS is read.

HEADER = """
\t.section\t.text.{name},"ax",@progbits
.text.{name}:
"""
CODE = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   STL [R1+0x4], R2 ;
        /*0020*/                   STL.64 [R1+0x8], R2 ;
.L_x_0:
        /*0030*/                   LDSM.16.M88.4 R4, [R3] ;
.L_x_1:
        /*0040*/                   HMMA.16816.F32 R8, R4, R6, R8 ;
        /*0050*/                   HMMA.16816.F32 R8, R4, R6, R8 ;
        /*0060*/                   HFMA2.MMA R9, -RZ, RZ, 0, 0 ;
        /*0070*/              @!PT LDS RZ, [RZ] ;
        /*0080*/                   LDGSTS.E.BYPASS.128 [R5], [R2.64], P0 ;
        /*0090*/               @P2 BRA `(.L_x_1) ;
        /*00a0*/                   HMMA.16816.F32 R8, R4, R6, R8 ;
        /*00b0*/                   FFMA R0, R1, R2, R3 ;
        /*00c0*/              @!P0 BRA `(.L_x_0) ;
        /*00d0*/                   EXIT ;
.L_x_2:
        /*00e0*/                   BRA `(.L_x_2);
        /*00f0*/                   NOP;

Resource usage:
 Function other:
  REG:24 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:616
 Function kernel:
  REG:42 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:616
"""


@pytest.fixture
def code():
    other = HEADER.format(name="other") + "        /*0000*/                   HMMA.16816.F32 R8, R4, R6, R8 ;\n"
    return sass.parse(other + HEADER.format(name="kernel") + CODE, "kernel")


def test_a_kernel_is_read_alone_and_to_its_end(code):
    assert code.registers == 42
    assert len(code.instructions) == 14
    assert code.instructions[-1].name == "EXIT"
    with pytest.raises(LookupError, match="no kernel missing"):
        sass.parse(HEADER.format(name="kernel") + CODE, "missing")


def test_the_main_loop_is_the_innermost_that_holds_most_math(code):
    assert [len(loop) for loop in code.loops()] == [6, 10]
    loop = code.main_loop()
    assert [i.address for i in loop] == [0x40, 0x50, 0x60, 0x70, 0x80, 0x90]
    assert code.math(loop) == 2


def test_without_a_loop_the_whole_kernel_counts():
    straight = "\n".join(line for line in CODE.splitlines() if "@" not in line)
    code = sass.parse(HEADER.format(name="kernel") + straight, "kernel")
    assert code.main_loop() == code.instructions


def test_instructions_that_look_like_others(code):
    kinds = {i.address: i.kind for i in code.instructions}
    assert kinds[0x40] == "math" and kinds[0x60] == "moves"
    assert kinds[0x30] == kinds[0x70] == "operands" and kinds[0x80] == "copies"
    assert code.math(code.instructions) == 3  # FFMA is an epilogue's where there are tensor cores
    assert code.spilled_bytes() == 12


def test_resident_blocks():
    assert kernel_report.resident_blocks(80, 128, 254, 64 << 10) == 2
    assert kernel_report.resident_blocks(80, 128, 128, 20 << 10) == 4
    assert kernel_report.resident_blocks(89, 128, 254, 64 << 10) == 1
    assert kernel_report.resident_blocks(80, 256, 129, 0) == 1
    assert kernel_report.resident_blocks(120, 1024, 32, 0) == 1


# The command line.


@compiled
def test_report(capsys):
    assert main(["kernels", "report", "f64", "--arch", "80"]) == 0
    said = capsys.readouterr().out
    assert "fprop_plain" in said and "n / math" in said and "nothing here was timed" in said


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["nothing"], "no kernel has nothing in its name; there are 3x3, 3x3 large, "),
        (["--arch", "70"], "not compiled for sm_70; they are for 80, 86"),
        (["--shape", "c=64,x=3"], "'x=3' is no part of a shape; write it like n=8,c=64"),
        (["--shape", "c=64,stride=0"], "stride must be at least 1"),
        (["--shape", "c=64", "--tile", "3x3x3"], "no tile 3x3x3"),
    ],
)
def test_refusals_are_sentences(arguments, sentence, capsys):
    assert main(["kernels", "report", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_without_the_tools_a_sentence_says_so(monkeypatch, capsys):
    from pyconvx.emulator import compile

    monkeypatch.setattr(compile, "sass_missing", lambda: "nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    assert main(["kernels", "report", "--arch", "80"]) == 2
    assert "kernels report: nvdisasm is not installed: pip install" in capsys.readouterr().err
