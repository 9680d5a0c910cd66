"""What the compiler makes of a CUDA kernel of ours for a chip: ``pyconvx kernels report``.

Kernels are compiled by NVRTC, with the assembler in it, as the plan names them, and read with nvdisasm. What stands
there says how many instructions a chip issues; not how long they take, nor how often they wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import _C, sass
from ._problem import DTYPES, LAYOUTS
from .errors import InvalidCall
from .table import Table

ARCHITECTURES = (80, 86, 89, 90, 100, 120)

_LIMITS = {
    75: (64, 1024, 16), 80: (164, 2048, 32), 86: (100, 1536, 16), 89: (100, 1536, 24), 90: (228, 2048, 32),
    100: (228, 2048, 32), 120: (100, 1536, 24),
}  # fmt: skip
"""Of one SM: KB of shared memory, threads, blocks."""

_LETTERS = {"n": 1, "c": 64, "h": 56, "w": None, "k": 64, "r": 3, "s": None, "stride": 1, "padding": None,
            "dilation": 1, "groups": 1}  # fmt: skip
"""What a shape is written with, and what is left out of it: w is h, s is r, and the padding half a filter."""

_PASSES = {"conv2d": _C.Pass.fprop, "conv2d_dgrad": _C.Pass.dgrad, "conv2d_wgrad": _C.Pass.wgrad}
_HELPERS = ("transpose", "relu_backward", "dgrad_filter", "fill", "wgrad_sum")
"""Kernels that only bring tensors into another form, or add up what others have computed."""


@dataclass(frozen=True)
class Subject:
    """A kernel to report on: that which runs a convolution in one of the plan's tiles (the best if none is named)."""

    name: str
    shape: str
    tile: str = ""
    dtype: torch.dtype = torch.float16
    tf32: bool = False
    operation: str = "conv2d"
    masked: bool = False
    """A gradient that the output of a ReLU masks as it is loaded."""
    part: int = 0
    """Which of the kernels that compute: a strided dgrad has one for each class of taps."""

    def plan(self, device: str = "a100") -> Any:
        problem = problem_of(self.shape, self.dtype, pass_=_PASSES[self.operation], masked=self.masked)
        try:
            return getattr(_C, f"plan_{self.operation}")(problem, device, tf32=self.tf32, tile=self.tile)
        except ValueError as refused:
            raise InvalidCall(f"kernels: {refused}") from None


