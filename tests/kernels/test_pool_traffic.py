"""What max pooling's kernels move, counted: against the fewest bytes, and nothing but whole sectors in vectors."""

from __future__ import annotations

import pytest
import torch

from kernels.pooling import Case
from pyconvx import _C

BF16, F32 = torch.bfloat16, torch.float32
WINDOWS = {
    "2x2 stride 2": dict(h=32, w=32, r=2, s=2, stride=(2, 2)),
    "3x3 stride 2": dict(h=56, w=56, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1)),
    "3x3": dict(h=28, w=28, r=3, s=3, padding=(1, 1, 1, 1)),
}
# Bytes moved against the fewest, at most, whatever the index. Where windows overlap, threads share nothing.
MOST = {"2x2 stride 2": 1.0, "3x3 stride 2": 1.3, "3x3": 1.9}
MOST_BACKWARD = {"2x2 stride 2": 1.0, "3x3 stride 2": 1.4, "3x3": 2.2}


def fewest(case):
    """Every element of the image and every pooled value and index once."""
    x = case.problem
    pooled = x.n * x.p * x.q * x.c
    return case.input.nbytes + pooled * (case.dtype.itemsize + (case.index.itemsize if case.index else 0))


def moved(case):
    """By the last run, of which every access of global memory is one of 16 bytes, and fills its sectors."""
    (launch,) = case.launches
    loads, stores = launch.counts.opcode("ld.global"), launch.counts.opcode("st.global")
    accesses = {name for name in launch.counts.by_opcode() if ".global." in name and not name.startswith("cvta")}
    assert accesses <= {"ld.global.v4.u32", "ld.global.v4.f32", "st.global.v4.u32"}, accesses
    assert 32 * stores.sectors == stores.bytes_asked and 32 * loads.sectors <= loads.bytes_asked
    return 32 * (loads.sectors + stores.sectors)


def large(problem):
    """The tile that a large batch of the problem gets."""
    fields = {
        name: getattr(problem, name)
        for name in ["h", "w", "r", "s", "stride", "padding", "dtype", "layout", "index", "activation"]
    }
    return _C.Pool2dProblem(n=256, c=64, **fields)


@pytest.mark.parametrize("index", [None, torch.uint8, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [BF16, F32], ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_forward(name, dtype, index):
    case = Case(n=1, c=64, dtype=dtype, index=index, **WINDOWS[name])
    case.check(case.plan(tile=_C.plan_max_pool2d(large(case.problem), "a100").tile))
    assert moved(case) <= MOST[name] * fewest(case)


@pytest.mark.parametrize("index", [torch.uint8, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [BF16, F32], ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_backward(name, dtype, index):
    case = Case(n=1, c=64, dtype=dtype, index=index, **WINDOWS[name])
    tile = _C.plan_max_pool2d_backward(large(case.problem), "a100").tile
    case.check_backward(plan=_C.plan_max_pool2d_backward(case.problem, "a100", tile=tile))
    assert moved(case) <= MOST_BACKWARD[name] * fewest(case)


def test_bytes_of_an_output():
    """bf16 with offsets of a byte, the figures of docs/kernels_pooling.md."""
    figures = {}
    for name in ("2x2 stride 2", "3x3 stride 2"):
        case = Case(n=1, c=64, dtype=BF16, **WINDOWS[name])
        case.check(case.plan(tile=_C.plan_max_pool2d(large(case.problem), "a100").tile))
        forward = moved(case)
        tile = _C.plan_max_pool2d_backward(large(case.problem), "a100").tile
        case.check_backward(plan=_C.plan_max_pool2d_backward(case.problem, "a100", tile=tile))
        outputs = case.pooled().numel()
        figures[name] = round(forward / outputs, 1), round(moved(case) / outputs, 1)
        assert fewest(case) == 11 * outputs
    assert figures == {"2x2 stride 2": (11.0, 11.0), "3x3 stride 2": (13.9, 13.0)}


# Planes, N C H W: rows in shared memory. At most: bytes an output of bf16 with offsets of a byte, and wavefronts of
# shared memory against those without conflicts. A tile of whole planes moves the fewest bytes there are.
PLANES = {
    "2x2 stride 2": (11.0, 1.5),
    "3x3 stride 2": (11.1, 1.7),
    "3x3": (5.1, 1.4),
    "2x2 stride 2, 14": (11.1, 1.5),  # planes of 14 x 14: many of them in a block
    "3x3 stride 2, 55": (11.8, 1.7),  # rows of 110 bytes
}
PLANE_WINDOWS = {
    **WINDOWS,
    "2x2 stride 2, 14": dict(h=14, w=14, r=2, s=2, stride=(2, 2)),
    "3x3 stride 2, 55": dict(h=55, w=55, r=3, s=3, stride=(2, 2)),
}


def plane_bytes(case, most_conflicts):
    """Bytes moved for an output of the last run; what moves by less than 16 bytes are ends of runs."""
    (launch,) = case.launches
    counts = launch.counts
    loads, stores = counts.opcode("ld.global"), counts.opcode("st.global")
    narrow = counts.where(lambda site: ".global." in site.opcode and ".v4." not in site.opcode)
    assert narrow.bytes_asked <= 0.003 * (loads.bytes_asked + stores.bytes_asked)
    assert counts.total.wavefronts <= most_conflicts * counts.total.ideal_wavefronts
    return (loads.bytes_moved + stores.bytes_moved) / case.pooled().numel()


@pytest.mark.parametrize("name", PLANES)
def test_planes_forward(name):
    case = Case(n=1, c=64 if "14" in name else 32, dtype=BF16, layout="nchw", **PLANE_WINDOWS[name])
    case.check(case.plan(tile=_C.plan_max_pool2d(large(case.problem), "a100").tile))
    assert plane_bytes(case, PLANES[name][1]) <= PLANES[name][0]


@pytest.mark.parametrize("name", PLANES)
def test_planes_backward(name):
    case = Case(n=1, c=64 if "14" in name else 32, dtype=BF16, layout="nchw", **PLANE_WINDOWS[name])
    tile = _C.plan_max_pool2d_backward(large(case.problem), "a100").tile
    case.check_backward(plan=_C.plan_max_pool2d_backward(case.problem, "a100", tile=tile))
    assert plane_bytes(case, PLANES[name][1]) <= PLANES[name][0]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_relu_before_costs_one_read_of_the_output(layout):
    """Bytes an output of the gradient of a ReLU and a 3x3 stride 2 pooling, bf16: 13.0 and 11.0 without the ReLU."""
    sizes = dict(n=1, c=64 if layout == "nhwc" else 32, layout=layout, relu=True, **WINDOWS["3x3 stride 2"])
    case = Case(dtype=BF16, **sizes)
    tile = _C.plan_max_pool2d_backward(large(case.problem), "a100").tile
    case.check_backward(plan=case.backward_plan(tile=tile))
    moved_bytes = moved(case) / case.pooled().numel() if layout == "nhwc" else plane_bytes(case, 1.6)
    assert round(moved_bytes, 1) == {"nhwc": 16.3, "nchw": 13.0}[layout]
