"""Triton kernels for test_triton.py: Triton reads their source from this file."""

import triton
import triton.language as tl


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        inside = start + k < K
        x = tl.load(a + m[:, None] * K + start + k[None, :], mask=(m < M)[:, None] & inside[None, :], other=0.0)
        y = tl.load(b + (start + k)[:, None] * N + n[None, :], mask=inside[:, None] & (n < N)[None, :], other=0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    tl.store(c + m[:, None] * N + n[None, :], total, mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit
def softmax(x, y, total, N, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    n = tl.arange(0, BLOCK)
    v = tl.load(x + row * N + n, mask=n < N, other=float("-inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row * N + n, e / tl.sum(e, 0), mask=n < N)
    tl.store(total + row, tl.sum(tl.where(n < N, v, 0.0), 0))


@triton.jit
def max_pool(
    x, y, where, N, H, W, C, P, Q,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    q = m % Q
    p = m // Q % P
    n = m // Q // P
    best = tl.full((BM, BC), float("-inf"), dtype=tl.float32)
    tap = tl.zeros((BM, BC), dtype=tl.int32)
    for r in tl.static_range(KERNEL):
        for s in tl.static_range(KERNEL):
            h = p * STRIDE - PAD + r
            w = q * STRIDE - PAD + s
            inside = (n < N) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            mask = inside[:, None] & (c < C)[None, :]
            v = tl.load(x + ((n * H + h) * W + w)[:, None] * C + c[None, :], mask=mask, other=float("-inf")).to(
                tl.float32
            )
            better = v > best
            tap = tl.where(better, r * KERNEL + s, tap)
            best = tl.where(better, v, best)
    mask = (n < N)[:, None] & (c < C)[None, :]
    offset = m[:, None] * C + c[None, :]
    tl.store(y + offset, best.to(y.dtype.element_ty), mask=mask)
    tl.store(where + offset, tap, mask=mask)


@triton.jit
def histogram(x, bins, sums, N, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(sums + tl.load(bins + n, mask=n < N, other=0), tl.load(x + n, mask=n < N, other=0.0), mask=n < N)