F32, BF16 = torch.float32, torch.bfloat16
CATALOGUE = (
    # The resident patch: windows of stride 1.
    Subject("3x3", "c=64,k=128", "128x128x32"),
    Subject("3x3 large", "c=64,k=128", "256x128x32"),
    Subject("3x3 128x64", "c=64,k=64", "128x64x32"),
    Subject("3x3 64x64", "c=64,k=64", "64x64x32"),
    Subject("3x3 bf16", "c=64,k=128", "128x128x32", BF16),
    Subject("3x3 tf32", "c=64,k=128", "128x128x16", F32, True),
    Subject("3x3 f32", "c=64,k=128", "128x128x16", F32),
    Subject("1x7", "c=64,k=128,r=1,s=7,h=17", "128x128x32"),
    Subject("7x1", "c=64,k=128,r=7,s=1,h=17", "128x128x32"),
    Subject("1x9", "c=64,k=128,r=1,s=9,h=17", "128x128x32"),
    Subject("small map", "c=512,k=512,h=7", "64x64x64"),
    Subject("small map tf32", "c=512,k=512,h=7", "64x64x32", F32, True),
    Subject("3x3 resident tf32", "c=64,k=128", "128x128x16", F32, True),
    # The gather: other strides, and 1x1.
    Subject("gather 3x3", "c=64,k=128,stride=2", "128x128x32"),
    Subject("gather 3x3 deep", "c=64,k=128,stride=2", "128x128x64"),
    Subject("gather 3x3 wide", "c=64,k=256,stride=2", "128x256x32"),
    Subject("gather 3x3 small", "c=64,k=128,stride=2", "64x64x64"),
    Subject("gather 3x3 tf32", "c=64,k=128,stride=2", "128x128x16", F32, True),
    Subject("1x1", "c=64,k=128,r=1", "128x128x32"),
    Subject("1x1 deep", "c=64,k=128,r=1", "128x128x64"),
    Subject("gather f32", "c=64,k=128,stride=2", "128x128x8", F32),
    Subject("stem 7x7 stride 2", "c=4,h=224,k=64,r=7,stride=2", "16x16x64"),
    Subject("stem 7x7 stride 2, C = 3", "c=3,h=224,k=64,r=7,stride=2", "16x16x64"),
    Subject("stem 3x3 stride 2", "c=4,h=224,k=64,r=3,stride=2", "16x16x64"),
    Subject("depthwise 3x3", "c=64,k=64,groups=64", "16x16x32"),
    Subject("depthwise 3x3 stride 2", "c=64,k=64,groups=64,stride=2", "8x16x32"),
    Subject("depthwise 5x5", "c=64,k=64,r=5,groups=64", "16x16x32"),
    Subject("depthwise 7x7", "c=64,k=64,r=7,groups=64", "16x16x32"),
    Subject("depthwise 7x7 stride 2", "c=64,k=64,r=7,groups=64,stride=2", "8x8x32"),
    Subject("f64", "c=64,k=64", "", torch.float64),
    # The gradients. A strided one of the input has four parts, of 2x2, 2x1, 1x2 taps and of one.
    Subject("dgrad 3x3", "c=128,k=64", "128x128x32", operation="conv2d_dgrad"),
    Subject("dgrad 3x3 stride 2", "c=128,k=64,stride=2", "128x128x32", operation="conv2d_dgrad"),
    *(
        Subject(f"dgrad 3x3 stride 2, {taps}", "c=128,k=64,stride=2", "128x128x32", operation="conv2d_dgrad", part=part)
        for part, taps in ((1, "1x2"), (2, "2x1"), (3, "1x1"))
    ),
    Subject("dgrad 3x3 masked", "c=128,k=64", "128x128x32", operation="conv2d_dgrad", masked=True),
    Subject("dgrad 3x3 bf16 masked", "c=128,k=64", "128x128x32", BF16, operation="conv2d_dgrad", masked=True),
    Subject("dgrad 3x3 stride 2 masked", "c=128,k=64,stride=2", "128x128x32", operation="conv2d_dgrad", masked=True),
    Subject("dgrad 1x1", "c=128,k=64,r=1", "128x128x32", operation="conv2d_dgrad"),
    Subject("dgrad 1x1 masked", "c=128,k=64,r=1", "128x128x32", operation="conv2d_dgrad", masked=True),
    Subject("dgrad depthwise 3x3 masked", "c=64,k=64,groups=64", "16x16x32", operation="conv2d_dgrad", masked=True),
    Subject("dgrad small map masked", "c=512,k=512,h=7", "64x64x64", operation="conv2d_dgrad", masked=True),
    Subject("dgrad f32 masked", "c=128,k=64", "128x64x16", F32, operation="conv2d_dgrad", masked=True),
    Subject("wgrad 3x3", "c=64,k=64", operation="conv2d_wgrad"),
    Subject("wgrad 3x3 stride 2", "c=64,k=64,stride=2", operation="conv2d_wgrad"),
    Subject("wgrad 1x1", "c=128,k=128,r=1", "128x128x64", operation="conv2d_wgrad"),
    Subject("wgrad any window", "c=64,k=128,r=1,s=7,h=17", "128x128x32", operation="conv2d_wgrad"),
    Subject("wgrad any window deep", "c=64,k=128,r=1,s=7,h=17", "128x128x64", operation="conv2d_wgrad"),
    Subject("wgrad stem, C = 4", "c=4,h=224,k=64,r=7,stride=2", "64x128x32", operation="conv2d_wgrad"),
    Subject("wgrad stem, C = 3", "c=3,h=224,k=64,r=7,stride=2", "64x128x32", operation="conv2d_wgrad"),
    Subject("wgrad any window tf32", "c=64,k=128,r=1,s=7,h=17", "128x128x16", F32, True, operation="conv2d_wgrad"),
    Subject("wgrad tf32", "c=128,k=128,r=1", "128x128x16", F32, True, operation="conv2d_wgrad"),
    Subject("wgrad f32", "c=128,k=128,r=1", "128x128x8", F32, operation="conv2d_wgrad"),
    Subject("wgrad depthwise 3x3", "c=64,k=64,groups=64", operation="conv2d_wgrad"),
)
"""One of each kind of kernel, on problems that the networks have."""


