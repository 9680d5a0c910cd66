"""Backend ``emulator``: CPU tensors, by the CUDA kernels of kernels/cuda.

NVRTC compiles the kernel that the plan names to PTX, and the PTX machine of csrc/emulator runs it with the grid, the
block, the shared memory and the arguments that a GPU would get, checking every access; any report is an error. It is
for testing kernels and for reading what they do, never for speed, and runs only where it is asked for by name.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _C
from ._compiled import options as compile_options
from ._compiled import source
from ._planned import Planned

DEVICE = "a100"
"""The chip that launches are planned for."""


class Emulator(Planned):
    name = "emulator"
    summary = "the CUDA kernels' PTX, run and checked on the host"
    devices = frozenset({"cpu"})
    by_request = True

    def unavailable(self) -> str | None:
        return _missing()

    def details(self) -> dict[str, str]:
        return {"plans for": DEVICE}

    def chip(self, device: torch.device) -> Any:
        return DEVICE

    def address(self, tensor: Tensor) -> int:
        return int(tensor.storage_offset()) * tensor.element_size()  # storages begin at multiples of more than 16 bytes

    def run(self, plan: Any, tensors: dict[str, Tensor]) -> None:
        run(plan, tensors)


def run(
    plan: Any,
    tensors: dict[str, Tensor],
    *,
    target: str | None = None,
    headers: Path | None = None,
    exact: bool = False,
    kernel: Callable[[Any], Any] | None = None,
    **options: Any,
) -> list[Any]:
    """Run a plan's launches in order on tensors in host memory, and return what each left behind.

    Args:
        plan: of ``pyconvx._C``.
        tensors: the operation's, by the names that the plan gives them; one that is left out is null.
        target: the architecture that the kernels are compiled for, such as ``"sm_80"``; that of the chip if None.
        headers: the folder of the CUDA headers; that of the library if None.
        exact: compile for the plan's problem alone, as backend ``cupy`` does, rather than for all problems.
        kernel: gives the compiled kernel of a launch; by NVRTC if None.
        options: of ``Kernel.launch``: order, seed, check, workers.

    Raises:
        EmulatorError: the checker has something to report.
    """
    from .. import emulator

    if target is None:
        target = f"sm_{next(device.capability for device in _C.devices() if device.name == DEVICE)}"
    buffers = {name: emulator.pointer_to(tensor, name) for name, tensor in tensors.items()}
    for name, nbytes in plan.workspaces.items():
        space = torch.empty(nbytes, dtype=torch.uint8, device="cpu")
        buffers[name] = emulator.Memory(space, name=name, uninitialised=True).at(0)
    launches = []
    for step in plan.launches:
        if kernel is None:
            flags = compile_options(step, exact=exact, headers=headers)
            compiled = _compiled(source(step), flags, step.kernel, target)
        else:
            compiled = kernel(step)
        arguments = _arguments(step, buffers)
        launches.append(compiled.launch(step.grid, step.block, [arguments], shared_bytes=step.shared_bytes, **options))
    return launches


def _arguments(step: Any, buffers: dict[str, Any]) -> Any:
    """Return the launch's one parameter, with the buffers' addresses in their places."""
    from .. import emulator

    blank = step.arguments()
    format, fields, at = "", [], 0
    for slot in sorted(step.pointers, key=lambda slot: slot.at):
        format += f"{slot.at - at}sP"
        start = buffers.get(slot.buffer)
        fields += [blank[at : slot.at], start and start.memory.at(start.offset + slot.skip)]
        at = slot.at + 8
    return emulator.Struct(f"{format}{len(blank) - at}s", *fields, blank[at:])


@functools.lru_cache(maxsize=256)
def _compiled(source: str, options: tuple[str, ...], kernel: str, target: str) -> Any:
    from .. import emulator
    from ..emulator import compile

    return emulator.Module(compile.nvrtc(source, target=target, options=options, names=[kernel])).kernel(kernel)


@functools.cache
def _missing() -> str | None:
    if importlib.util.find_spec("pyconvx._emulator") is None:
        return "pyconvx._emulator is not built: install again with PYCONVX_EMULATOR=ON"
    from ..emulator import compile

    return compile.nvrtc_missing()
