"""Backend ``cupy``: CUDA tensors, by the kernels of kernels/cuda, compiled by NVRTC through CuPy for the exact problem.

Needs no nvcc, at no time. A kernel is compiled when a problem is first run, which takes seconds, and CuPy keeps it on
disk: in ``$CUPY_CACHE_DIR`` or ``~/.cupy/kernel_cache``.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from ._compiled import kernels_folder, options, source
from ._on_device import OnDevice, no_device

_SHARED_WITHOUT_ASKING = 48 << 10
"""Bytes of dynamic shared memory that every kernel may have."""


class Cupy(OnDevice):
    name = "cupy"
    summary = "the CUDA kernels, compiled at run time for the exact problem"

    def __init__(self) -> None:
        super().__init__()
        self._kernels: dict[Any, Any] = {}

    def unavailable(self) -> str | None:
        if find_spec("cupy") is None:
            return "cupy is not installed: pip install 'pyconvx[cuda]'"
        if (why := no_device()) is not None:
            return why
        return _import_error()

    def details(self) -> dict[str, str]:
        if find_spec("cupy") is None or _import_error():
            return {}
        import cupy

        return {"cupy": cupy.__version__}

    def launch(self, step: Any, arguments: bytes, device: torch.device, stream: int) -> None:
        import cupy

        kernel = self._kernel(step, device)
        # CuPy passes a numpy array of one element by value, whatever its type.
        parameter = np.frombuffer(arguments, np.dtype((np.void, len(arguments))))
        with cupy.cuda.ExternalStream(stream, device.index):
            kernel(tuple(step.grid), (step.block,), (parameter,), shared_mem=step.shared_bytes)

    def _kernel(self, step: Any, device: torch.device) -> Any:
        key = step.kernel, tuple(step.constants.items()), step.shared_bytes, device
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self.compile(step)
            if step.shared_bytes > _SHARED_WITHOUT_ASKING:
                kernel.max_dynamic_shared_size_bytes = step.shared_bytes
        return kernel

    def compile(self, step: Any) -> Any:
        """Return the kernel of a launch, compiled for its problem and the current device."""
        import cupy

        module = cupy.RawModule(
            # CuPy finds what it has compiled by the source and the options, and looks into no header.
            code=f"// kernels/cuda {_headers_hash()}\n{source(step)}",
            options=options(step, exact=True),
            name_expressions=(step.kernel,),
        )
        return module.get_function(step.kernel)


@functools.cache
def _headers_hash() -> str:
    contents = hashlib.sha256()
    for path in sorted(kernels_folder().rglob("*.cuh")):
        contents.update(path.read_bytes())
    return contents.hexdigest()


@functools.cache
def _import_error() -> str | None:
    try:
        import cupy  # noqa: F401
    except Exception as error:  # whatever it is, it says why CuPy cannot be used
        return f"cupy does not import: {error}"
    return None
