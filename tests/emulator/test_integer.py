"""Integer and bit instructions against numpy, on random numbers and on the ends of each type."""

from __future__ import annotations

import numpy as np
import pytest

N = 256


def samples(random, dtype, count=N):
    info = np.iinfo(dtype)
    values = random.integers(info.min, info.max, count, dtype, endpoint=True)
    ends = np.array([0, 1, 2, info.max, info.max - 1, info.min, info.min + 1], dtype)
    values[: ends.size] = ends
    values[64 : 64 + 16] = random.integers(0, 20, 16)  # small ones
    return random.permutation(values)


WIDE = {np.dtype(f"{s}{n}"): np.dtype(f"{s}{2 * n}") for s in "iu" for n in (2, 4)}
TYPES = {"u16": np.uint16, "s16": np.int16, "u32": np.uint32, "s32": np.int32, "u64": np.uint64, "s64": np.int64}


def exact(function, *arrays, dtype):
    """The function on Python's integers, wrapped to the type."""
    bits = 8 * np.dtype(dtype).itemsize
    results = [function(*(int(x) for x in row)) & ((1 << bits) - 1) for row in zip(*arrays, strict=True)]
    return np.array(results, f"u{bits // 8}").view(dtype)


def truncated(a, b):
    if b == 0:
        return -1
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def remainder(a, b):
    return a if b == 0 else a - b * truncated(a, b)


@pytest.mark.parametrize("name", TYPES)
def test_arithmetic(name, elementwise, random):
    dtype = TYPES[name]
    bits = 8 * np.dtype(dtype).itemsize
    a, b, c = (samples(random, dtype) for _ in range(3))

    def check(code, function, *arrays):
        assert np.array_equal(elementwise(code, list(arrays), dtype), exact(function, *arrays, dtype=dtype)), code

    check(f"add.{name} %d, %a, %b;", lambda x, y: x + y, a, b)
    check(f"sub.{name} %d, %a, %b;", lambda x, y: x - y, a, b)
    check(f"mul.lo.{name} %d, %a, %b;", lambda x, y: x * y, a, b)
    check(f"mul.hi.{name} %d, %a, %b;", lambda x, y: (x * y) >> bits, a, b)
    check(f"mad.lo.{name} %d, %a, %b, %c;", lambda x, y, z: x * y + z, a, b, c)
    check(f"mad.hi.{name} %d, %a, %b, %c;", lambda x, y, z: ((x * y) >> bits) + z, a, b, c)
    check(f"sad.{name} %d, %a, %b, %c;", lambda x, y, z: abs(x - y) + z, a, b, c)
    check(f"min.{name} %d, %a, %b;", min, a, b)
    check(f"max.{name} %d, %a, %b;", max, a, b)
    check(f"div.{name} %d, %a, %b;", truncated, a, b)
    check(f"rem.{name} %d, %a, %b;", remainder, a, b)
    if name[0] == "s":
        check(f"neg.{name} %d, %a;", lambda x: -x, a)
        check(f"abs.{name} %d, %a;", abs, a)
    if bits < 64:
        wide = WIDE[np.dtype(dtype)]
        got = elementwise(f"mul.wide.{name} %d, %a, %b;", [a, b], wide)
        assert np.array_equal(got, a.astype(wide) * b.astype(wide))
        addend = samples(random, wide)
        got = elementwise(f"mad.wide.{name} %d, %a, %b, %c;", [a, b, addend], wide)
        assert np.array_equal(got, exact(lambda x, y, z: x * y + z, a, b, addend, dtype=wide))


