"""Thread instructions a second that the emulator runs on one core, with and without its checker.

    python benchmarks/emulator_speed.py

Takes the kernels of tests/emulator/kernels.cu, and dense convolutions of 64 channels by the library's own kernels.
Times are the process's own processor time, the median of five.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import torch

from pyconvx import _C, emulator
from pyconvx.backends.emulator import run
from pyconvx.emulator import compile

SOURCE = Path(__file__).parents[1] / "tests" / "emulator" / "kernels.cu"


def launches():
    """(name, function that runs a kernel with the options it is given), of sizes that take a fraction of a second."""
    build = compile.nvrtc if compile.nvrtc_missing() is None else compile.nvcc
    module = emulator.Module(build(SOURCE.read_text()))
    random = np.random.default_rng(0)

    def kernel(name, *args):
        return lambda **options: module.kernel(name).launch(*args, **options)

    x, y = (random.standard_normal(1 << 20).astype(np.float32) for _ in range(2))
    yield "saxpy", kernel("saxpy", 512, 256, [x.size, 2.0, x, y])
    a, b, c = (random.standard_normal((256, 256)).astype(np.float32) for _ in range(3))
    yield "sgemm", kernel("sgemm", (4, 4), 256, [256, a, b, c])
    a, b = (random.standard_normal((256, 512)).astype(np.float16) for _ in range(2))
    yield "hgemm", kernel("hgemm", (4, 4), 128, [256, 512, a, b, c])
    for dtype, tf32 in (("float16", False), ("float32", True), ("float32", False)):
        yield f"3x3 {'tf32' if tf32 else dtype}", convolution(dtype, tf32)


def convolution(dtype, tf32):
    problem = _C.Conv2dProblem(
        **dict(n=1, c=64, h=28, w=28, k=64, r=3, s=3, padding=(1, 1, 1, 1)),
        **dict(dtype=getattr(_C.DType, dtype), layout=_C.Layout.nhwc),
    )
    plan = _C.plan_conv2d(problem, "a100", tf32=tf32)
    shapes = {"input": (1, 28, 28, 64), "filter": (64, 3, 3, 64), "output": (1, 28, 28, 64)}
    tensors = {name: torch.randn(shape).to(getattr(torch, dtype)) for name, shape in shapes.items()}

    def convolve(**options):
        (launch,) = run(plan, tensors, **options)
        return launch

    return convolve


def main() -> None:
    print(f"{'kernel':12} {'checker':>8} {'M instructions':>15} {'M/s on one core':>16}")
    for name, launch in launches():
        for check in (True, False):
            millions = launch(check=check, workers=1).counts.total.thread_instructions / 1e6
            times = []
            for _ in range(5):
                start = time.process_time()
                launch(check=check, workers=1)
                times.append(time.process_time() - start)
            rate = millions / statistics.median(times)
            print(f"{name:12} {'on' if check else 'off':>8} {millions:15.1f} {rate:16.0f}")


if __name__ == "__main__":
    main()
