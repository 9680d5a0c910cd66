"""A PTX machine on the host: runs what NVRTC, nvcc or Triton compiled, checks each access, counts what a chip would do.

    from pyconvx import emulator

    module = emulator.Module(ptx)                         # text; any target from sm_75 to sm_121
    kernel = module.kernel("saxpy")
    launch = kernel.launch(grid=4, block=256, args=[n, 2.0, x, y])   # numpy arrays, used in place
    launch.counts.total.sectors                           # 32-byte pieces of global memory touched

A launch whose checker found something raises :class:`EmulatorError` with the list of reports. What the emulator cannot
tell: how long a kernel takes, and what ptxas makes of its PTX.

``emulator.compile`` gets PTX from NVRTC (a pip wheel, no driver) or nvcc. Needs the extension module
``pyconvx._emulator``, which is built when ``PYCONVX_EMULATOR=ON``.
"""

from .counts import Counts, Site
from .launch import Kernel, Launch, Module, Parameter, Struct
from .memory import Memory, Pointer, pointer_to, sparse
from .report import EmulatorError, Report

__all__ = [
    "Counts",
    "EmulatorError",
    "Kernel",
    "Launch",
    "Memory",
    "Module",
    "Parameter",
    "Pointer",
    "Report",
    "Site",
    "Struct",
    "pointer_to",
    "sparse",
]
