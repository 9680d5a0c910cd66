"""SASS, the instructions that a chip really runs, as nvdisasm prints it: instructions, kinds, and the main loop.

What looks like something else: ``HFMA2.MMA R1, -RZ, RZ, 0, 0`` moves a constant and is no matrix instruction; ``@!PT``
never executes, but is issued like every predicated instruction; ``IMAD.MOV`` is a move in the multiplier's slot.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_INSTRUCTION = re.compile(r"/\*([0-9a-f]+)\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_TARGET = re.compile(r"`\((\.L_x_\d+)\)")
_REGISTERS = r"Function {kernel}:\s+REG:(\d+)"

_KINDS = (
    ("math", ("HMMA", "FFMA", "FFMA2", "DFMA")),
    ("operands", ("LDSM", "LDS")),
    ("copies", ("LDGSTS", "LDG", "STS")),
    ("stores", ("STG",)),
    ("local", ("LDL", "STL")),
    ("waits", ("BAR", "DEPBAR", "LDGDEPBAR", "WARPSYNC")),
    ("moves", ("MOV", "UMOV", "CS2R", "IMAD.MOV", "HFMA2.MMA", "R2UR", "S2R", "S2UR", "SEL", "USEL", "PRMT")),
    ("conversions", ("F2FP", "F2F", "HADD2.F32", "I2F", "F2I")),
    ("floats", ("FADD", "FMUL", "FMNMX", "FSEL", "FSETP", "HMNMX2", "VHMNMX", "HADD2", "HMUL2", "HFMA2", "DADD")),
    ("branches", ("BRA", "BSSY", "BSYNC", "CALL", "RET", "EXIT", "BRX", "BREAK", "NOP")),
    ("integers", ("",)),
)  # fmt: skip
"""Each instruction is of the first kind that has its name, or the beginning of its name up to a point."""

KINDS = tuple(kind for kind, _ in _KINDS)


@dataclass(frozen=True)
class Instruction:
    """One instruction: address, name with its modifiers, and what follows."""

    address: int
    name: str
    operands: str

    @property
    def kind(self) -> str:
        return next(kind for kind, names in _KINDS if any(self.is_a(name) for name in names))

    def is_a(self, name: str) -> bool:
        """Is it of that name: ``is_a("LDGSTS.E")`` holds for LDGSTS.E.BYPASS.128."""
        return not name or self.name == name or self.name.startswith(name + ".")


@dataclass(frozen=True)
class Code:
    """A kernel's instructions in order, labels' addresses, and registers of a thread."""

    instructions: Sequence[Instruction]
    labels: dict[str, int]
    registers: int

    def loops(self) -> list[list[Instruction]]:
        """What stands between the target of each backward branch and the branch."""
        found = []
        for branch in self.instructions:
            target = _TARGET.search(branch.operands) if branch.is_a("BRA") else None
            if target and self.labels.get(target[1], branch.address) < branch.address:
                first = self.labels[target[1]]
                found.append([i for i in self.instructions if first <= i.address <= branch.address])
        return found

    def main_loop(self) -> list[Instruction]:
        """The innermost loop that holds most of the math instructions; the whole kernel if no loop does.

        The whole loop counts, with its copies, waits and stores. A kernel may have the same loop in several forms, for
        operands that may be absent; then the shortest is taken, which is the one that has the fewest operands."""
        total = self.math(self.instructions)
        most = max(map(self.math, self.loops()), default=0)
        if 4 * most < total or not total:
            return list(self.instructions)
        return min((loop for loop in self.loops() if 2 * self.math(loop) >= most), key=len)

    def math(self, instructions: Sequence[Instruction]) -> int:
        """How many of them do the kernel's multiplications: on tensor cores if it uses these. FFMA2 counts for two."""
        names = ("HMMA",) if any(i.is_a("HMMA") for i in self.instructions) else ("FFMA", "FFMA2", "FFMA2", "DFMA")
        return sum(i.is_a(name) for i in instructions for name in names)

    def count(self, name: str) -> int:
        return sum(i.is_a(name) for i in self.instructions)

    def spilled_bytes(self) -> int:
        """Bytes of registers that a thread stores to local memory, each place in the code once."""
        widths = {"64": 8, "128": 16, "U16": 2, "U8": 1}
        return sum(
            next((widths[part] for part in i.name.split(".") if part in widths), 4)
            for i in self.instructions
            if i.is_a("STL")
        )


def by_kind(instructions: Sequence[Instruction]) -> dict[str, int]:
    counted = Counter(i.kind for i in instructions)
    return {kind: counted[kind] for kind in KINDS}


def parse(text: str, kernel: str) -> Code:
    """The code of the kernel of that mangled name in nvdisasm's output, behind which cuobjdump's says what it takes.
    Raises LookupError if it is not there."""
    start = text.find(f"\n.text.{kernel}:\n")
    if start < 0:
        raise LookupError(f"nvdisasm's output has no kernel {kernel}")
    end = min(
        at for at in (text.find("\n\t.section\t", start), text.find("\nResource usage", start), len(text)) if at > 0
    )
    usage = re.search(_REGISTERS.format(kernel=re.escape(kernel)), text)
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    waiting: list[str] = []
    for line in text[start:end].splitlines():
        if label := _LABEL.match(line):
            waiting.append(label[1])
        elif found := _INSTRUCTION.search(line):
            address = int(found[1], 16)
            labels |= dict.fromkeys(waiting, address)
            waiting = []
            instructions.append(Instruction(address, found[3], found[4]))
    while instructions and (instructions[-1].is_a("NOP") or instructions[-1].is_a("BRA")):
        instructions.pop()  # padding behind the end, and the branch to itself in front of it
    return Code(instructions, labels, int(usage[1]) if usage else 0)
