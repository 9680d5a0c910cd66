"""Backend ``cuda``: CUDA tensors, by the kernels of kernels/cuda that nvcc compiled when pyconvx was built.

They are fewer than there could be: common tiles, and windows that are not special run in kernels for any. Backend
``cupy`` compiles for the exact problem.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch

from .. import _C
from ._on_device import OnDevice, no_device

_KERNELS: Any = getattr(_C, "cuda", None)


class Cuda(OnDevice):
    name = "cuda"
    summary = "the CUDA kernels, compiled when pyconvx was built"
    plan_options: ClassVar = {"ahead_of_time": True}
    masks_gradients = False  # there would be twice as many kernels to compile

    def unavailable(self) -> str | None:
        if _KERNELS is None:
            return (
                "this build has no CUDA kernels: there was no nvcc; install the CUDA toolkit and build again with "
                "PYCONVX_CUDA=ON, or use backend cupy, which needs none"
            )
        if (why := no_device()) is not None:
            return why
        driver, built = _KERNELS.driver_version(), _KERNELS.compiler_version()
        if driver // 1000 < built // 1000:
            return (
                f"its kernels were compiled by CUDA {_version(built)}, and this driver runs CUDA {_version(driver)} at "
                f"most; update the driver, or build pyconvx again with that CUDA toolkit"
            )
        return None

    def details(self) -> dict[str, str]:
        if _KERNELS is None:
            return {}
        return {
            "kernels": str(len(_KERNELS.kernel_names())),
            "compiled by": f"CUDA {_version(_KERNELS.compiler_version())}",
        }

    def can_run(self, operation: str, problem: Any, device: torch.device) -> str | None:
        if (refusal := super().can_run(operation, problem, device)) is not None:
            return refusal
        compiled = _kernel_names()
        for step in self.plan(operation, problem, device).launches:
            if step.kernel not in compiled:
                return f"{step.kernel} was not compiled when pyconvx was built; backend cupy compiles it when it is run"
        return None

    def launch(self, step: Any, arguments: bytes, device: torch.device, stream: int) -> None:
        _KERNELS.launch(step.kernel, step.grid, step.block, step.shared_bytes, arguments, stream)


@functools.cache
def _kernel_names() -> frozenset[str]:
    return frozenset(_KERNELS.kernel_names() if _KERNELS is not None else ())


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