@pytest.mark.parametrize("name", TYPES)
def test_logic_and_shifts(name, elementwise, random):
    dtype = TYPES[name]
    bits = 8 * np.dtype(dtype).itemsize
    a, b = samples(random, dtype), samples(random, dtype)
    amount = random.integers(0, 80, N).astype(np.uint32)
    for op, function in {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.items():
        assert np.array_equal(elementwise(f"{op}.b{bits} %d, %a, %b;", [a, b], dtype), function(a, b))
    assert np.array_equal(elementwise(f"not.b{bits} %d, %a;", [a], dtype), ~a)
    assert np.array_equal(elementwise(f"cnot.b{bits} %d, %a;", [a], dtype), (a == 0).astype(dtype))
    got = elementwise(f"shl.b{bits} %d, %a, %b;", [a, amount], dtype)
    assert np.array_equal(got, exact(lambda x, n: x << n, a, amount, dtype=dtype))
    got = elementwise(f"shr.{name} %d, %a, %b;", [a, amount], dtype)
    assert np.array_equal(got, exact(lambda x, n: x >> n, a, amount, dtype=dtype))


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_fields(bits, elementwise, random):
    unsigned, signed = np.dtype(f"u{bits // 8}"), np.dtype(f"i{bits // 8}")
    a, b = samples(random, unsigned), samples(random, unsigned)
    position = random.integers(0, bits + 8, N).astype(np.uint32)
    length = random.integers(0, bits + 8, N).astype(np.uint32)

    def extract(x, p, n):
        return (x >> p) & ((1 << n) - 1)

    def extract_signed(x, p, n):  # the field's sign bit, or the operand's where the field reaches beyond it
        if n == 0:
            return 0
        sign = (x >> min(p + n - 1, bits - 1)) & 1
        keep = max(min(n, bits - p), 0)
        field = (x >> p) & ((1 << keep) - 1)
        return field | (-(1 << keep) if sign else 0)

    def insert(x, y, p, n):
        mask = ((1 << n) - 1) << p
        return (y & ~mask) | ((x << p) & mask)

    arrays = [a, position, length]
    got = elementwise(f"bfe.u{bits} %d, %a, %b, %c;", arrays, unsigned)
    assert np.array_equal(got, exact(extract, *arrays, dtype=unsigned))
    got = elementwise(f"bfe.s{bits} %d, %a, %b, %c;", arrays, unsigned)
    assert np.array_equal(got, exact(extract_signed, *arrays, dtype=unsigned))
    arrays = [a, b, position, length]
    got = elementwise(f"bfi.b{bits} %d, %a, %b, %c, %e;", arrays, unsigned)
    assert np.array_equal(got, exact(insert, *arrays, dtype=unsigned))

    assert np.array_equal(elementwise(f"popc.b{bits} %d, %a;", [a], np.uint32), [int(x).bit_count() for x in a])
    assert np.array_equal(elementwise(f"clz.b{bits} %d, %a;", [a], np.uint32), [bits - int(x).bit_length() for x in a])
    reverse = [int(f"{int(x):0{bits}b}"[::-1], 2) for x in a]
    assert np.array_equal(elementwise(f"brev.b{bits} %d, %a;", [a], unsigned), np.array(reverse, unsigned))
    top = [int(x).bit_length() - 1 for x in a]
    found = [t & 0xFFFFFFFF for t in top]
    assert np.array_equal(elementwise(f"bfind.u{bits} %d, %a;", [a], np.uint32), found)
    shift = [0xFFFFFFFF if t < 0 else bits - 1 - t for t in top]
    assert np.array_equal(elementwise(f"bfind.shiftamt.u{bits} %d, %a;", [a], np.uint32), shift)
    top = [int(x if x >= 0 else ~x).bit_length() - 1 for x in a.view(signed)]
    found = [t & 0xFFFFFFFF for t in top]
    assert np.array_equal(elementwise(f"bfind.s{bits} %d, %a;", [a], np.uint32), found)


def test_funnel_shift(elementwise, random):
    a, b = samples(random, np.uint32), samples(random, np.uint32)
    n = random.integers(0, 70, N).astype(np.uint32)
    both = (b.astype(object) << 32) | a.astype(object)
    for mode, amount in {"wrap": n & 31, "clamp": np.minimum(n, 32)}.items():
        right = np.array([int(x >> int(k)) & 0xFFFFFFFF for x, k in zip(both, amount, strict=True)], np.uint32)
        left = np.array([int(x << int(k) >> 32) & 0xFFFFFFFF for x, k in zip(both, amount, strict=True)], np.uint32)
        assert np.array_equal(elementwise(f"shf.r.{mode}.b32 %d, %a, %b, %c;", [a, b, n], np.uint32), right)
        assert np.array_equal(elementwise(f"shf.l.{mode}.b32 %d, %a, %b, %c;", [a, b, n], np.uint32), left)


@pytest.mark.parametrize("table", [0x80, 0xFE, 0x96, 0xCA, 0x1B])
def test_lop3(table, elementwise, random):
    a, b, c = (samples(random, np.uint32) for _ in range(3))
    want = np.zeros(N, np.uint32)
    for bit in range(32):
        index = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1)
        want |= ((table >> index) & 1).astype(np.uint32) << bit
    assert np.array_equal(elementwise(f"lop3.b32 %d, %a, %b, %c, {table};", [a, b, c], np.uint32), want)


