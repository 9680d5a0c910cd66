"""Kernels that a CUDA compiler made, from NVRTC and from nvcc, for several chips: exact numbers, no report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyconvx import emulator
from pyconvx.emulator import compile

SOURCE = Path(__file__).with_name("kernels.cu").read_text()
ORDERS = ("ascending", "descending", "random")


@pytest.fixture(scope="module", params=["nvrtc", "nvcc"])
def modules(request):
    """A function: target, fault -> module."""
    if why := getattr(compile, f"{request.param}_missing")():
        pytest.skip(why)
    built = {}

    def get(target="sm_80", fault=0):
        key = target, fault
        if key not in built:
            built[key] = emulator.Module(
                getattr(compile, request.param)(SOURCE, target=target, options=[f"-DFAULT={fault}"])
            )
        return built[key]

    return get


def run_hgemm(module, random, m=64, n=128, k=160, **options):
    a, b = (random.integers(-3, 4, shape).astype(np.float16) for shape in ((m, k), (n, k)))
    c = np.full((m, n), np.nan, np.float32)
    launch = module.kernel("hgemm").launch((n // 64, m // 64), 128, [n, k, a, b, c], **options)
    return launch, bool(np.array_equal(c, a.astype(np.float32) @ b.astype(np.float32).T))


def run_sgemm(module, random, n=64, **options):
    a, b = (random.integers(-3, 4, (n, n)).astype(np.float32) for _ in range(2))
    c = np.full((n, n), np.nan, np.float32)
    launch = module.kernel("sgemm").launch((n // 64, n // 64), 256, [n, a, b, c], **options)
    return launch, bool(np.array_equal(c, a @ b))


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120"])
def test_right_kernels(target, modules, random):
    module = modules(target)
    x, y = random.standard_normal(1000).astype(np.float32), random.standard_normal(1000).astype(np.float32)
    want = (np.float64(2) * x + y).astype(np.float32)
    module.kernel("saxpy").launch(3, 128, [1000, 2.0, x, y])
    np.testing.assert_allclose(y, want, rtol=1e-6)
    assert run_sgemm(module, random)[1]
    for order in ORDERS:
        launch, right = run_hgemm(module, random, order=order)
        assert right
    mma = launch.counts.opcode("mma.sync")
    assert mma.warp_instructions == 64 * 128 * 160 // (16 * 8 * 16)
    loads = launch.counts.opcode("ldmatrix")
    assert loads.wavefronts == loads.ideal_wavefronts


FAULTS = {
    1: (run_sgemm, "shared-race"),  # no barrier after the tile is stored
    2: (run_sgemm, "shared-race"),  # no barrier before it is overwritten
    3: (run_hgemm, "uninitialised-shared"),  # the loader is one pass short
    4: (run_hgemm, "unfinished-copy"),  # the wait allows one group too many
    5: (run_hgemm, "shared-race"),  # no barrier between a wait and the reads of others' copies
    6: (run_hgemm, None),  # two fragment registers swapped: wrong numbers, and nothing to report
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("order", ORDERS)
def test_planted_faults(fault, order, modules, random):
    run, kind = FAULTS[fault]
    launch, right = run(modules(fault=fault), random, order=order, on_report="return")
    kinds = {report.kind for report in launch.reports}
    assert kind in kinds if kind else not right and not kinds


def test_templates_are_found_by_expression(cuda):
    source = "template <int N> __global__ void fill(int* x) { x[threadIdx.x] = N; }"
    module = cuda(source, names=("fill<3>", "fill<4>"))
    x = np.zeros(32, np.int32)
    module.kernel("fill<4>").launch(1, 32, [x])
    assert (x == 4).all()


def test_source_that_does_not_compile(cuda):
    with pytest.raises(compile.CompileError, match="identifier"):
        cuda("__global__ void k() { nobody(); }")


def test_ptx_is_cached(tmp_path, monkeypatch, cuda):
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path))
    cuda("__global__ void k(int* x) { *x = 1; }")
    (stored,) = tmp_path.rglob("*.json")
    stamp = stored.stat().st_mtime_ns
    cuda("__global__ void k(int* x) { *x = 1; }")
    cuda("__global__ void k(int* x) { *x = 2; }")
    assert stored.stat().st_mtime_ns == stamp and len(list(tmp_path.rglob("*.json"))) == 2
