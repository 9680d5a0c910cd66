"""Device memory of a launch: host memory that the kernel uses in place, with bounds."""

from __future__ import annotations

import math
import mmap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike


class Pointer(NamedTuple):
    """An address inside a :class:`Memory`, ``offset`` bytes from its start."""

    memory: Memory
    offset: int


class Memory:
    """An allocation that kernels can point into.

    ``source`` is a C-contiguous numpy array, a CPU tensor (anything with ``untyped_storage()``: the bounds are those of
    its storage), or a pair (address, number of bytes). It must stay alive as long as the Memory, which keeps a
    reference to an array or tensor.

    ``uninitialised=True`` declares an output: reading a byte before a kernel wrote it is reported, and
    :meth:`unwritten` says afterwards what is still missing. The marks last from launch to launch.
    """

    def __init__(self, source: Any, *, name: str = "", uninitialised: bool = False) -> None:
        self.name = name
        self.read_only = False
        self._keep_alive = source
        if isinstance(source, np.ndarray):
            if not source.flags.c_contiguous:
                raise ValueError(
                    f"got an array of shape {source.shape} with strides {source.strides}; device memory must be "
                    "C-contiguous: pass numpy.ascontiguousarray(array), or the array it is a view of"
                )
            self.address, self.nbytes, self.read_only = source.ctypes.data, source.nbytes, not source.flags.writeable
        elif hasattr(source, "untyped_storage"):
            storage = source.untyped_storage()
            self.address, self.nbytes = storage.data_ptr(), storage.nbytes()
        else:
            self.address, self.nbytes = (int(number) for number in source)
        self.written = np.zeros(self.nbytes, np.uint8) if uninitialised else None

    def at(self, offset: int) -> Pointer:
        """The address ``offset`` bytes from the start, as an argument of a launch."""
        return Pointer(self, offset)

    def unwritten(self) -> int:
        """How many bytes no kernel has written. Raises ValueError if the memory was not declared uninitialised."""
        if self.written is None:
            raise ValueError(
                "the memory counts as written: make it with Memory(..., uninitialised=True) to ask for this"
            )
        return int(self.nbytes - np.count_nonzero(self.written))

    def __repr__(self) -> str:
        return f"Memory({self.name or hex(self.address)}, {self.nbytes} bytes)"


def pointer_to(source: Any, name: str) -> Pointer | None:
    """The pointer an argument stands for, or None if it is no memory."""
    if isinstance(source, Pointer):
        return source
    if isinstance(source, Memory):
        return source.at(0)
    if isinstance(source, np.ndarray):
        return Memory(source, name=name).at(0)
    if hasattr(source, "untyped_storage"):
        memory = Memory(source, name=name)
        return memory.at(source.data_ptr() - memory.address)
    return None


def sparse(shape: int | tuple[int, ...], dtype: DTypeLike = np.uint8) -> np.ndarray:
    """Zeros that take memory only where they are touched, in pages of 4 KiB: for tensors larger than the machine.

    ``sparse((2**31 + 8,), np.float16)`` reserves addresses for 4 GiB and uses none of it yet.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    pages = mmap.mmap(-1, max(count * dtype.itemsize, 1), flags=flags)
    return np.frombuffer(pages, dtype, count).reshape(shape)
