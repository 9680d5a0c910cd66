"""CUDA C++ to PTX, with NVRTC (a pip wheel, no driver needed) or with nvcc, and to SASS. Results are kept on disk.

The cache is in ``$PYCONVX_CACHE_DIR`` or ``~/.cache/pyconvx``, under the hash of all that decides the result: source,
headers, options and the compiler's version.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Ptx:
    """PTX text (or SASS), and the mangled name of each name expression that was asked for (NVRTC only)."""

    text: str
    names: dict[str, str] = field(default_factory=dict)


class CompileError(RuntimeError):
    """The compiler's complaint, with the options it was given."""


def nvrtc(
    source: str,
    *,
    target: str = "sm_80",
    options: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    names: Sequence[str] = (),
    cache: bool = True,
) -> Ptx:
    """The PTX of a CUDA source text.

    ``names`` are expressions of kernels, such as ``"scale<float, 4>"``, that instantiate templates; each may be
    given to ``Module.kernel``. ``options`` go to the compiler beside ``-lineinfo``, ``-std=c++17`` and the target.
    Raises CompileError with the compiler's log, ImportError if there is no NVRTC.
    """
    flags = [f"--gpu-architecture={target.replace('sm_', 'compute_')}", "-lineinfo"]
    flags += [f"-I{path}" for path in include] + list(options)
    if not any(flag.startswith("-std") for flag in flags):
        flags.append("-std=c++17")
    key = _key("nvrtc", nvrtc_version(), source, flags, names, _headers(source, flags))

    def build() -> Ptx:
        ptx, mangled = _compile(source, flags, names, "nvrtcGetPTX")
        return Ptx(ptx.decode().rstrip("\0"), mangled)

    return _cached(key, build, cache)


def sass(
    source: str,
    *,
    target: str = "sm_80",
    options: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    names: Sequence[str] = (),
    cache: bool = True,
) -> Ptx:
    """What NVRTC, with the assembler in it, makes of a source for one chip: nvdisasm's text, and behind it what
    cuobjdump says of registers.

    Arguments are those of :func:`nvrtc`; the language has to be among the options. Raises CompileError with the
    compiler's log, ImportError if NVRTC or one of these tools is missing.
    """
    commands = [[_tool("nvdisasm"), "-c"], [_tool("cuobjdump"), "-res-usage"]]
    flags = [f"--gpu-architecture={target}", *(f"-I{path}" for path in include), *options]
    version = subprocess.run([commands[0][0], "--version"], capture_output=True, text=True, check=True).stdout
    key = _key("sass", commands, nvrtc_version(), version, source, flags, names, _headers(source, flags))

    def build() -> Ptx:
        cubin, mangled = _compile(source, flags, names, "nvrtcGetCUBIN")
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "kernel.cubin")
            file.write_bytes(cubin)
            runs = [subprocess.run([*command, str(file)], capture_output=True, text=True) for command in commands]
        for run in runs:
            if run.returncode:
                raise CompileError(f"{run.args[0]} refused what NVRTC made with {' '.join(flags)}:\n{run.stderr}")
        return Ptx("\n".join(run.stdout for run in runs), mangled)

    return _cached(key, build, cache, folder="sass")


def _compile(source: str, flags: Sequence[str], names: Sequence[str], result: str) -> tuple[bytes, dict[str, str]]:
    """Compile with NVRTC: what its function ``result`` gets, and the mangled name of each name expression."""
    library = _nvrtc()
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        for name in names:
            _check(library, library.nvrtcAddNameExpression(program, name.encode()))
        encoded = [flag.encode() for flag in flags]
        array = (ctypes.c_char_p * len(encoded))(*encoded)
        if library.nvrtcCompileProgram(program, len(encoded), array):
            log = _read(library, program, "nvrtcGetProgramLog").decode().rstrip("\0")
            raise CompileError(f"NVRTC {nvrtc_version()} refused the source with {' '.join(flags)}:\n{log}")
        mangled = {}
        for name in names:
            lowered = ctypes.c_char_p()
            _check(library, library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered)))
            mangled[name] = (lowered.value or b"").decode()
        return _read(library, program, result), mangled
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def nvcc(
    source: str | Path,
    *,
    target: str = "sm_80",
    options: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    cache: bool = True,
) -> Ptx:
    """The PTX of a CUDA source text, or of a file if ``source`` is a Path.

    ``options`` go to nvcc after ``-O3 -std=c++17 -lineinfo``. Raises CompileError with nvcc's output, FileNotFoundError
    if there is no nvcc.
    """
    if why := nvcc_missing():
        raise FileNotFoundError(why)
    text = source.read_text() if isinstance(source, Path) else source
    if isinstance(source, Path):
        include = [source.parent, *include]
    flags = ["-ptx", "-O3", "-std=c++17", "-lineinfo", f"-arch={target}", *(f"-I{path}" for path in include), *options]
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    key = _key("nvcc", version, text, flags, (), _headers(text, flags))

    def build() -> Ptx:
        with tempfile.TemporaryDirectory() as directory:
            file, ptx = Path(directory, "kernel.cu"), Path(directory, "kernel.ptx")
            file.write_text(text)
            run = subprocess.run(["nvcc", *flags, str(file), "-o", str(ptx)], capture_output=True, text=True)
            if run.returncode:
                raise CompileError(f"nvcc refused the source with {' '.join(flags)}:\n{run.stderr}")
            return Ptx(ptx.read_text())

    return _cached(key, build, cache)