def test_prmt(elementwise, random):
    a, b = samples(random, np.uint32), samples(random, np.uint32)
    selector = random.integers(0, 1 << 16, N).astype(np.uint32)
    pool = np.concatenate([a.view(np.uint8).reshape(N, 4), b.view(np.uint8).reshape(N, 4)], 1)

    def choose(index):  # (N, 4) numbers of bytes in the pool
        return np.take_along_axis(pool, index, 1).copy().view(np.uint32).reshape(N)

    nibbles = np.stack([selector >> 4 * k & 15 for k in range(4)], 1)
    want = np.take_along_axis(pool, nibbles & 7, 1)
    want = np.where(nibbles & 8, np.where(want & 128, 255, 0), want).astype(np.uint8)
    got = elementwise("prmt.b32 %d, %a, %b, %c;", [a, b, selector], np.uint32)
    assert np.array_equal(got, want.copy().view(np.uint32).reshape(N))
    k, q = np.arange(4), (selector & 3)[:, None].astype(np.int64)
    modes = {
        "f4e": (q + k) % 8,
        "b4e": (q - k) % 8,
        "rc8": q + 0 * k,
        "ecl": np.maximum(q, k),
        "ecr": np.minimum(q, k),
        "rc16": (q & 1) * 2 + (k & 1),
    }
    for mode, index in modes.items():
        assert np.array_equal(
            elementwise(f"prmt.b32.{mode} %d, %a, %b, %c;", [a, b, selector], np.uint32), choose(index)
        )


def test_carries_chain(elementwise, random):
    a, b = samples(random, np.uint64), samples(random, np.uint64)
    split = "mov.b64 {%t0, %t1}, %a; mov.b64 {%t2, %t3}, %b;"
    code = split + "add.cc.u32 %t0, %t0, %t2; addc.u32 %t1, %t1, %t3; mov.b64 %d, {%t0, %t1};"
    assert np.array_equal(elementwise(code, [a, b], np.uint64), a + b)
    code = split + "sub.cc.u32 %t0, %t0, %t2; subc.u32 %t1, %t1, %t3; mov.b64 %d, {%t0, %t1};"
    assert np.array_equal(elementwise(code, [a, b], np.uint64), a - b)
    code = split + "mad.lo.cc.u32 %t0, %t0, %t2, %t3; madc.hi.u32 %t1, 0, 0, 0; mov.b64 %d, {%t0, %t1};"
    low = (a.astype(np.uint32).astype(np.uint64) * b.astype(np.uint32)).astype(np.uint32).astype(np.uint64)
    assert np.array_equal(elementwise(code, [a, b], np.uint64), low + (b >> np.uint64(32)))


def test_saturation_pairs_and_dot_products(elementwise, random):
    a, b = samples(random, np.int32), samples(random, np.int32)
    wide = a.astype(np.int64) + b
    got = elementwise("add.sat.s32 %d, %a, %b;", [a, b], np.int32)
    assert np.array_equal(got, np.clip(wide, -(2**31), 2**31 - 1))
    pairs, other = a.view(np.int16), b.view(np.int16)
    got = elementwise("max.s16x2 %d, %a, %b;", [a, b], np.int32).view(np.int16)
    assert np.array_equal(got, np.maximum(pairs, other))
    got = elementwise("add.u16x2 %d, %a, %b;", [a, b], np.int32).view(np.int16)
    assert np.array_equal(got, pairs + other)
    c = samples(random, np.int32)
    for sa, sb in [("s", "s"), ("s", "u"), ("u", "s"), ("u", "u")]:
        x = a.view(np.int8 if sa == "s" else np.uint8).reshape(N, 4).astype(np.int64)
        y = b.view(np.int8 if sb == "s" else np.uint8).reshape(N, 4).astype(np.int64)
        got = elementwise(f"dp4a.{sa}32.{sb}32 %d, %a, %b, %c;", [a, b, c], np.int32)
        assert np.array_equal(got, ((x * y).sum(1) + c).astype(np.int32))
    got = elementwise("mul24.lo.s32 %d, %a, %b;", [a, b], np.int32)
    x, y = (v.astype(np.int64) << 40 >> 40 for v in (a, b))
    assert np.array_equal(got, (x * y).astype(np.int32))
