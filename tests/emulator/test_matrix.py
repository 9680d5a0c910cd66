"""Where ldmatrix, stmatrix, movmatrix and mma keep their elements.

The tables are written down from the PTX ISA manual (sections on the matrix instructions: figures and formulas of the
fragments), one entry per register and lane, in the manual's terms groupID = lane >> 2 and t = lane % 4; they share no
code and no formula with the emulator.
"""

from __future__ import annotations

import numpy as np
import pytest

from pyconvx import emulator

G = [lane >> 2 for lane in range(32)]
T = [lane % 4 for lane in range(32)]


def table(rows, columns):
    """[(row, column) of element i in each lane] for functions of (groupID, t, i)."""

    def build(elements):
        return [[(rows(g, t, i), columns(g, t, i)) for g, t in zip(G, T, strict=True)] for i in range(elements)]

    return build


# "Matrix Fragments for mma.m16n8k8 with .f16 / .bf16": A row = groupID for a0, a1, groupID + 8 for a2, a3;
# col = t * 2 + (i & 1). B row = t * 2 + i, col = groupID.
HALF_K8 = (
    table(lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1))(4),
    table(lambda g, t, i: t * 2 + i, lambda g, t, i: g)(2),
)
# m16n8k16 with .f16 / .bf16: A row = groupID for 0 <= i < 2 and 4 <= i < 6, else groupID + 8; col = t * 2 + (i & 1) for
# i < 4, plus 8 for i >= 4. B row = t * 2 + (i & 1) for i < 2, plus 8 for i >= 2.
HALF_K16 = (
    table(lambda g, t, i: g if i in (0, 1, 4, 5) else g + 8, lambda g, t, i: t * 2 + (i & 1) + (8 if i >= 4 else 0))(8),
    table(lambda g, t, i: t * 2 + (i & 1) + (8 if i >= 2 else 0), lambda g, t, i: g)(4),
)
# m16n8k4 with .tf32: A a0 (groupID, t), a1 (groupID + 8, t). B row = t, col = groupID.
TF32_K4 = (
    table(lambda g, t, i: g if i == 0 else g + 8, lambda g, t, i: t)(2),
    table(lambda g, t, i: t, lambda g, t, i: g)(1),
)
# m16n8k8 with .tf32: A row = groupID for a0, a2, groupID + 8 for a1, a3; col = t for a0, a1, t + 4 for a2, a3.
# B row = t for b0, t + 4 for b1.
TF32_K8 = (
    table(lambda g, t, i: g if i in (0, 2) else g + 8, lambda g, t, i: t if i < 2 else t + 4)(4),
    table(lambda g, t, i: t if i == 0 else t + 4, lambda g, t, i: g)(2),
)
# m16n8k16 with .u8 / .s8: A row = groupID for i < 4, groupID + 8 for 4 <= i < 8; col = t * 4 + (i & 3).
# B row = t * 4 + i.
BYTE_K16 = (
    table(lambda g, t, i: g if i < 4 else g + 8, lambda g, t, i: t * 4 + (i & 3))(8),
    table(lambda g, t, i: t * 4 + i, lambda g, t, i: g)(4),
)
# m16n8k32 with .u8 / .s8: A row = groupID for 0 <= i < 4 and 8 <= i < 12, else groupID + 8; col = t * 4 + (i & 3) for
# i < 8, plus 16 for i >= 8. B row = t * 4 + (i & 3), plus 16 for i >= 4.
BYTE_K32 = (
    table(lambda g, t, i: g if i // 4 in (0, 2) else g + 8, lambda g, t, i: t * 4 + (i & 3) + (16 if i >= 8 else 0))(
        16
    ),
    table(lambda g, t, i: t * 4 + (i & 3) + (16 if i >= 4 else 0), lambda g, t, i: g)(8),
)
# C and D of all m16n8 shapes: row = groupID for c0, c1, groupID + 8 for c2, c3; col = t * 2 + (i & 1).
ACCUMULATOR = table(lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1))(4)

SHAPES = {
    "m16n8k8.row.col.f32.f16.f16.f32": (8, HALF_K8),
    "m16n8k8.row.col.f32.bf16.bf16.f32": (8, HALF_K8),
    "m16n8k16.row.col.f32.f16.f16.f32": (16, HALF_K16),
    "m16n8k16.row.col.f16.f16.f16.f16": (16, HALF_K16),
    "m16n8k16.row.col.f32.bf16.bf16.f32": (16, HALF_K16),
    "m16n8k4.row.col.f32.tf32.tf32.f32": (4, TF32_K4),
    "m16n8k8.row.col.f32.tf32.tf32.f32": (8, TF32_K8),
    "m16n8k16.row.col.s32.s8.s8.s32": (16, BYTE_K16),
    "m16n8k32.row.col.s32.s8.s8.s32": (32, BYTE_K32),
    "m16n8k32.row.col.s32.u8.s8.s32": (32, BYTE_K32),
}


