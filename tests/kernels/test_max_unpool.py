"""The kernels of max unpooling and its gradient: to the bit, for every kind of index, layout, window and size."""

from __future__ import annotations

from shutil import copytree

import numpy as np
import pytest
import torch

from kernels.harness import emulator, run
from kernels.unpooling import Unpooling, same_bits
from pyconvx import _C, ops
from pyconvx.backends._compiled import kernels_folder

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
U8, I32, I64 = torch.uint8, torch.int32, torch.int64
FLAT = (0, 0, 0, 0)

CASES = {  # size, window, stride, padding, dilation
    "2x2": ((2, 32, 6, 8), (2, 2), (2, 2)),
    "2x2 on odd sizes": ((2, 16, 7, 9), (2, 2), (2, 2)),
    "2x2, 8 channels": ((1, 8, 5, 4), (2, 2), (2, 2)),
    "2x2, 5 channels": ((1, 5, 6, 5), (2, 2), (2, 2)),
    "2x2, 144 channels": ((1, 144, 4, 4), (2, 2), (2, 2)),
    "3x3 stride 3": ((1, 48, 9, 7), (3, 3), (3, 3)),
    "3x3 stride 2": ((2, 16, 9, 11), (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3 stride 1": ((1, 8, 6, 5), (3, 3), (1, 1), (1, 1, 1, 1)),
    "unequal padding": ((2, 4, 6, 7), (2, 3), (2, 3), (0, 1, 1, 0)),
    "unequal padding, overlapping": ((2, 4, 6, 7), (3, 3), (2, 2), (0, 1, 1, 0)),
    "dilated, apart": ((1, 16, 12, 11), (2, 2), (4, 3), (0, 0, 1, 1), (3, 2)),
    "dilated, overlapping": ((1, 4, 9, 10), (3, 2), (1, 2), (1, 1, 1, 1), (2, 3)),
    "stride beyond the window": ((1, 16, 11, 13), (2, 2), (3, 5)),
    "many windows over one output": ((1, 4, 9, 12), (7, 7), (2, 2), (3, 3, 3, 3)),
    "one pixel": ((3, 4, 1, 1), (1, 1), (1, 1)),
    "the window is the image": ((2, 16, 5, 6), (5, 6), (1, 1)),
    "few windows, large ones": ((1, 8, 7, 8), (5, 5), (2, 2)),
    "71 columns": ((1, 2, 4, 71), (2, 2), (2, 2)),
    "289 taps": ((1, 4, 17, 34), (17, 17), (17, 17)),
}


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_moved_to_the_bit(case, layout):
    offsets = I32 if case == "289 taps" else U8
    for dtype, index in [(BF16, offsets), (F32, I64)]:
        Unpooling(*CASES[case], dtype=dtype, index=index, layout=layout).check()


@pytest.mark.parametrize("case", ["2x2 on odd sizes", "3x3 stride 3", "dilated, apart", "stride beyond the window"])
def test_every_tile_of_planes(case):
    """Tiles of some rows of a plane, and of many planes; and rows that do not fit shared memory."""
    for dtype, index in [(BF16, U8), (F64, I32)]:
        unpooling = Unpooling(*CASES[case], dtype=dtype, index=index, layout="nchw")
        for backward in (False, True):
            plan = unpooling.plan(backward)
            assert plan.family == "max_unpool_rows"
            for candidate in plan.candidates:
                result, bad = unpooling.run(backward, unpooling.plan(backward, tile=candidate.tile))
                expected = unpooling.expected_backward() if backward else unpooling.expected()
                assert bad == -1 and same_bits(result, expected)
            with pytest.raises(ValueError, match="there is no tile 3x3x3"):
                unpooling.plan(backward, tile="3x3x3")


def test_planes_whose_rows_do_not_fit_shared_memory():
    case = Unpooling((1, 1, 2, 25000), (2, 2), (2, 2), dtype=F16, layout="nchw")
    assert case.plan().family == case.plan(backward=True).family == "max_unpool"
    case.check()


@pytest.mark.parametrize("index", [U8, I32, I64], ids=str)
@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
def test_types(dtype, index):
    for window, stride, padding in [((2, 2), (2, 2), FLAT), ((3, 3), (2, 2), (1, 1, 1, 1))]:
        Unpooling((2, 16, 7, 8), window, stride, padding, dtype=dtype, index=index).check()


@pytest.mark.parametrize("dtype", [BF16, F32, F64], ids=str)
@pytest.mark.parametrize("channels", [16, 48, 80, 144])
def test_lanes_that_share_indices(dtype, channels):
    """Groups of 2, 4 or 8 lanes, the last of which has less to do."""
    Unpooling((2, channels, 5, 6), (2, 2), (2, 2), dtype=dtype).check()


@pytest.mark.parametrize("alignment", [16, 8, 4, 2])
def test_vector_lengths(alignment):
    for index in (U8, I64):
        case = Unpooling((1, 32, 6, 5), (2, 2), (2, 2), dtype=BF16, index=index)
        for backward in (False, True):
            result, _ = case.run(backward, case.plan(backward, alignment=alignment))
            assert same_bits(result, case.expected_backward() if backward else case.expected())


@pytest.mark.parametrize("order", ["descending", "random"])
@pytest.mark.parametrize("index", [U8, I64], ids=str)
def test_no_order_of_threads_changes_anything(index, order):
    for window, stride in [((2, 2), (2, 2)), ((3, 3), (1, 1)), ((5, 5), (1, 1))]:
        Unpooling((2, 16, 8, 9), window, stride, dtype=F16, index=index).check(order=order, seed=1)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_foreign_positions_of_which_several_name_one_place(layout):
    case = Unpooling((2, 12, 7, 9), (2, 2), (2, 2), dtype=F32, index=I64, layout=layout)
    case.indices = torch.randint(0, 6, case.indices.shape, generator=torch.Generator().manual_seed(1))
    assert not (case.expected_backward() != 0).all()
    case.check()


@pytest.mark.parametrize("window", [(2, 2), (6, 6)], ids=str)
def test_overlapping_offsets_that_all_name_one_place(window):
    """Offsets that no pooling would give: every window names the plane's middle wherever it lies over it."""
    case = Unpooling((1, 8, 11, 11), window, (1, 1), dtype=F16)
    p = torch.arange(case.problem.p)
    far = (5 - p).clamp(0, window[0] - 1)
    case.indices = (far[:, None] * window[1] + far).to(U8).expand(case.indices.shape).contiguous()
    assert (np.bincount(case.positions()[0, 0].ravel()) > 1).any()
    case.check()


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(
    "index, window, stride, value",
    [
        (U8, (2, 2), (2, 2), 4),
        (U8, (2, 2), (2, 2), 255),
        (U8, (3, 3), (2, 2), 9),
        (U8, (4, 4), (1, 1), 16),
        (I32, (2, 2), (2, 2), -1),
        (I32, (2, 2), (2, 2), 2**31 - 1),
        (I32, (3, 3), (2, 2), -(2**31)),
        (I64, (2, 2), (2, 2), 7 * 9),
        (I64, (2, 2), (2, 2), 2**32),  # 0 in 32 bits
        (I64, (2, 2), (2, 2), -1),
        (I64, (2, 2), (2, 2), -(2**63)),
    ],
    ids=str,
)
def test_bad_indices_are_reported_and_never_written(index, window, stride, value, layout):
    case = Unpooling((2, 16, 7, 9), window, stride, dtype=F32, index=index, layout=layout)
    good = case.indices.clone()
    for at in [(1, 3, 1, 2), (1, 2, 2, 0), (0, 15, 2, 2)]:
        case.indices[at] = value
    first = int((case.laid_out(case.indices) != case.laid_out(good)).flatten().nonzero()[0])
    case.input[:], case.grad_output[:] = 1, 1
    case.input[case.indices != good] = 99
    output, bad = case.run()
    assert bad == first
    assert not output.isnan().any() and not (output == 99).any()
    grad_input, bad = case.run(backward=True)
    assert bad == first
    assert not grad_input.isnan().any() and not grad_input[case.indices != good].any()
    at = np.unravel_index(first, case.laid_out(good).shape)
    n, c, p, q = (at[0], at[3], at[1], at[2]) if layout == "nhwc" else at
    assert case.problem.bad_index("max_unpool2d", case.indices[n, c, p, q].item(), n, c, p, q) == refusal(case)


def refusal(case):
    """The sentence of the CPU's kernels."""
    buffers = case.buffers()
    with pytest.raises(ValueError) as raised:
        _C.cpu.max_unpool2d(case.problem, *(buffers[name].data_ptr() for name in ("input", "indices", "output")))
    return str(raised.value)


@pytest.mark.parametrize("index", [U8, I32], ids=str)
def test_offsets_that_lead_out_of_the_plane(index):
    """Taps of windows that hang over the edge, first the last row's and then the first column's."""
    case = Unpooling((1, 16, 6, 6), (3, 3), (3, 3), (1, 0, 1, 0), dtype=BF16, index=index)
    case.indices[:] = 4
    case.check()
    case.indices[0, 5, 1, 0] = 3
    assert case.run()[1] == case.run(backward=True)[1] == 2 * 16 + 5
    case.indices[0, 7, 0, 1] = 1
    assert case.run()[1] == case.run(backward=True)[1] == 16 + 7


def test_backends_agree_with_the_cpu():
    """The same sizes as SegNet's, in small, through csrc/cpu."""
    case = Unpooling((2, 64, 12, 16), (2, 2), (2, 2), dtype=BF16)
    geometry = (2, 2), (2, 2), FLAT, (1, 1), (12, 16)
    nhwc = torch.channels_last
    tensors = (tensor.contiguous(memory_format=nhwc) for tensor in (case.input, case.indices))
    assert same_bits(case.run()[0], ops.max_unpool2d(*tensors, *geometry))
    tensors = (tensor.contiguous(memory_format=nhwc) for tensor in (case.grad_output, case.indices))
    assert same_bits(case.run(backward=True)[0], ops.max_unpool2d_backward(*tensors, *geometry))


# More than 2^31 elements, of which memory holds the few pages that are touched.


def test_gradients_beyond_31_bits():
    """Windows at the corners of three images, the last of which lies wholly beyond 2^31 elements."""
    n, c, h, w = 3, 16, 8000, 9000
    assert 2 * c * h * w > 2**31
    small = Unpooling((n, c, 4, 4), (2, 2), (2, 2), dtype=F16)
    problem = _C.Unpool2dProblem(
        n=n, c=c, p=2, q=2, h=h, w=w, r=2, s=2, stride=(h - 2, w - 2), dtype=small.problem.dtype,
        layout=_C.Layout.nhwc, index=small.problem.index,
    )  # fmt: skip
    buffers = small.buffers(backward=True)
    grad = emulator.sparse((n, h, w, c), np.float16)
    for p, q in np.ndindex(2, 2):
        rows, columns = (slice(0, 2), slice(-2, None))[p], (slice(0, 2), slice(-2, None))[q]
        grad[:, rows, columns] = buffers["grad_output"][:, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2].numpy()
    run(_C.plan_max_unpool2d_backward(problem, "a100"), {**buffers, "grad_output": grad})
    assert same_bits(buffers["grad_input"].permute(0, 3, 1, 2), small.expected_backward())


def test_output_beyond_31_bits():
    """One image of 2^31 cells and two rows of them more, which are a launch of their own; the last row of each."""
    q = 2**18
    lines = (2**31 - 1024) // q
    p = lines + 2
    size = dict(n=1, c=1, p=p, q=q, h=2 * p, w=2 * q, r=2, s=2, stride=(2, 2))
    problem = _C.Unpool2dProblem(**size, dtype=_C.DType.float16, layout=_C.Layout.nhwc, index=_C.IndexType.uint8)
    plan = _C.plan_max_unpool2d(problem, "a100", alignment=16)
    assert len(plan.launches) == 2
    input, indices = emulator.sparse((p, q), np.int16), emulator.sparse((p, q), np.uint8)
    output = emulator.sparse((2 * p, 2 * q), np.int16)
    generator = np.random.default_rng(0)
    rows = [lines - 1, p - 1]
    input[rows], indices[rows] = generator.integers(1, 30000, (2, q)), generator.integers(0, 4, (2, q))
    output[2 * lines - 3 :] = -1
    buffers = {"input": input, "indices": indices, "output": output, "bad_index": torch.zeros(1, dtype=torch.int64)}
    run(plan, buffers, last_blocks=q // 256)
    column = np.arange(q)
    for row in rows:
        expected = np.zeros((2, 2 * q), np.int16)
        expected[indices[row] // 2, 2 * column + indices[row] % 2] = input[row]
        assert (output[2 * row : 2 * row + 2] == expected).all()
        assert (output[2 * row - 1] == -1).all()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"w": 2**31}, "in 31 bits"),
        ({"stride": (2**30, 2), "p": 4}, "in 31 bits"),
        ({"index": _C.IndexType.none}, "indices are needed"),
    ],
    ids=str,
)
def test_what_has_no_plan_is_refused_in_a_sentence(changes, sentence):
    fields = dict(n=1, c=8, p=4, q=4, h=8, w=8, r=2, s=2, stride=(2, 2), layout=_C.Layout.nhwc)
    problem = _C.Unpool2dProblem(**{**fields, "index": _C.IndexType.uint8, **changes})
    for plan in (_C.plan_max_unpool2d, _C.plan_max_unpool2d_backward):
        with pytest.raises(ValueError, match=sentence):
            plan(problem, "a100")


