"""Modules, kernels and launches."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    import pyconvx._emulator as _emulator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the emulator's extension module pyconvx._emulator is not built: install pyconvx from source with "
        "PYCONVX_EMULATOR=ON in the environment"
    ) from error

from .compile import Ptx
from .counts import Counts, Site
from .memory import Memory, pointer_to
from .report import EmulatorError, Report

Extent = int | Sequence[int]

_FLOATS = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: PTX type name ("bytes" for a struct), offset and size in bytes."""

    name: str
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Struct:
    """A struct passed by value: a format of the module ``struct`` (native alignment) and its fields.

    A field "P" takes what a pointer parameter takes: ``Struct("PPi", x, y, 3)``.
    """

    format: str
    fields: tuple[Any, ...]

    def __init__(self, format: str, *fields: Any) -> None:
        object.__setattr__(self, "format", format)
        object.__setattr__(self, "fields", fields)


@dataclass(frozen=True)
class Launch:
    """What a launch left behind: ``counts``, and ``reports`` if it was told not to raise."""

    kernel: str
    counts: Counts
    reports: list[Report]


class Module:
    """A parsed PTX text. Raises RuntimeError, with the PTX line, for text that is not PTX."""

    def __init__(self, ptx: str | Ptx) -> None:
        self._names = ptx.names if isinstance(ptx, Ptx) else {}
        self._module = _emulator.Module(ptx.text if isinstance(ptx, Ptx) else ptx)

    @property
    def target(self) -> str:
        """The chip the PTX was made for: ``"sm_80"``."""
        return str(self._module.target)

    @property
    def kernels(self) -> list[str]:
        """The (mangled) names of all kernels."""
        return list(self._module.kernels)

    def kernel(self, name: str = "") -> Kernel:
        """The kernel of that name: as in the PTX, a name expression given to NVRTC, or a regular expression that one
        kernel's name contains. Raises LookupError if there is not exactly one, RuntimeError naming the instruction and
        its PTX line if the kernel has one that the emulator does not know."""
        exact = self._names.get(name, name)
        found = [exact] if exact in self.kernels else [k for k in self.kernels if re.search(name, k)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} kernels match {name!r}, expected one of: {', '.join(self.kernels)}")
        return Kernel(self._module.kernel(found[0]))

    def variable(self, name: str) -> np.ndarray:
        """The bytes of a __device__ or __constant__ variable, to read and to write. They live from launch to launch."""
        address, nbytes = self._module.variable(name)
        return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)