def as_type(values, kind):
    """The bits of integers held in a PTX type."""
    if kind == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    dtype = {"f16": np.float16, "tf32": np.float32, "f32": np.float32, "s8": np.int8, "u8": np.uint8, "s32": np.int32}[
        kind
    ]
    array = values.astype(dtype)
    return array.view(f"u{array.itemsize}")


def scatter(matrix, places, kind):
    """Registers (register, lane) that hold the matrix's elements where the table says."""
    bits = as_type(matrix, kind)
    elements = np.array([[bits[place] for place in lanes] for lanes in places], bits.dtype)  # (element, lane)
    per_register = 4 // bits.itemsize
    packed = elements.reshape(-1, per_register, 32).transpose(0, 2, 1)
    return np.ascontiguousarray(packed).view(np.uint32).reshape(-1, 32)


def run_on_registers(ptx_entry, instruction, sources, destinations, target="sm_80"):
    """One warp: loads source registers, executes the instruction, stores destination registers. "{d}" and "{s}" in the
    instruction stand for lists of registers."""
    count = len(sources)
    body = [f".reg .b32 %s<{count}>, %d<{destinations}>, %t; .reg .b64 %in, %out;"]
    body += ["ld.param.u64 %in, [pin]; ld.param.u64 %out, [pout]; mov.u32 %t, %tid.x;"]
    body += ["mad.wide.u32 %in, %t, 4, %in; mad.wide.u32 %out, %t, 4, %out;"]
    body += [f"ld.global.b32 %s{k}, [%in+{128 * k}];" for k in range(count)]
    body += [instruction]
    body += [f"st.global.b32 [%out+{128 * k}], %d{k};" for k in range(destinations)]
    text = ptx_entry("\n".join(body), ".param .u64 pin, .param .u64 pout", target=target)
    out = np.zeros((destinations, 32), np.uint32)
    emulator.Module(text).kernel("k").launch(1, 32, [np.ascontiguousarray(sources), out])
    return out


def registers(prefix, first, count):
    return "{" + ", ".join(f"%{prefix}{k}" for k in range(first, first + count)) + "}"


@pytest.mark.parametrize("name", SHAPES)
def test_mma(name, ptx_entry, random):
    k, (a_places, b_places) = SHAPES[name]
    d_kind, a_kind, b_kind, c_kind = name.split(".")[-4:]
    low = 0 if a_kind == "u8" else -4
    a, b, c = random.integers(low, 5, (16, k)), random.integers(-4, 5, (k, 8)), random.integers(-9, 9, (16, 8))
    if a_kind in ("s8", "u8"):
        a = random.integers(low * 32, 128, (16, k))
    parts = [scatter(a, a_places, a_kind), scatter(b, b_places, b_kind), scatter(c, ACCUMULATOR, c_kind)]
    want = scatter(a @ b + c, ACCUMULATOR, d_kind)
    sizes = [len(part) for part in parts]
    lists = [registers("s", sum(sizes[:n]), sizes[n]) for n in range(3)]
    instruction = f"mma.sync.aligned.{name} {registers('d', 0, len(want))}, {', '.join(lists)};"
    got = run_on_registers(ptx_entry, instruction, np.concatenate(parts), len(want))
    assert np.array_equal(got, want)


def test_mma_of_doubles(ptx_entry, random):
    # m8n8k4 .f64: a0 (groupID, t); b0 (t, groupID); c0, c1 (groupID, t * 2 + i).
    a, b, c = random.standard_normal((8, 4)), random.standard_normal((4, 8)), random.standard_normal((8, 8))
    body = """
    .reg .f64 %a, %b, %c0, %c1; .reg .b32 %t; .reg .b64 %in, %out;
    ld.param.u64 %in, [pin]; ld.param.u64 %out, [pout]; mov.u32 %t, %tid.x;
    mad.wide.u32 %in, %t, 8, %in; mad.wide.u32 %out, %t, 16, %out;
    ld.global.f64 %a, [%in]; ld.global.f64 %b, [%in+256]; ld.global.f64 %c0, [%in+512]; ld.global.f64 %c1, [%in+768];
    mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%c0, %c1}, {%a}, {%b}, {%c0, %c1};
    st.global.v2.f64 [%out], {%c0, %c1};
    """
    rows = [
        [a[g, t] for g, t in zip(G, T, strict=True)],
        [b[t, g] for g, t in zip(G, T, strict=True)],
        [c[g, t * 2] for g, t in zip(G, T, strict=True)],
        [c[g, t * 2 + 1] for g, t in zip(G, T, strict=True)],
    ]
    out = np.zeros((8, 8))
    kernel = emulator.Module(ptx_entry(body, ".param .u64 pin, .param .u64 pout")).kernel("k")
    kernel.launch(1, 32, [np.array(rows), out])
    np.testing.assert_allclose(out, a @ b + c, rtol=1e-14)


