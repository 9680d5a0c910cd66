"""What a launch asked of the chip, by instruction, by opcode and in total."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Site:
    """Counts of one instruction of the kernel, or of several added up (then ``ptx_line`` is 0).

    A warp instruction is one issue for up to 32 threads; thread instructions leave out lanes that were predicated off.
    ``sectors`` are 32-byte pieces of global memory, each counted once a warp-wide request; ``bytes_moved`` are
    theirs, ``bytes_asked`` what the threads wanted. ``wavefronts`` are passes of shared memory's 32 banks of 4 bytes,
    ``ideal_wavefronts`` those without conflicts. Caches are not modelled.
    """

    opcode: str = ""
    ptx_line: int = 0
    source_file: str = ""
    source_line: int = 0
    warp_instructions: int = 0
    thread_instructions: int = 0
    requests: int = 0
    sectors: int = 0
    bytes_asked: int = 0
    bytes_moved: int = 0
    wavefronts: int = 0
    ideal_wavefronts: int = 0
    shared_bytes: int = 0


_LABELS = ("opcode", "ptx_line", "source_file", "source_line")
_NUMBERS = tuple(f.name for f in fields(Site) if f.name not in _LABELS)


def _sum(sites: Iterable[Site], opcode: str = "") -> Site:
    sites = list(sites)
    return Site(opcode=opcode, **{name: sum(getattr(site, name) for site in sites) for name in _NUMBERS})


class Counts:
    """All counts of one launch: ``sites`` in the order of the program, those executed at least once."""

    def __init__(self, sites: list[Site]) -> None:
        self.sites = sites

    @property
    def total(self) -> Site:
        """Everything added up."""
        return _sum(self.sites)

    def where(self, keep: Callable[[Site], bool]) -> Site:
        """The sum over the sites that ``keep`` wants."""
        return _sum(site for site in self.sites if keep(site))

    def opcode(self, prefix: str) -> Site:
        """The sum over opcodes that begin with ``prefix``: ``counts.opcode("mma").warp_instructions``."""
        return _sum((site for site in self.sites if site.opcode.startswith(prefix)), prefix)

    def by_opcode(self) -> dict[str, Site]:
        """One sum for each opcode, most issued first."""
        names = {site.opcode for site in self.sites}
        sums = [_sum((site for site in self.sites if site.opcode == name), name) for name in names]
        return {site.opcode: site for site in sorted(sums, key=lambda s: (-s.warp_instructions, s.opcode))}

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, for JSON: ``total``, ``opcodes``, ``sites``."""

        def numbers(site: Site) -> dict[str, int]:
            return {name: getattr(site, name) for name in _NUMBERS}

        return {
            "total": numbers(self.total),
            "opcodes": {name: numbers(site) for name, site in self.by_opcode().items()},
            "sites": [asdict(site) for site in self.sites],
        }
