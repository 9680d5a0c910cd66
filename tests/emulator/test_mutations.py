"""Faults planted in the emulator itself, each of which its own tests must notice.

Builds the emulator once, then once more with each fault: several minutes, so only when asked for, by

    PYCONVX_MUTATIONS=1 pytest tests/emulator/test_mutations.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("PYCONVX_MUTATIONS"), reason="takes minutes: set PYCONVX_MUTATIONS=1"),
]

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "csrc" / "emulator"

# what is wrong: (file, text, wrong text, test file that notices)
MUTATIONS = {
    "ties round up instead of to even": (
        "number_formats.cpp",
        "up = against_half > 0 || (against_half == 0 && (kept & 1));",
        "up = against_half >= 0;",
        "float",
    ),
    "rounding to odd goes the wrong way": (
        "number_formats.cpp",
        "(error > 0) == (sum > 0)",
        "(error < 0) == (sum > 0)",
        "float",
    ),
    "directed rounding down goes up": (
        "instructions/float.cpp",
        "FE_DOWNWARD",
        "FE_UPWARD",
        "float",
    ),
    "comparisons forget NaN": (
        "instructions/compare_select.cpp",
        "return a != a || b != b || op(a, b);",
        "return op(a, b);",
        "float",
    ),
    "conversion to unsigned wraps": (
        "instructions/convert.cpp",
        "return value < 0 ? 0 : static_cast<uint64_t>(value);",
        "return static_cast<uint64_t>(static_cast<int64_t>(value));",
        "float",
    ),
    "high product a bit off": (
        "instructions/integer.cpp",
        "* b >> 8 * sizeof(T));",
        "* b >> (8 * sizeof(T) - 1));",
        "integer",
    ),
    "funnel shift clamps too early": (
        "instructions/bits.cpp",
        "std::min(c, 32u)",
        "std::min(c, 31u)",
        "integer",
    ),
    "shuffle forgets its segments": (
        "instructions/warp_collectives.cpp",
        "(clamp & ~fixed), first",
        "clamp, first",
        "warp",
    ),
    "atomic increment wraps late": (
        "instructions/atomics.cpp",
        "old >= b ? T(0)",
        "old > b ? T(0)",
        "warp",
    ),
    "mma swaps rows and columns of registers": (
        "instructions/mma.cpp",
        "a[row + 8 * (r % 2)][columns * (r / 2) + k]",
        "a[row + 8 * (r / 2 % 2)][columns * (r % 2 + r / 4 * 2) % K + k]",
        "matrix",
    ),
    "tf32 operands keep their low bits": (
        "instructions/mma.cpp",
        "lanes[k] & 0xffffe000u",
        "lanes[k]",
        "matrix",
    ),
    "ldmatrix.trans transposes half": (
        "instructions/matrix_moves.cpp",
        "const uint16_t second = transposed ? element[column + 1][row] :",
        "const uint16_t second = transposed ? element[column][row + 1] :",
        "matrix",
    ),
    "lanes do not meet after a branch": (
        "scheduler.cpp",
        "(pc >= overtakes && !shuffled)",
        "false",
        "warp",
    ),
    "collectives do not wait for lanes": (
        "flow.cpp",
        "if (named & warp.live & ~together) {",
        "if (false) {",
        "warp",
    ),
    "cp.async waits for one group less": (
        "instructions/async_copy.cpp",
        "group > allowed ? group - allowed : 0",
        "group > allowed + 1 ? group - allowed - 1 : 0",
        "checker",
    ),
    "abandoned copies are forgotten": (
        "instructions/async_copy.cpp",
        "if (queue.empty()) return;",
        "return;",
        "checker",
    ),
    "reads see all writes": (
        "shared_checker.cpp",
        "if (visible) continue;",
        "continue;",
        "checker",
    ),
    "writes ignore earlier reads": (
        "shared_checker.cpp",
        "order_->visible_to_warp(warp, when, a.warp)) continue;",
        "true) continue;",
        "checker",
    ),
    "any __syncwarp counts as full": (
        "happens_before.cpp",
        "if ((lanes & all) == all) {",
        "if (lanes) {",
        "checker",
    ),
    "a named barrier orders everybody": (
        "happens_before.cpp",
        "std::max(known(warp, u), published[u])",
        "now_",
        "checker",
    ),
    "bounds are one byte too wide": (
        "access.cpp",
        "bytes <= size - at;",
        "bytes <= size - at + 4;",
        "checker",
    ),
    "alignment is half checked": (
        "access.cpp",
        "if (at & (access_.align - 1)) {",
        "if (at & (access_.align / 2 - 1)) {",
        "checker",
    ),
    "blocks may overwrite each other": (
        "access.cpp",
        "if (!other || other == me) continue;",
        "continue;",
        "checker",
    ),
    "divergent barriers pass": (
        "barriers.cpp",
        "if (is_aligned(i) && (warp.live & ~g.lanes)) {",
        "if (false) {",
        "checker",
    ),
    "undefined registers count as defined": (
        "scheduler.cpp",
        "(defined & active);",
        "active;",
        "checker",
    ),
    "quarter warps are taken for half warps": (
        "counters.cpp",
        "bytes <= 8 ? 16 : 8",
        "16",
        "counts",
    ),
    "sectors of 64 bytes": (
        "counters.cpp",
        "kSectorShift = 5",
        "kSectorShift = 6",
        "counts",
    ),
    "modifiers are ignored": (
        "decoder.cpp",
        "if (!claimed_[i]) unsupported",
        "if (false) unsupported",
        "launch",
    ),
    "sm_86 has more shared memory": (
        "launch.cpp",
        "{86, 99}",
        "{86, 100}",
        "launch",
    ),
}

PRELOAD = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("pyconvx._emulator", os.environ["MUTATED_EMULATOR"])
module = importlib.util.module_from_spec(spec)
sys.modules["pyconvx._emulator"] = module
spec.loader.exec_module(module)
"""


