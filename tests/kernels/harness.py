"""Runs the launches of a plan in the emulator: compiles the kernels that the plan names, by NVRTC, and passes the
arguments that the plan made. Nothing here knows how any kernel works."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from pyconvx import _C

NOT_BUILT = "the emulator is not built (PYCONVX_EMULATOR=ON)"
emulator = pytest.importorskip("pyconvx.emulator", reason=NOT_BUILT, exc_type=ImportError)
compiler = pytest.importorskip("pyconvx.emulator.compile", reason=NOT_BUILT, exc_type=ImportError)
if why := compiler.nvrtc_missing():
    pytest.skip(why, allow_module_level=True)

KERNELS = Path(__file__).parents[2] / "kernels" / "cuda"

DTYPES = {
    torch.float16: _C.DType.float16,
    torch.bfloat16: _C.DType.bfloat16,
    torch.float32: _C.DType.float32,
    torch.float64: _C.DType.float64,
}


@functools.lru_cache(maxsize=64)
def module(header: str, kernel: str, target: str):
    """The compiled kernel."""
    ptx = compiler.nvrtc(f'#include "{header}"\n', target=target, include=[KERNELS], names=[kernel])
    return emulator.Module(ptx)


def launch(step, buffers: dict[str, torch.Tensor], target: str = "sm_80", **options) -> emulator.Launch:
    """Runs one launch of a plan on tensors in host memory; a buffer that is not given is null."""
    kernel = module(step.header, step.kernel, target).kernel(step.kernel)
    memory = {name: emulator.Memory(tensor, name=name) for name, tensor in buffers.items()}
    blank = step.arguments()
    fields, format, at = [], "", 0
    for slot in sorted(step.pointers, key=lambda slot: slot.at):
        format += f"{slot.at - at}sP"
        there = memory[slot.buffer].at(slot.skip) if slot.buffer in memory else None
        fields += [blank[at : slot.at], there]
        at = slot.at + 8
    arguments = emulator.Struct(f"{format}{len(blank) - at}s", *fields, blank[at:])
    return kernel.launch(step.grid, step.block, [arguments], shared_bytes=step.shared_bytes, **options)


def run(plan, buffers: dict[str, torch.Tensor], **options) -> list[emulator.Launch]:
    """Runs all launches of a plan. Workspaces start as NaN bits."""
    workspaces = {name: torch.full((nbytes,), 255, dtype=torch.uint8) for name, nbytes in plan.workspaces.items()}
    return [launch(step, {**buffers, **workspaces}, **options) for step in plan.launches]
