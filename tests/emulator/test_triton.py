"""Kernels that Triton compiled run exactly. Triton's compiler needs no driver; where Triton is absent these skip."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from pyconvx import emulator

triton = pytest.importorskip("triton")

if triton.knobs.runtime.interpret:
    pytest.skip("Triton's interpreter is on (TRITON_INTERPRET)", allow_module_level=True)


def load_kernels():
    path = Path(__file__).with_name("triton_kernels.py")
    spec = importlib.util.spec_from_file_location("emulator_triton_kernels", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


kernels = load_kernels()
POINTERS = {
    np.dtype(np.float16): "*fp16",
    np.dtype(np.float32): "*fp32",
    np.dtype(np.uint16): "*bf16",
    np.dtype(np.int32): "*i32",
}


def run(function, args, constants, grid, capability, warps=4, stages=3, **options):
    """Compiles for a chip and launches: arrays and integers in the order of the function's parameters."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    runtime = [name for name in function.arg_names if name not in constants]
    values = dict(zip(runtime, args, strict=True))
    signature = {
        name: "constexpr"
        if name in constants
        else POINTERS[values[name].dtype]
        if isinstance(values[name], np.ndarray)
        else "i32"
        for name in function.arg_names
    }
    aligned = [
        n for n, name in enumerate(function.arg_names)
        if name in values and (isinstance(values[name], np.ndarray) or values[name] % 16 == 0)
    ]  # fmt: skip
    source = ASTSource(function, signature, constants, {(n,): [["tt.divisibility", 16]] for n in aligned})
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages})
    kernel = emulator.Module(compiled.asm["ptx"]).kernel(compiled.metadata.name)
    scratch = [None] * (len(kernel.parameters) - len(args))  # Triton appends pointers to scratch memory
    return kernel.launch(grid, 32 * warps, [*args, *scratch], shared_bytes=compiled.metadata.shared, **options)


def bits(values, dtype):
    """Small integers as an array of a type; bf16 as its bits."""
    if dtype == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def numbers(array):
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array.astype(np.float32)


# On sm_90 and sm_100 Triton makes wgmma and tcgen05 of 16-bit products, which the emulator has not.
@pytest.mark.parametrize(
    ("capability", "dtype", "precision"),
    [
        (80, np.float16, "ieee"),
        (80, "bf16", "ieee"),
        (80, np.float32, "tf32"),
        (90, np.float32, "ieee"),
        (120, np.float16, "ieee"),
        (120, "bf16", "ieee"),
    ],
)
@pytest.mark.parametrize("order", ["ascending", "random"])
def test_matrix_product(capability, dtype, precision, order, random):
    m, n, k = 80, 96, 144  # tiles of 64 x 64 x 32: every edge is a part of one
    a, b = bits(random.integers(-2, 3, (m, k)), dtype), bits(random.integers(-2, 3, (k, n)), dtype)
    c = np.full((m, n), np.nan, np.float32)
    constants = {"BM": 64, "BN": 64, "BK": 32, "PRECISION": precision}
    launch = run(kernels.matmul, [a, b, c, m, n, k], constants, (2, 2), capability, order=order)
    assert np.array_equal(c, numbers(a) @ numbers(b))
    assert bool(launch.counts.opcode("mma").warp_instructions) == (precision == "tf32" or dtype != np.float32)
    assert launch.counts.opcode("cp.async").warp_instructions


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_row_softmax_and_sum(capability, random):
    x = random.integers(-3, 4, (12, 100)).astype(np.float32)
    y, total = np.zeros_like(x), np.zeros(12, np.float32)
    run(kernels.softmax, [x, y, total, 100], {"BLOCK": 128}, 12, capability)
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)
    assert np.array_equal(total, x.sum(1))


@pytest.mark.parametrize("capability", [80, 120])
def test_max_pooling(capability, random):
    n, h, w, c, p, q = 2, 9, 11, 24, 5, 6
    x = random.integers(-50, 50, (n, h, w, c)).astype(np.float16)
    y, where = np.zeros((n, p, q, c), np.float16), np.zeros((n, p, q, c), np.int32)
    blocks = (-(-n * p * q // 32), -(-c // 16))
    run(
        kernels.max_pool,
        [x, y, where, n, h, w, c, p, q],
        {"KERNEL": 3, "STRIDE": 2, "PAD": 1, "BM": 32, "BC": 16},
        blocks,
        capability,
    )
    padded = np.full((n, h + 2, w + 2, c), -np.inf, np.float16)
    padded[:, 1:-1, 1:-1] = x
    windows = np.stack([padded[:, r : r + 2 * p - 1 : 2, s : s + 2 * q - 1 : 2] for r in range(3) for s in range(3)])
    assert np.array_equal(y, windows.max(0))
    assert np.array_equal(where, windows.argmax(0))


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_sums_by_atomics(capability, random):
    x = random.integers(-9, 10, 1000).astype(np.float32)
    bins = random.integers(0, 10, 1000).astype(np.int32)
    sums = np.zeros(10, np.float32)
    run(kernels.histogram, [x, bins, sums, 1000], {"BLOCK": 256}, 4, capability)
    assert np.array_equal(sums, np.bincount(bins, x, 10).astype(np.float32))
