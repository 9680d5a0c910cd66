"""Builds the native core by CMake (see CMakeLists.txt). Metadata and settings are in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CUDA = os.environ.get("PYCONVX_CUDA", "AUTO").upper()
EMULATOR = os.environ.get("PYCONVX_EMULATOR", "OFF").upper()


class CMakeBuild(build_ext):
    """Builds all extensions at once: each is a target of the one CMake project."""

    def build_extensions(self):
        output = Path(self.get_ext_fullpath(self.extensions[0].name)).resolve().parent
        configure = [
            "cmake",
            "--fresh",  # a cache from another environment would bring back its compiler and its Python
            *("-G", "Ninja"),
            *("-S", ROOT),
            *("-B", self.build_temp),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPYCONVX_CUDA={CUDA}",
            f"-DPYCONVX_EMULATOR={EMULATOR}",
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        targets = [extension.name.rpartition(".")[2] for extension in self.extensions]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", self.build_temp, "--target", *targets], check=True)


setup(
    ext_modules=[Extension("pyconvx._C", [])] + [Extension("pyconvx._emulator", [])] * (EMULATOR == "ON"),
    cmdclass={"build_ext": CMakeBuild},
    # Device code lives beside the package, not in it, but is installed with it: CuPy and Triton compile it at run time.
    packages=[*find_packages(include=["pyconvx", "pyconvx.*"]), "pyconvx.kernels"],
    package_dir={"pyconvx.kernels": "kernels"},
    package_data={"pyconvx": ["py.typed"], "pyconvx.kernels": ["**/*.cuh", "**/*.py"]},
)
