"""Thread instructions a second that the emulator runs on one core, with and without its checker.

    python benchmarks/emulator_speed.py

Takes the kernels of tests/emulator/kernels.cu, compiled by NVRTC or nvcc. Times are the process's own processor time,
the best of three, so that other work on the machine matters less.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from pyconvx import emulator
from pyconvx.emulator import compile

SOURCE = Path(__file__).parents[1] / "tests" / "emulator" / "kernels.cu"


def launches():
    """(kernel, grid, block, arguments) of sizes that take a fraction of a second."""
    random = np.random.default_rng(0)
    x, y = (random.standard_normal(1 << 20).astype(np.float32) for _ in range(2))
    yield "saxpy", 512, 256, [x.size, 2.0, x, y]
    a, b, c = (random.standard_normal((256, 256)).astype(np.float32) for _ in range(3))
    yield "sgemm", (4, 4), 256, [256, a, b, c]
    a, b = (random.standard_normal((256, 512)).astype(np.float16) for _ in range(2))
    yield "hgemm", (4, 4), 128, [256, 512, a, b, c]


def main() -> None:
    build = compile.nvrtc if compile.nvrtc_missing() is None else compile.nvcc
    module = emulator.Module(build(SOURCE.read_text()))
    print(f"{'kernel':8} {'checker':>8} {'M instructions':>15} {'M/s on one core':>16}")
    for name, grid, block, args in launches():
        kernel = module.kernel(name)
        for check in (True, False):
            best = float("inf")
            for _ in range(3):
                start = time.process_time()
                launch = kernel.launch(grid, block, args, check=check, workers=1)
                best = min(best, time.process_time() - start)
            millions = launch.counts.total.thread_instructions / 1e6
            print(f"{name:8} {'on' if check else 'off':>8} {millions:15.1f} {millions / best:16.0f}")


if __name__ == "__main__":
    main()
