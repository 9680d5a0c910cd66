"""A launch's kernel as source and options for NVRTC: ``cupy`` and ``emulator`` compile the same, to the letter."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any


@functools.cache
def kernels_folder() -> Path:
    """Return the folder of the CUDA headers: installed beside this package, or in the source tree it lies in."""
    installed = Path(__file__).parents[1] / "kernels" / "cuda"
    return installed if installed.exists() else Path(__file__).parents[2] / "kernels" / "cuda"


def source(step: Any) -> str:
    """Return the source of a launch's kernel, which its name expression instantiates."""
    return f'#include "{step.header}"\n'


def options(step: Any, *, exact: bool, headers: Path | None = None) -> tuple[str, ...]:
    """Return NVRTC's options beside the target. ``exact`` compiles for the launch's problem alone, whose sizes are then
    constants; ``headers`` is another folder of headers than the library's."""
    constants = (f"-D{name}={value}" for name, value in step.constants.items()) if exact else ()
    return ("-std=c++17", f"-I{headers or kernels_folder()}", *constants)