class Kernel:
    """A kernel ready to run."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.name: str = kernel.name
        self.parameters = [Parameter(*p) for p in kernel.parameters]
        self.static_shared_bytes: int = kernel.static_shared_bytes

    def launch(
        self,
        grid: Extent,
        block: Extent,
        args: Sequence[Any],
        *,
        shared_bytes: int = 0,
        check: bool = True,
        on_report: str = "raise",
        order: str = "ascending",
        seed: int = 0,
        workers: int | None = None,
        max_steps: int = 50_000_000,
        last_blocks: int | None = None,
    ) -> Launch:
        """Runs the kernel to its end.

        ``grid`` and ``block`` are one to three extents, x first; ``shared_bytes`` is the dynamic shared memory.
        ``args`` has one entry for each parameter: for a pointer a numpy array or CPU tensor (used in place), a
        :class:`Memory`, ``memory.at(offset)`` or None; for a number an int, float or bool; for a struct a
        :class:`Struct` or bytes.

        ``check=False`` leaves out races and uninitialised reads and keeps bounds and alignment. ``order`` of warps and
        blocks is "ascending", "descending" or "random" with ``seed``. Blocks run on ``workers`` cores, all of them
        unless given; one worker makes sums by atomics repeatable. A block ends with a report after ``max_steps`` warp
        instructions. ``last_blocks`` runs only so many, the last of the grid, as if the others were done: what is far
        from the start of a huge tensor is then tested in no time.

        Raises EmulatorError when there are reports, unless ``on_report="return"``; ValueError and TypeError for
        arguments that do not fit; RuntimeError for launches that the chip would refuse (threads, grid, shared memory).
        """
        if on_report not in ("raise", "return"):
            raise ValueError(f"on_report is {on_report!r}, expected 'raise' or 'return'")
        arguments = _Arguments(self)
        packed = arguments.pack(args)
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        reports, sites = self._kernel.launch(
            _extent(grid),
            _extent(block),
            shared_bytes,
            packed,
            arguments.buffers,
            check,
            order,
            seed,
            max_steps,
            workers,
            last_blocks or 0,
        )
        launch = Launch(self.name, Counts([Site(**site) for site in sites]), [Report(**report) for report in reports])
        if launch.reports and on_report == "raise":
            raise EmulatorError(launch)
        return launch

    def __repr__(self) -> str:
        return f"Kernel({self.name}, {len(self.parameters)} parameters)"


def _extent(extent: Extent) -> tuple[int, int, int]:
    values = [extent] if isinstance(extent, int) else [int(e) for e in extent]
    if not 1 <= len(values) <= 3:
        raise ValueError(f"got extents {values}, expected one to three: x, y, z")
    x, y, z = values + [1] * (3 - len(values))
    return x, y, z


class _Arguments:
    """Turns the arguments of a launch into the bytes of the parameter block, and collects the memory they point to."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.memories: list[Memory] = []
        self.buffers: list[tuple[str, int, int, bool, int]] = []

    def pack(self, args: Sequence[Any]) -> bytes:
        parameters = self.kernel.parameters
        if len(args) != len(parameters):
            names = ", ".join(f"{p.name}: {p.type}" for p in parameters)
            raise TypeError(f"{self.kernel.name} takes {len(parameters)} arguments ({names}), got {len(args)}")
        end = max((p.offset + p.nbytes for p in parameters), default=0)
        block = bytearray(end)
        for parameter, value in zip(parameters, args, strict=True):
            data = self._bytes(parameter, value)
            if len(data) != parameter.nbytes:
                raise TypeError(
                    f"{parameter.name} has {parameter.nbytes} bytes ({parameter.type}), "
                    f"got {len(data)} from {value!r:.80}"
                )
            block[parameter.offset : parameter.offset + parameter.nbytes] = data
        return bytes(block)

    def _bytes(self, parameter: Parameter, value: Any) -> bytes:
        address = self._address(value, parameter.name)
        if address is not None:
            return struct.pack("<Q", address)
        if value is None:
            return bytes(parameter.nbytes)
        if isinstance(value, bytes | bytearray):
            return bytes(value)
        if isinstance(value, Struct):
            fields = [value if (a := self._address(value, parameter.name)) is None else a for value in value.fields]
            return struct.pack(value.format, *(0 if field is None else field for field in fields))
        if isinstance(value, np.generic):
            value = value.item()
        if parameter.type in _FLOATS:
            return _FLOATS[parameter.type](value).tobytes()
        if isinstance(value, float):  # a parameter of type .b32 or .b64 says nothing about what it holds
            if parameter.nbytes not in (4, 8):
                raise TypeError(
                    f"{parameter.name} has {parameter.nbytes} bytes ({parameter.type}), got the float {value}"
                )
            return struct.pack("<f" if parameter.nbytes == 4 else "<d", value)
        bits = 8 * parameter.nbytes
        if not -(1 << (bits - 1)) <= int(value) < 1 << bits:
            raise ValueError(f"{parameter.name} has {bits} bits, got {value}")
        return (int(value) & ((1 << bits) - 1)).to_bytes(parameter.nbytes, "little")

    def _address(self, value: Any, name: str) -> int | None:
        pointer = pointer_to(value, name)
        if pointer is None:
            return None
        return int(_emulator.device_address(self._place(pointer.memory, name))) + pointer.offset

    def _place(self, memory: Memory, name: str) -> int:
        for index, placed in enumerate(self.memories):
            if (placed.address, placed.nbytes) == (memory.address, memory.nbytes):
                return index
            if placed.address < memory.address + memory.nbytes and memory.address < placed.address + placed.nbytes:
                raise ValueError(
                    f"{name} overlaps {placed.name or 'another argument'} in part: make one Memory of the whole and "
                    "pass memory.at(offset)"
                )
        self.memories.append(memory)
        marks = 0 if memory.written is None else memory.written.ctypes.data
        self.buffers.append((memory.name or name, memory.address, memory.nbytes, memory.read_only, marks))
        return len(self.memories) - 1