def nvrtc_missing() -> str | None:
    """Why NVRTC cannot be used, or None."""
    try:
        _nvrtc()
    except ImportError as error:
        return str(error)
    return None


def sass_missing() -> str | None:
    """Why kernels cannot be compiled to SASS, or None."""
    try:
        _tool("nvdisasm"), _tool("cuobjdump")
    except ImportError as error:
        return str(error)
    return nvrtc_missing()


def nvcc_missing() -> str | None:
    """Why nvcc cannot be used, or None."""
    return None if shutil.which("nvcc") else "nvcc is not on PATH: install the CUDA toolkit"


@functools.cache
def nvrtc_version() -> str:
    """For example ``"13.0"``. Raises ImportError if there is no NVRTC."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc(), _nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    for path in _nvrtc_libraries():
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise ImportError("libnvrtc is not installed: pip install nvidia-cuda-nvrtc")


def _wheels() -> list[Path]:
    """Where NVIDIA's pip wheels lie."""
    wheels = importlib.util.find_spec("nvidia")
    return [Path(root) for root in (wheels.submodule_search_locations or [])] if wheels else []


def _nvrtc_libraries() -> list[Path | str]:
    """Those of pip wheels first (nvidia/cu13/lib, nvidia/cuda_nvrtc/lib), then what the loader finds by itself."""
    found: list[Path | str] = []
    for root in _wheels():
        found += sorted(root.glob("*/lib/libnvrtc.so.*"), reverse=True)
    return [*found, "libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"]


def _check(library: ctypes.CDLL, result: int) -> None:
    if result:
        raise CompileError(f"NVRTC failed: {library.nvrtcGetErrorString(result).decode()}")


def _read(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"{what}Size")(program, ctypes.byref(size)))
    result = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, what)(program, result))
    return result.raw


def _tool(name: str) -> str:
    """A tool of the pip wheels (nvidia/cu13/bin), or of the toolkit."""
    for root in _wheels():
        for path in sorted(root.glob(f"*/bin/{name}"), reverse=True):
            return str(path)
    if found := shutil.which(name):
        return found
    raise ImportError(f"{name} is not installed: pip install nvidia-cuda-{name}")


def _headers(source: str, flags: Sequence[str]) -> dict[str, str]:
    """The headers that the source includes, directly or not, other than the toolkit's own. A change of any other header
    leaves what is cached alone."""
    roots = [Path(flag[2:]) for flag in flags if flag.startswith("-I")]
    roots = [root for root in roots if not (root / "cuda_runtime_api.h").exists()]
    texts: dict[str, str] = {}
    waiting = [(source, roots)]
    while waiting:
        text, folders = waiting.pop()
        for name in _INCLUDE.findall(text):
            path = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if path is not None and (known := os.path.normpath(path)) not in texts:
                texts[known] = path.read_text()
                waiting.append((texts[known], [path.parent, *roots]))
    return texts


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=list, sort_keys=True).encode()).hexdigest()


def _cached(key: str, build: Callable[[], Ptx], cache: bool, folder: str = "ptx") -> Ptx:
    if not cache:
        return build()
    root = os.environ.get("PYCONVX_CACHE_DIR") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pyconvx"
    )
    path = Path(root, folder, f"{key}.json")
    try:
        stored = json.loads(path.read_text())
        return Ptx(stored["text"], stored["names"])
    except (OSError, ValueError, KeyError):
        pass
    ptx = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump({"text": ptx.text, "names": ptx.names}, file)
        os.replace(file.name, path)  # at once, whoever else compiles the same
    except OSError:
        pass  # a cache that cannot be written costs time only
    return ptx