def problem_of(
    shape: str,
    dtype: torch.dtype = torch.float16,
    layout: torch.memory_format = torch.channels_last,
    pass_: _C.Pass = _C.Pass.fprop,
    masked: bool = False,
) -> Any:
    """The convolution that a shape describes: ``"n=8,c=64,h=56,k=64,r=3"``.

    Raises:
        InvalidCall: the text is no shape, or its geometry makes no sense; says why.
    """
    given: dict[str, Any] = dict(_LETTERS)
    for part in filter(None, shape.replace(" ", "").split(",")):
        letter, _, size = part.partition("=")
        if letter not in _LETTERS or not re.fullmatch(r"\d+", size):
            raise InvalidCall(f"{part!r} is no part of a shape; write it like n=8,c=64,h=56,k=64,r=3, with {known()}")
        given[letter] = int(size)
    for letter, twin in (("w", "h"), ("s", "r")):
        given[letter] = given[twin] if given[letter] is None else given[letter]
    stride, pad, dilation = given.pop("stride"), given.pop("padding"), given.pop("dilation")
    top, left = (given["r"] // 2, given["s"] // 2) if pad is None else (pad, pad)
    problem = _C.Conv2dProblem(
        **given, stride=(stride, stride), padding=(top, top, left, left), dilation=(dilation, dilation),
        dtype=DTYPES[dtype], layout=LAYOUTS[layout], pass_=pass_, masked=masked,
    )  # fmt: skip
    if refusal := problem.refusal():
        raise InvalidCall(refusal)
    return problem


def known() -> str:
    return ", ".join(_LETTERS)


def subjects(only: Iterable[str] = (), shape: str | None = None, tile: str = "", dtype: torch.dtype = torch.float16,
             tf32: bool = False) -> list[Subject]:  # fmt: skip
    """The catalogue, or a shape's kernel in its best tile, in the one named, or in ``"all"``. ``only``: those whose
    name or kernel has one of the words in it."""
    found = list(CATALOGUE)
    if shape is not None:
        tiles = [tile]
        if tile == "all":
            tiles = [c.tile for c in Subject(shape, shape, "", dtype, tf32).plan().candidates] or [""]
        found = [Subject(shape, shape, tile, dtype, tf32) for tile in tiles]
    words = list(only)
    return [
        s for s in found if not words or any(word in f"{s.name} {_main(s.plan(), s.part).kernel}" for word in words)
    ]


@dataclass(frozen=True)
class Figures:
    """What a kernel is on one architecture."""

    subject: Subject
    kernel: str
    family: str
    tile: str
    arch: int
    registers: int
    shared_bytes: int
    spilled_bytes: int
    local: int  # loads and stores of local memory in the main loop
    blocks_per_sm: int
    loop: dict[str, int]  # instructions of the main loop, by kind
    instructions: int  # of the main loop
    math: int  # likewise
    headroom: float | None
    copies: dict[str, int]  # copies to shared memory in the whole kernel, by name

    @property
    def per_math(self) -> float:
        """Instructions of the main loop for each of its math instructions."""
        return self.instructions / self.math if self.math else float("nan")


def figures(subject: Subject, arch: int) -> Figures:
    """Compile and read.

    Raises:
        InvalidCall: the compiler or the disassembler is not there, or no kernel runs the problem; says why.
    """
    plan = subject.plan()
    launch = _main(plan, subject.part)
    code = disassemble(launch, arch)
    loop = code.main_loop()
    math = code.math(loop)
    copies: dict[str, int] = {}
    for i in code.instructions:
        if i.is_a("LDGSTS"):
            copies[i.name] = copies.get(i.name, 0) + 1
    slots = None if code.count("DFMA") else _slots(arch, code.count("HMMA") > 0)
    return Figures(
        subject=subject,
        kernel=launch.kernel,
        family=plan.family,
        tile=plan.tile,
        arch=arch,
        registers=code.registers,
        shared_bytes=launch.shared_bytes,
        spilled_bytes=code.spilled_bytes(),
        local=sum(i.is_a("LDL") or i.is_a("STL") for i in loop),
        blocks_per_sm=resident_blocks(arch, launch.block, code.registers, launch.shared_bytes),
        loop=sass.by_kind(loop),
        instructions=len(loop),
        math=math,
        headroom=slots * math / len(loop) if slots and math else None,
        copies=copies,
    )


def disassemble(launch: Any, arch: int) -> sass.Code:
    """The code that NVRTC makes of a plan's launch for an architecture."""
    from .backends._compiled import options, source

    flags = options(launch, exact=False)
    text = _compiler().sass(source(launch), target=f"sm_{arch}", options=flags, names=[launch.kernel])
    return sass.parse(text.text, text.names[launch.kernel])


def missing() -> str | None:
    """Why kernels cannot be compiled and read here, or None."""
    try:
        return str(why) if (why := _compiler().sass_missing()) else None
    except InvalidCall as error:
        return str(error)


def report(subjects: Sequence[Subject], architectures: Sequence[int]) -> Table:
    """One row for each kernel and architecture."""
    if why := missing():
        raise InvalidCall(f"kernels report: {why}")
    columns = ("kernel", "family", "tile", "sm", "registers", "shared", "spilled", "blocks", "n", "math", "n / math",
               "headroom", *sass.KINDS[1:])  # fmt: skip
    table = Table("Kernels as the compiler leaves them, and their main loops", columns)
    for subject in subjects:
        for arch in architectures:
            f = figures(subject, arch)
            table.rows.append(
                (subject.name, f.family, f.tile, arch, f.registers, f.shared_bytes, f.spilled_bytes, f.blocks_per_sm,
                 f.instructions, f.math, round(f.per_math, 3), f.headroom and round(f.headroom, 2),
                 *list(f.loop.values())[1:])
            )  # fmt: skip
    table.notes = [
        "shared: bytes of a block; spilled: bytes a thread puts into local memory; blocks: resident on an SM; n: "
        "instructions of the innermost loop that holds most math, of the whole kernel if no loop does.",
        "math: HMMA, FFMA or DFMA; headroom: the issue slots that the math pipe takes for n's math instructions, over "
        "n; below 1 the loop is bound by issuing.",
        "Counted in the compiler's output; nothing here was timed, and latencies and clocks do not show.",
    ]
    return table


def resident_blocks(arch: int, threads: int, registers: int, shared: int) -> int:
    """How many blocks an SM holds. Registers are given out to warps, in a quarter of the SM each."""
    kilobytes, most_threads, most_blocks = _LIMITS[arch]
    warps = -(-threads // 32)
    by_registers = 4 * (16384 // (-(-max(registers, 1) // 8) * 8 * 32)) // warps
    by_shared = (kilobytes << 10) // (-(-(shared + 1024) // 128) * 128)
    return min(by_registers, by_shared, most_threads // (32 * warps), most_blocks)


def _slots(arch: int, tensor_cores: bool) -> float | None:
    """Issue slots for which one math instruction keeps its pipe busy, of the first chip described that has it."""
    for device in _C.devices():
        if device.capability == arch:
            return float(device.slots_per_hmma if tensor_cores else 128 / device.ffma_per_clock)
    return None


def _main(plan: Any, part: int = 0) -> Any:
    """One of the launches that compute."""
    return [launch for launch in plan.launches if not any(helper in launch.kernel for helper in _HELPERS)][part]


def _compiler() -> Any:
    try:
        from .emulator import compile
    except ModuleNotFoundError as error:
        raise InvalidCall(str(error)) from None
    return compile
