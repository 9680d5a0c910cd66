"""What this installation and this machine have, what they lack, and why: ``pyconvx info``."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from . import backends
from .ops.conv2d import conv_problem
from .table import Table

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_OPTIONAL = {
    "triton": ("triton", ("triton",)),
    "cupy": ("cupy", ("cupy-cuda13x", "cupy-cuda12x", "cupy", "cupy-rocm-7-0")),
    "nvrtc": ("emulator", ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")),
}
"""Optional packages: the backend that would use each, and the distributions that hold it."""


def collect() -> dict[str, Any]:
    """Return everything as JSON-able data: versions, optional parts, machine, GPUs and backends."""
    return {
        "versions": {
            "pyconvx": metadata.version("pyconvx"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": metadata.version("numpy"),
        },
        "optional": _optional(),
        "machine": _machine(),
        "gpu": _gpu(),
        "backends": [_backend(backend) for backend in backends.registered()],
    }


def tables(info: dict[str, Any]) -> Iterator[Table]:
    """Yield what :func:`collect` returned, for people."""
    installed = [(name, version, "") for name, version in info["versions"].items()]
    installed += [(name, part["version"] or "absent", part["meaning"]) for name, part in info["optional"].items()]
    yield Table("Software", ("name", "version", "what it means"), installed)
    machine = [(name.replace("_", " "), value) for name, value in info["machine"].items()]
    machine += [("GPU", device) for device in info["gpu"]["devices"]] or [("GPU", f"none: {info['gpu']['why_none']}")]
    yield Table("Machine", ("", "what there is"), machine)
    forced = backends.forced_name()
    for backend in info["backends"]:
        rows = [
            ("state", "available" if backend["unavailable"] is None else f"not available: {backend['unavailable']}")
        ]
        rows += list(backend["details"].items())
        rows += [(f"conv2d {dtype}", refusal or "runs") for dtype, refusal in backend["conv2d"].items()]
        mark = ", forced" if backend["name"] == forced else ""
        yield Table(f"Backend {backend['name']}{mark}: {backend['summary']}", ("", "what it says"), rows)


def _optional() -> dict[str, dict[str, str | None]]:
    names = {backend.name for backend in backends.registered()}
    parts = {}
    for part, (user, distributions) in _OPTIONAL.items():
        version = next(filter(None, map(_version, distributions)), None)
        if version is None and find_spec(part) is not None:
            version = "of unknown version"
        parts[part] = {"version": version, "meaning": _meaning(user, version, user in names)}
    nvcc = _nvcc()
    parts["nvcc"] = {"version": nvcc, "meaning": _meaning("cuda", nvcc, "cuda" in names)}
    return parts


def _meaning(backend: str, version: str | None, known: bool) -> str:
    if not known:
        return "no backend of this version of pyconvx uses it"
    return f"backend {backend} uses it" if version is not None else f"backend {backend} needs it"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _nvcc() -> str | None:
    path = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if not path:
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path}, which does not run: {error}"
    release = [line for line in said.splitlines() if "release" in line]
    return release[0].partition("release ")[2].partition(",")[0] if release else path


def _machine() -> dict[str, str]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        "threads_of_torch": f"{torch.get_num_threads()}",
        "instruction_set": f"{platform.machine()}, torch uses {torch.backends.cpu.get_cpu_capability()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> dict[str, Any]:
    if torch.version.cuda is None and torch.version.hip is None:
        return {"devices": [], "why_none": f"this torch ({torch.__version__}) was built without CUDA and ROCm"}
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    if not torch.cuda.is_available():
        return {"devices": [], "why_none": f"this torch has {built}, but finds no device and driver that it can use"}
    devices = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        devices.append(f"{found.name}, sm_{found.major}{found.minor}, {found.total_memory / 2**30:.0f} GiB, {built}")
    return {"devices": devices, "why_none": None}


def _backend(backend: backends.Backend) -> dict[str, Any]:
    unavailable = backend.unavailable()
    return {
        "name": backend.name,
        "summary": backend.summary,
        "unavailable": unavailable,
        "devices": sorted(backend.devices) if backend.devices is not None else "any",
        "details": backend.details() if unavailable is None else {},
        "conv2d": {str(dtype).removeprefix("torch."): unavailable or _refusal(backend, dtype) for dtype in _DTYPES},
    }


def _refusal(backend: backends.Backend, dtype: torch.dtype) -> str | None:
    """Return what the backend says of a common convolution: a 3x3 of 64 channels."""
    like = torch.empty(0, dtype=dtype)
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    problem = conv_problem("info", like, torch.contiguous_format, (1, 64, 56, 56), 64, (3, 3), *geometry)
    device = torch.device("cpu" if backend.devices is None else next(iter(backend.devices)))
    return backend.can_run("conv2d", problem, device)
