"""What the checker found, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .launch import Launch


@dataclass(frozen=True)
class Report:
    """One kind of fault at one instruction: where it happened first, and how often.

    ``kind`` is one of shared-race, warp-race, block-race, uninitialised-shared, -local, -global, -register,
    unfinished-copy, abandoned-copy, bad-copy, out-of-bounds, misaligned, read-only, barrier-divergence, barrier-count,
    missing-lanes, deadlock, step-limit, trap.
    """

    kind: str
    count: int
    kernel: str
    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    ptx_line: int
    ptx: str
    source_file: str  # empty without -lineinfo
    source_line: int
    message: str

    def __str__(self) -> str:
        source = f", {self.source_file}:{self.source_line}" if self.source_line else ""
        times = f" ({self.count} times)" if self.count > 1 else ""
        return (
            f"{self.kind}: {self.kernel}, block {self.block}, thread {self.thread}{times}: {self.message}\n"
            f"    PTX line {self.ptx_line}{source}: {self.ptx}"
        )


class EmulatorError(RuntimeError):
    """The checker found faults: ``reports`` lists them, ``launch`` has the counts up to then."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.reports = launch.reports
        shown = "\n".join(str(report) for report in self.reports[:10])
        more = f"\nand {len(self.reports) - 10} more" if len(self.reports) > 10 else ""
        super().__init__(f"{launch.kernel}: the checker found {len(self.reports)} fault(s)\n{shown}{more}")