def test_every_chip_has_a_plan_and_an_empty_batch_none():
    case = Unpooling((1, 16, 4, 4), (2, 2), (2, 2))
    for device in _C.devices():
        assert [launch.kernel for launch in case.plan(device=device.name).launches] == [
            launch.kernel for launch in case.plan().launches
        ]
    empty = _C.Unpool2dProblem(n=0, c=8, p=4, q=4, h=8, w=8, r=2, s=2, stride=(2, 2), index=_C.IndexType.uint8)
    assert not _C.plan_max_unpool2d(empty, "a100").launches
    assert not _C.plan_max_unpool2d_backward(empty, "a100").launches


# The checks are checked: kernels that are wrong in one place.

FAULTS = {
    "windows read before they are there": ("max_unpool_rows.cuh", "    indices.load(first, all);\n    __syncthreads();",
                                           "    indices.load(first, all);"),
    "gradients read before they are there": ("max_unpool_rows.cuh", "args_.p * args_.q);\n    __syncthreads();",
                                             "args_.p * args_.q);"),
    "stored before it is there": ("max_unpool_rows.cuh", "    __syncthreads();\n    output", "    output"),
    "cells of the wrong plane": ("max_unpool_rows.cuh", "at.plane * args_.h + h - top", "at.plane * args_.p + h - top"),
    "windows of cells without": ("max_unpool_rows.cuh", "at.row < args_.p && at.column < args_.q", "at.row < args_.p"),
    "an index that is not looked at": ("max_unpool_rows.cuh", "value = gradient[(", "value = gradient[0 * ("),
    "lanes that keep each other's indices": ("words.cuh", "upper ? piece[k][j] : piece[k | step][j]", "piece[k][j]"),
    "values of the neighbour's chunk": ("unpool.cuh", "k * K + at_.chunk % K", "k + at_.chunk % K"),
    "the first that wins": ("unpool_last.cuh", "static_cast<Rank>(rank + 1));\n", "static_cast<Rank>(1));\n"),
    "a later window too few": ("max_unpool_backward.cuh", "i ? 1 - args_.reach_w : 1", "1"),
    "a window too few": ("max_unpool.cuh", "j < args_.reach_w", "j < args_.reach_w - 1"),
    "cells without windows left out": ("max_unpool.cuh", "if (!window_.at().exists) return;",
                                       "if (!window_.at().exists || !window_.in_pooled(p_, q_)) return;"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path / "cache"))
    file, right, wrong = FAULTS[fault]
    headers = copytree(kernels_folder(), tmp_path / "cuda")
    text = (headers / "pool" / file).read_text()
    assert right in text
    (headers / "pool" / file).write_text(text.replace(right, wrong))
    noticed = 0
    for case in (
        [
            Unpooling((1, 32, 7, 9), (2, 2), (2, 2)),
            Unpooling((1, 8, 7, 9), (3, 3), (2, 2), seed=1),
            Unpooling((1, 4, 7, 9), (3, 3), (1, 1), index=I64),
        ]
        if "rows" not in file
        else [Unpooling((2, 9, *size), (2, 2), (2, 2), layout="nchw") for size in ((31, 35), (7, 9))]
    ):
        try:
            case.check(headers=headers)
        except (AssertionError, emulator.EmulatorError):
            noticed += 1
    assert noticed
