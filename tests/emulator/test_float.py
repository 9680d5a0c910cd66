"""Floating-point arithmetic, comparisons and conversions, bit for bit, against numpy and exact rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

N = 256
MODES = ("rn", "rz", "rm", "rp")
FORMATS = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52), "tf32": (8, 10)}


def round_exact(value: Fraction, fmt: str, mode: str) -> int:
    """The bits of a rational in a binary format: the definition, in exact arithmetic."""
    exponent_bits, fraction_bits = FORMATS[fmt]
    bias = (1 << (exponent_bits - 1)) - 1
    sign, magnitude = value < 0, abs(value)
    top = ((1 << exponent_bits) - 1) << fraction_bits
    if magnitude == 0:
        return 0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    scale = max(exponent, 1 - bias)
    units = magnitude / Fraction(2) ** (scale - fraction_bits)
    whole = units.numerator // units.denominator
    rest = units - whole
    up = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1),
        "rna": rest >= Fraction(1, 2),
        "rz": False,
        "rm": sign and rest > 0,
        "rp": not sign and rest > 0,
    }[mode]
    bits = ((scale + bias - 1) << fraction_bits) + whole + up
    if bits >= top:
        bits = top if mode in ("rn", "rna") or mode == ("rm" if sign else "rp") else top - 1
    return bits | sign << (exponent_bits + fraction_bits)


def floats(random, dtype, count=N):
    """All magnitudes, ties, subnormals."""
    bits = 8 * np.dtype(dtype).itemsize
    values = random.integers(0, 1 << bits, count, np.uint64).astype(f"u{bits // 8}").view(dtype)
    values = np.where(np.isfinite(values), values, dtype(1.5))
    values[::4] = random.standard_normal(values[::4].size)
    values[1::8] = random.integers(-8, 9, values[1::8].size) / dtype(8)
    return values.astype(dtype)


def halves(random, fmt, count=N):
    bits = random.integers(0, 1 << 16, count).astype(np.uint16)
    exponent = 0x7C00 if fmt == "f16" else 0x7F80
    bits = np.where(bits & exponent == exponent, bits & 0x8000 | 0x1, bits).astype(np.uint16)
    bits[::3] = from_float(random.standard_normal(bits[::3].size).astype(np.float32), fmt)
    return bits


def to_float(bits, fmt):
    if fmt == "f16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def from_float(values, fmt):
    return np.array([round_exact(Fraction(float(v)), fmt, "rn") for v in values], np.uint16)


@pytest.mark.parametrize("fmt", ["f32", "f64"])
@pytest.mark.parametrize("mode", MODES)
def test_every_rounding(fmt, mode, elementwise, random):
    dtype = np.float32 if fmt == "f32" else np.float64
    a, b, c = (random.standard_normal(N).astype(dtype) for _ in range(3))
    bits = np.dtype(f"u{dtype().itemsize}")

    def check(code, function, *arrays):
        rows = zip(*([Fraction(float(x)) for x in array] for array in arrays), strict=True)
        want = np.array([round_exact(function(*row), fmt, mode) for row in rows], bits)
        assert np.array_equal(elementwise(code, list(arrays), dtype).view(bits), want), code

    check(f"add.{mode}.{fmt} %d, %a, %b;", lambda x, y: x + y, a, b)
    check(f"sub.{mode}.{fmt} %d, %a, %b;", lambda x, y: x - y, a, b)
    check(f"mul.{mode}.{fmt} %d, %a, %b;", lambda x, y: x * y, a, b)
    check(f"fma.{mode}.{fmt} %d, %a, %b, %c;", lambda x, y, z: x * y + z, a, b, c)
    check(f"div.{mode}.{fmt} %d, %a, %b;", lambda x, y: x / y, a, b)
    check(f"rcp.{mode}.{fmt} %d, %a;", lambda x: 1 / x, a)


def test_special_values_and_flushing(elementwise):
    inf, nan = np.float32("inf"), np.float32("nan")
    tiny = np.float32(1e-40)
    a = np.array([0.0, -0.0, inf, -inf, nan, 1, nan, tiny], np.float32)
    b = np.array([-0.0, 0.0, 1, inf, 2, nan, nan, 0], np.float32)
    pad = lambda x: np.resize(x, 32)  # noqa: E731
    a, b = pad(a), pad(b)
    low = elementwise("min.f32 %d, %a, %b;", [a, b], np.float32)[:8]
    high = elementwise("max.f32 %d, %a, %b;", [a, b], np.float32)[:8]
    assert np.array_equal(low, np.array([0, 0, 1, -inf, 2, 1, nan, 0], np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(low[:2]), [True, True])
    assert np.array_equal(np.signbit(high[:2]), [False, False])
    assert np.isnan(elementwise("max.NaN.f32 %d, %a, %b;", [a, b], np.float32)[4:7]).all()
    three = elementwise("max.f32 %d, %a, %b, 0f40000000;", [a, b], np.float32, target="sm_100")[:8]
    assert np.array_equal(three, np.array([2, 2, inf, inf, 2, 2, 2, 2], np.float32))
    assert elementwise("add.ftz.f32 %d, %a, %b;", [a, b], np.float32)[7] == 0
    assert elementwise("add.f32 %d, %a, %b;", [a, b], np.float32)[7] == tiny
    saturated = elementwise("add.sat.f32 %d, %a, %b;", [a, b], np.float32)[:8]
    assert np.array_equal(saturated, np.array([0, 0, 1, 0, 0, 0, 0, tiny], np.float32)), saturated
    for test, want in {
        "finite": [1, 1, 0, 0, 0, 1, 0, 1],
        "notanumber": [0, 0, 0, 0, 1, 0, 1, 0],
        "subnormal": [0] * 7 + [1],
    }.items():
        got = elementwise(f"testp.{test}.f32 %p, %a; selp.u32 %d, 1, 0, %p;", [a], np.uint32)
        assert np.array_equal(got[:8], want), test


def test_functions(elementwise, random):
    a = np.abs(random.standard_normal(N)).astype(np.float32) + np.float32(0.1)
    wide = a.astype(np.float64)
    for code, want in {
        "sqrt.rn.f32": np.sqrt(wide),
        "rsqrt.approx.f32": 1 / np.sqrt(wide),
        "ex2.approx.f32": np.exp2(wide),
        "lg2.approx.f32": np.log2(wide),
        "sin.approx.f32": np.sin(wide),
        "cos.approx.f32": np.cos(wide),
        "tanh.approx.f32": np.tanh(wide),
        "rcp.approx.ftz.f32": 1 / wide,
    }.items():
        np.testing.assert_allclose(elementwise(f"{code} %d, %a;", [a], np.float32), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fmt", ["f16", "bf16"])
def test_halves(fmt, elementwise, random):
    a, b, c = (halves(random, fmt) for _ in range(3))
    x, y, z = ([Fraction(float(v)) for v in to_float(v, fmt)] for v in (a, b, c))

    def want(function, *columns):
        return np.array([round_exact(function(*row), fmt, "rn") for row in zip(*columns, strict=True)], np.uint16)

    def same(got, expected):  # the sign of an exact zero is not the rational's to know
        zero = (got & 0x7FFF == 0) & (expected & 0x7FFF == 0)
        assert np.array_equal(got[~zero], expected[~zero])

    def pairs(v):
        return np.ascontiguousarray(v).view(np.uint32)

    expected = {
        f"add.rn.{fmt}": (want(lambda p, q: p + q, x, y), [a, b]),
        f"sub.rn.{fmt}": (want(lambda p, q: p - q, x, y), [a, b]),
        f"mul.rn.{fmt}": (want(lambda p, q: p * q, x, y), [a, b]),
        f"fma.rn.{fmt}": (want(lambda p, q, r: p * q + r, x, y, z), [a, b, c]),
        f"min.{fmt}": (np.where(to_float(a, fmt) < to_float(b, fmt), a, b), [a, b]),
        f"neg.{fmt}": (a ^ 0x8000, [a]),
        f"abs.{fmt}": (a & 0x7FFF, [a]),
    }
    for code, (result, arrays) in expected.items():
        operands = ", ".join(f"%{n}" for n in "abc"[: len(arrays)])
        same(elementwise(f"{code} %d, {operands};", arrays, np.uint16), result)
        two = elementwise(f"{code}x2 %d, {operands};", [np.resize(pairs(v), N) for v in arrays], np.uint32)
        same(two.view(np.uint16)[:N], result)
    relu = elementwise(f"fma.rn.relu.{fmt} %d, %a, %b, %c;", [a, b, c], np.uint16)
    plain = expected[f"fma.rn.{fmt}"][0]
    same(relu, np.where(plain & 0x8000, 0, plain).astype(np.uint16))


def test_mixed_precision_and_pairs_of_singles(elementwise, random):
    h, f = halves(random, "f16"), random.standard_normal(N).astype(np.float32)
    got = elementwise("add.rn.f32.f16 %d, %a, %b;", [h, f], np.float32, target="sm_100")
    assert np.array_equal(got, to_float(h, "f16") + f)
    a, b, c = (random.standard_normal(2 * N).astype(np.float32) for _ in range(3))
    got = elementwise(
        "fma.rn.f32x2 %d, %a, %b, %c;", [v.view(np.uint64) for v in (a, b, c)], np.uint64, target="sm_100"
    )
    want = [
        round_exact(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), "f32", "rn")
        for x, y, z in zip(a, b, c, strict=True)
    ]
    assert np.array_equal(got.view(np.uint32), np.array(want, np.uint32))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", ["f16", "bf16"])
def test_narrowing(fmt, mode, elementwise, random):
    a, b = floats(random, np.float32), floats(random, np.float32)
    want = [np.array([round_exact(Fraction(float(x)), fmt, mode) for x in v], np.uint16) for v in (a, b)]
    nonzero = [v != 0 for v in (a, b)]
    got = elementwise(f"cvt.{mode}.{fmt}.f32 %d, %a;", [a], np.uint16)
    assert np.array_equal(got[nonzero[0]], want[0][nonzero[0]])
    if mode in ("rn", "rz"):
        got = elementwise(f"cvt.{mode}.{fmt}x2.f32 %d, %a, %b;", [a, b], np.uint32)
        assert np.array_equal((got >> 16)[nonzero[0]], want[0][nonzero[0]])
        assert np.array_equal((got & 0xFFFF)[nonzero[1]], want[1][nonzero[1]])


@pytest.mark.parametrize("mode", MODES)
def test_double_to_single_and_integers_to_float(mode, elementwise, random):
    a = floats(random, np.float64)
    a[::2] = random.standard_normal(N // 2) * 2.0 ** random.integers(-160, 130, N // 2)
    got = elementwise(f"cvt.{mode}.f32.f64 %d, %a;", [a], np.uint32)
    want = np.array([round_exact(Fraction(float(x)), "f32", mode) for x in a], np.uint32)
    assert np.array_equal(got[a != 0], want[a != 0])
    for name, dtype in {"s64": np.int64, "u64": np.uint64, "s32": np.int32, "u32": np.uint32}.items():
        info = np.iinfo(dtype)
        x = random.integers(info.min, info.max, N, dtype, endpoint=True)
        for fmt, out in {"f32": np.uint32, "f64": np.uint64, "f16": np.uint16}.items():
            got = elementwise(f"cvt.{mode}.{fmt}.{name} %d, %a;", [x], out)
            assert np.array_equal(got, np.array([round_exact(Fraction(int(v)), fmt, mode) for v in x], out)), (
                fmt,
                name,
            )


def test_tf32(elementwise, random):
    a = floats(random, np.float32)
    a = a[np.isfinite(a) & (a != 0)]
    a = np.resize(a, N)
    for mode in ("rna", "rn", "rz"):
        bits = np.array([round_exact(Fraction(float(x)), "tf32", mode) for x in a], np.uint32)
        want = (bits & 0x3FFFF) << 13 | (bits >> 18) << 31
        assert np.array_equal(elementwise(f"cvt.{mode}.tf32.f32 %d, %a;", [a], np.uint32), want)


def test_float_to_integer(elementwise, random):
    a = (random.standard_normal(N) * 2.0 ** random.integers(-2, 70, N)).astype(np.float32)
    a[:8] = [0.5, 1.5, 2.5, -0.5, -1.5, np.nan, np.inf, -np.inf]
    functions = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
    for mode, function in functions.items():
        for name, dtype in {
            "s32": np.int32,
            "u32": np.uint32,
            "s64": np.int64,
            "u8": np.uint8,
            "s16": np.int16,
        }.items():
            info = np.iinfo(dtype)
            whole = [0 if np.isnan(x) else x for x in function(a.astype(np.float64))]
            want = [info.max if x >= info.max else info.min if x <= info.min else int(x) for x in whole]
            out = np.dtype(f"i{max(info.bits // 8, 2)}") if info.min else np.dtype(f"u{max(info.bits // 8, 2)}")
            got = elementwise(f"cvt.{mode}.{name}.f32 %d, %a;", [a], out)
            assert np.array_equal(got, np.array(want, dtype).astype(out)), (mode, name)
        got = elementwise(f"cvt.{mode}.f32.f32 %d, %a;", [a], np.float32)
        assert np.array_equal(got, function(a), equal_nan=True)


def test_integer_conversions(elementwise, random):
    a = random.integers(-(2**31), 2**31, N).astype(np.int32)
    assert np.array_equal(elementwise("cvt.s64.s32 %d, %a;", [a], np.int64), a)
    assert np.array_equal(elementwise("cvt.u64.u32 %d, %a;", [a], np.uint64), a.view(np.uint32))
    assert np.array_equal(elementwise("cvt.s32.s8 %d, %a;", [a], np.int32), a.astype(np.int8))
    assert np.array_equal(elementwise("cvt.u32.u16 %d, %a;", [a], np.uint32), a.astype(np.uint16))
    assert np.array_equal(elementwise("cvt.sat.u8.s32 %d, %a;", [a], np.uint16), np.clip(a, 0, 255))
    assert np.array_equal(elementwise("cvt.sat.s16.s32 %d, %a;", [a], np.int16), np.clip(a, -32768, 32767))
    b = random.integers(-400, 400, N).astype(np.int32)
    got = elementwise("cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", [b, a, a.view(np.uint32)], np.uint32)
    low, high = np.clip(a, 0, 255).astype(np.uint32), np.clip(b, 0, 255).astype(np.uint32)
    assert np.array_equal(got, (a.view(np.uint32) << 16) | high << 8 | low)


def test_comparisons(elementwise, random):
    a = random.integers(-3, 4, N).astype(np.float32)
    b = random.integers(-3, 4, N).astype(np.float32)
    a[::5], b[::7] = np.nan, np.nan
    unordered = np.isnan(a) | np.isnan(b)
    ordered = {"eq": a == b, "ne": (a != b) & ~unordered, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
    tests = dict(ordered) | {f"{k}u": v | unordered for k, v in ordered.items()} | {"num": ~unordered, "nan": unordered}
    for name, want in tests.items():
        got = elementwise(f"setp.{name}.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;", [a, b], np.uint32)
        assert np.array_equal(got, want), name
        got = elementwise(f"set.{name}.f32.f32 %d, %a, %b;", [a, b], np.float32)
        assert np.array_equal(got, want.astype(np.float32)), name
    i, j = (random.integers(-4, 4, N).astype(np.int32) for _ in range(2))
    for name, want in {
        "lt": i < j,
        "lo": i.view(np.uint32) < j.view(np.uint32),
        "hs": i.view(np.uint32) >= j.view(np.uint32),
    }.items():
        sign = "s32" if name == "lt" else "u32"
        got = elementwise(
            f"setp.{name}.{sign} %p|%q, %a, %b; selp.u32 %d, 2, 0, %p; @%q or.b32 %d, %d, 1;", [i, j], np.uint32
        )
        assert np.array_equal(got, np.where(want, 2, 1)), name
    code = "setp.gt.s32 %q, %a, 0; setp.lt.and.s32 %p, %a, %b, !%q; selp.u32 %d, 1, 0, %p;"
    assert np.array_equal(elementwise(code, [i, j], np.uint32), (i < j) & ~(i > 0))
    assert np.array_equal(elementwise("slct.u32.s32 %d, %a, %b, %a;", [i, j], np.int32), np.where(i >= 0, i, j))
    x, y = halves(random, "f16"), halves(random, "f16")
    code = "setp.lt.f16x2 %p|%q, %a, %b; selp.u32 %d, 1, 0, %p; @%q or.b32 %d, %d, 2;"
    got = elementwise(code, [np.resize(x.view(np.uint32), N), np.resize(y.view(np.uint32), N)], np.uint32)[: N // 2]
    less = to_float(x, "f16") < to_float(y, "f16")
    assert np.array_equal(got, less[::2] + 2 * less[1::2])