class Workshop:
    """A copy of the emulator's source that can be changed, built and tested."""

    def __init__(self, directory: Path) -> None:
        self.source, self.build = directory / "source", directory / "build"
        shutil.copytree(SOURCE, self.source)
        (directory / "preload_mutated_emulator.py").write_text(PRELOAD)
        self.directory = directory
        cmake_dir = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        options = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={cmake_dir}"]
        options.append("-DCMAKE_BUILD_TYPE=Plain")  # unoptimised: it is built more often than it is run
        subprocess.run(["cmake", "-S", self.source, "-B", self.build, *options], check=True, stdout=subprocess.DEVNULL)
        self.make()

    def make(self) -> None:
        subprocess.run(["cmake", "--build", self.build, "-j2"], check=True, stdout=subprocess.DEVNULL)

    def passes(self, tests: str) -> bool:
        """Whether the tests of one file pass with what was built. An endless run is no pass."""
        (library,) = self.build.glob("_emulator*.so")
        environment = dict(os.environ, MUTATED_EMULATOR=str(library))
        environment["PYTHONPATH"] = os.pathsep.join([str(self.directory), environment.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "preload_mutated_emulator", f"test_{tests}.py"]
        try:
            run = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            return False
        assert "passed" in run.stdout or "failed" in run.stdout or run.returncode < 0, run.stdout + run.stderr
        return run.returncode == 0


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("emulator"))


def test_the_copy_passes_unchanged(workshop):
    for tests in sorted({mutation[3] for mutation in MUTATIONS.values()}):
        assert workshop.passes(tests), tests


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_caught(name, workshop):
    file, text, wrong, tests = MUTATIONS[name]
    path = workshop.source / file
    right = path.read_text()
    assert right.count(text) == 1, f"{file} has the text {right.count(text)} times: adapt the mutation"
    try:
        path.write_text(right.replace(text, wrong))
        workshop.make()
        assert not workshop.passes(tests), f"no test in test_{tests}.py noticed: {name}"
    finally:
        path.write_text(right)