def test_mma_rounds_once_and_ignores_low_bits_of_tf32(ptx_entry):
    places = HALF_K16
    a, b, c = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
    a[0, :3], b[:3, 0] = [2048, 1, 1], 1
    c[0, 0] = 2.0**25
    parts = [scatter(a, places[0], "f16"), scatter(b, places[1], "f16"), scatter(c, ACCUMULATOR, "f32")]
    name = "m16n8k16.row.col.f32.f16.f16.f32"
    operands = ", ".join([registers("d", 0, 4), registers("s", 0, 4), registers("s", 4, 2), registers("s", 6, 4)])
    instruction = f"mma.sync.aligned.{name} {operands};"
    got = run_on_registers(ptx_entry, instruction, np.concatenate(parts), 4).view(np.float32)
    assert got[0, 0] == np.float32(2.0**25 + 2050)
    a, b = np.zeros((16, 8)), np.zeros((8, 8))
    a[:], b[:] = 3, 5
    parts = [
        scatter(a, TF32_K8[0], "tf32") | 0x1FFF,
        scatter(b, TF32_K8[1], "tf32") | 0x1FFF,
        scatter(c * 0, ACCUMULATOR, "f32"),
    ]
    instruction = f"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {operands};"
    got = run_on_registers(ptx_entry, instruction, np.concatenate(parts), 4).view(np.float32)
    assert (got == 120).all()


# "ldmatrix": thread groups of eight give the row addresses of matrices 0 to 3; each row of eight b16 elements goes to
# four consecutive threads: thread 4 * row + t receives elements 2t and 2t + 1 of that row. With .trans the matrix is
# read as its transpose.
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_and_stmatrix(count, transposed, ptx_entry, random):
    matrices = random.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    order = random.permutation(32)  # rows lie anywhere: every lane's own address counts
    memory = np.zeros((32, 8), np.uint16)
    memory[order] = matrices.reshape(32, 8)
    suffix = f".x{count}{'.trans' if transposed else ''}"
    held = registers("m", 0, count)
    body = f"""
    .reg .b32 %m<4>, %t, %at, %r, %v<4>; .reg .b64 %in, %out, %o, %order;
    .shared .align 16 .b8 box[512]; .shared .align 16 .b8 back[512];
    ld.param.u64 %in, [pin]; ld.param.u64 %out, [pout]; ld.param.u64 %order, [porder]; mov.u32 %t, %tid.x;
    mad.wide.u32 %o, %t, 16, %in; ld.global.v4.b32 {{%v0, %v1, %v2, %v3}}, [%o];
    mov.u32 %at, box; mad.lo.u32 %at, %t, 16, %at; st.shared.v4.b32 [%at], {{%v0, %v1, %v2, %v3}};
    bar.warp.sync -1;
    mad.wide.u32 %o, %t, 4, %order; ld.global.b32 %r, [%o];
    mov.u32 %at, box; mad.lo.u32 %at, %r, 16, %at;
    ldmatrix.sync.aligned.m8n8{suffix}.shared.b16 {held}, [%at];
    mad.wide.u32 %o, %t, 4, %out;
    {"".join(f"st.global.b32 [%o+{128 * k}], %m{k};" for k in range(count))}
    mov.u32 %at, back; mad.lo.u32 %at, %r, 16, %at;
    stmatrix.sync.aligned.m8n8{suffix}.shared.b16 [%at], {held};
    bar.warp.sync -1;
    .reg .pred %p; setp.lt.u32 %p, %t, {8 * count}; @!%p bra end;
    mad.wide.u32 %o, %r, 16, %out; ld.shared.v4.b32 {{%v0, %v1, %v2, %v3}}, [%at];
    st.global.v4.b32 [%o+512], {{%v0, %v1, %v2, %v3}};
    end:
    """
    out = np.zeros(256, np.uint32)
    kernel = emulator.Module(
        ptx_entry(body, ".param .u64 pin, .param .u64 pout, .param .u64 porder", target="sm_90")
    ).kernel("k")
    kernel.launch(1, 32, [memory, out, order.astype(np.uint32)])
    loaded = out[: 32 * count].reshape(count, 32)
    for j in range(count):
        matrix = matrices[j].T if transposed else matrices[j]
        for lane in range(32):
            row, t = lane // 4, lane % 4
            assert loaded[j, lane] == int(matrix[row, 2 * t]) | int(matrix[row, 2 * t + 1]) << 16
    written = out[128:].view(np.uint16).reshape(32, 8)
    assert np.array_equal(written[order[: 8 * count]], matrices.reshape(32, 8)[: 8 * count])


def test_movmatrix(ptx_entry, random):
    matrix = random.integers(0, 1 << 16, (8, 8)).astype(np.uint16)
    source = np.array(
        [[int(matrix[g, 2 * t]) | int(matrix[g, 2 * t + 1]) << 16 for g, t in zip(G, T, strict=True)]], np.uint32
    )
    got = run_on_registers(ptx_entry, "movmatrix.sync.aligned.m8n8.trans.b16 %d0, %s0;", source, 1)
    want = [int(matrix[2 * t, g]) | int(matrix[2 * t + 1, g]) << 16 for g, t in zip(G, T, strict=True)]
    assert np.array_equal(got[0], want)
