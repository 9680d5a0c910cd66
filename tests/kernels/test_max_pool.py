"""Max pooling's kernels, whose results must be csrc/cpu's: values and indices of every form, to the bit; gradients,
which are sums in one fixed order; and what lies where the winners were."""

from __future__ import annotations

import itertools
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kernels.harness import DTYPES as DTYPES_OF
from kernels.harness import emulator, run
from kernels.pooling import Case, assert_same
from pyconvx import _C
from pyconvx._problem import INDEX_TYPES
from pyconvx.backends._compiled import kernels_folder

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
DTYPES = (F16, BF16, F32, F64)
INDICES = (None, torch.uint8, torch.int32, torch.int64)

PAD = (1, 1, 1, 1)
# n, h, w and the window. Sizes leave partial tiles in both directions.
CONSTANT = {
    "2x2": dict(n=2, h=7, w=11, r=2, s=2, stride=(2, 2)),
    "2x2, ceil": dict(n=1, h=7, w=9, r=2, s=2, stride=(2, 2), ceil_mode=True),
    "3x3 stride 2": dict(n=2, h=13, w=21, r=3, s=3, stride=(2, 2), padding=PAD),
    "3x3 stride 2, ceil": dict(n=1, h=10, w=8, r=3, s=3, stride=(2, 2), padding=(0, 1, 1, 0), ceil_mode=True),
    "3x3": dict(n=1, h=9, w=7, r=3, s=3, padding=PAD),
    "one pixel": dict(n=3, h=1, w=1, r=3, s=3, padding=PAD),
}
ANY = {
    "1x1": dict(n=2, h=4, w=5, r=1, s=1),
    "5x1": dict(n=1, h=9, w=3, r=5, s=1, stride=(2, 1), padding=(2, 2, 0, 0)),
    "dilated": dict(n=1, h=9, w=10, r=3, s=2, stride=(1, 2), padding=PAD, dilation=(2, 3)),
    "dilated, ceil": dict(n=1, h=8, w=9, r=2, s=3, stride=(3, 2), padding=PAD, dilation=(3, 2), ceil_mode=True),
    "stride beyond the window": dict(n=1, h=11, w=13, r=3, s=3, stride=(4, 5), padding=PAD),
    "unequal padding": dict(n=2, h=6, w=7, r=3, s=4, stride=(2, 3), padding=(1, 0, 0, 2), ceil_mode=True),
    "no tap inside": dict(n=1, h=2, w=5, r=2, s=2, padding=PAD, dilation=(3, 3)),
    "no tap inside, right": dict(n=1, h=4, w=1, r=2, s=2, padding=(0, 0, 1, 1), dilation=(1, 2)),
    "the window is the image": dict(n=2, h=5, w=6, r=5, s=6),
    "the window exceeds the image": dict(n=1, h=2, w=3, r=4, s=5, padding=PAD),
    "255 taps": dict(n=1, h=17, w=18, r=15, s=17),
}


WINDOWS = {**CONSTANT, **ANY}


def indices_of(problem):
    return INDICES if problem["r"] * problem["s"] <= 255 else (None, torch.int32, torch.int64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CONSTANT)
def test_constant_windows(name, dtype):
    """Channels of 16-byte vectors: those of lanes that exchange indices, and those of a few."""
    for i, index in enumerate(INDICES):
        for c in (64, 16 * (3 + i % 2) // dtype.itemsize):
            case = Case(c=c, dtype=dtype, index=index, **CONSTANT[name])
            assert case.plan().family == "max_pool"
            case.check(case.plan(tile=case.plan().candidates[i % len(case.plan().candidates)].tile))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ANY)
def test_any_window(name, dtype):
    for i, index in enumerate(indices_of(ANY[name])):
        case = Case(c=(64, 24, 5, 10)[(i + DTYPES.index(dtype)) % 4], dtype=dtype, index=index, **ANY[name])
        assert case.plan().family == "max_pool_any"
        case.check()


@pytest.mark.parametrize(
    "name, dtype", [(name, dtype) for i, name in enumerate(WINDOWS) for dtype in DTYPES[i % 2 :: 2]], ids=str
)
def test_planes(name, dtype):
    """Rows of 5 planes in shared memory, and tiles that end within a plane."""
    turn = DTYPES.index(dtype) + len(name)
    indices = indices_of(WINDOWS[name])
    index = indices[turn % len(indices)]
    case = Case(c=5, dtype=dtype, index=index, layout="nchw", relu=dtype == BF16, **WINDOWS[name])
    assert case.plan().family == "max_pool_rows"
    case.check()
    case.check(case.plan(tile=case.plan().candidates[turn % len(case.plan().candidates)].tile))


@pytest.mark.parametrize("dtype, index", [(BF16, torch.uint8), (F32, torch.int64)], ids=str)
def test_every_tile_of_planes(dtype, index):
    for name in ("2x2", "3x3 stride 2", "dilated, ceil"):
        case = Case(c=33, dtype=dtype, index=index, layout="nchw", **WINDOWS[name])
        for candidate in case.plan().candidates:
            case.check(case.plan(tile=candidate.tile))
        for candidate in _C.plan_max_pool2d_backward(case.problem, "a100").candidates:
            case.check_backward(plan=_C.plan_max_pool2d_backward(case.problem, "a100", tile=candidate.tile))


def test_planes_without_rows_in_shared_memory():
    """Rows that are too long, strides that leave out most rows, and kernels that are compiled ahead of time."""
    for sizes in (dict(n=1, h=3, w=9001, r=3, s=3, stride=(2, 2)), dict(n=1, h=41, w=8, r=2, s=2, stride=(9, 2))):
        case = Case(c=2, dtype=BF16, layout="nchw", **sizes)
        assert case.plan().family.removesuffix("_any") == "max_pool"
        case.check()
        case.check_backward()
    case = Case(c=5, dtype=BF16, layout="nchw", **WINDOWS["3x3 stride 2"])
    assert case.plan(ahead_of_time=True).family == "max_pool_any"
    case.check(case.plan(ahead_of_time=True))


@pytest.mark.parametrize("shift", [2, 6, 8, 14])
def test_planes_at_any_address(shift):
    """Tensors that begin between two pieces of 16 bytes, and end there; nothing around them is touched."""
    case = Case(c=3, dtype=BF16, layout="nchw", **WINDOWS["3x3 stride 2"])

    def shifted(tensor, shift):
        size = tensor.element_size()
        whole = torch.full((tensor.numel() + 32,), 77, dtype=tensor.dtype)
        start = (-whole.data_ptr() % 16 + shift) // size
        part = whole[start : start + tensor.numel()].view(tensor.shape)
        part.copy_(tensor)
        return part, whole

    input, _ = shifted(case.input, shift)
    output, around = shifted(case.pooled(), 16 - shift)
    indices, around_indices = shifted(case.pooled(case.index), shift + 1)
    before = around.clone(), around_indices.clone()
    plan = case.plan(alignment=2)
    run(plan, {"input": input, "output": output, "indices": indices})
    for actual, expected in zip((output, indices), case.expected(), strict=True):
        assert_same(actual, expected, case.problem)
    output.fill_(-77.5), indices.fill_(77)
    assert torch.equal(around, before[0]) and torch.equal(around_indices, before[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_tile_and_vector(dtype):
    """Channels that allow vectors of 16, 8, 4 and 2 bytes."""
    for i, (c, name) in enumerate(itertools.product((32, 12, 6, 5), ("2x2", "3x3 stride 2", "3x3"))):
        case = Case(c=c, dtype=dtype, index=INDICES[i % 4], **CONSTANT[name])
        for candidate in case.plan().candidates:
            case.check(case.plan(tile=candidate.tile))
    for alignment in (16, 8, 4, 2):
        if alignment >= dtype.itemsize:
            plan = case.plan(alignment=alignment)
            assert (
                f", {max(min(alignment, 16), dtype.itemsize)}, "
                in Case(c=32, dtype=dtype, **CONSTANT["2x2"]).plan(alignment=alignment).launches[0].kernel
            )
            case.check(plan)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_gradients(name, dtype):
    """Sums of floats, which only one order of summation gives."""
    for i, index in enumerate(indices_of(WINDOWS[name])[1:]):
        c = (64, 16 * 3 // dtype.itemsize, 5)[(i + DTYPES.index(dtype)) % 3]
        case = Case(c=c, dtype=dtype, index=index, **WINDOWS[name])
        plan = _C.plan_max_pool2d_backward(case.problem, "a100")
        assert plan.family == ("max_pool_backward" if name in CONSTANT else "max_pool_backward_any")
        case.check_backward(torch.randn(case.pooled().shape, generator=torch.Generator().manual_seed(1)).to(dtype))
        if name in CONSTANT:
            for candidate in plan.candidates[1:]:
                plan = _C.plan_max_pool2d_backward(case.problem, "a100", tile=candidate.tile)
                case.check_backward(case.gradient(finite=False), plan)


@pytest.mark.parametrize(
    "name, dtype", [(name, dtype) for i, name in enumerate(WINDOWS) for dtype in DTYPES[i % 2 :: 2]], ids=str
)
def test_gradients_of_planes(name, dtype):
    turn = DTYPES.index(dtype) + len(name)
    indices = indices_of(WINDOWS[name])[1:]
    case = Case(c=5, dtype=dtype, index=indices[turn % len(indices)], layout="nchw", **WINDOWS[name])
    plan = _C.plan_max_pool2d_backward(case.problem, "a100")
    assert plan.family == "max_pool_rows_backward"
    case.check_backward(torch.randn(case.pooled().shape, generator=torch.Generator().manual_seed(1)).to(dtype))
    tile = plan.candidates[turn % len(plan.candidates)].tile
    case.check_backward(case.gradient(finite=False), _C.plan_max_pool2d_backward(case.problem, "a100", tile=tile))


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("name", ["3x3 stride 2", "dilated", "no tap inside"])
def test_gather(name, layout):
    for dtype, index, c in itertools.product(DTYPES, INDICES[1:], (16, 5)):
        case = Case(c=c, dtype=dtype, index=index, layout=layout, **WINDOWS[name])
        case.check_gather()
        # Indices that lead out of the plane read nothing.
        case.check_gather(torch.from_numpy(case.rng.integers(-5, 300, case.pooled().shape)).to(index))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["2x2", "3x3 stride 2", "dilated", "no tap inside"])
def test_relu_before(name, dtype):
    for i, index in enumerate(INDICES[(DTYPES.index(dtype) + len(name)) % 2 :: 2]):
        Case(c=(64, 5)[i % 2], dtype=dtype, index=index, relu=True, **WINDOWS[name]).check()


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("name", ["2x2", "3x3 stride 2", "3x3", "dilated", "no tap inside"])
def test_gradients_of_relu_before(name, layout):
    """In one pass, from the output: of windows that are not above 0 there nothing passes, of NaNs the gradient."""
    pairs = list(zip(DTYPES, (*INDICES[1:], torch.uint8), strict=True))[len(name + layout) % 2 :: 2]
    for i, (dtype, index) in enumerate(pairs):
        case = Case(c=(64, 5)[i % 2], dtype=dtype, index=index, layout=layout, relu=True, **WINDOWS[name])
        plan = case.backward_plan()
        assert len(plan.launches) == 1
        case.check_backward()
        case.check_backward(case.gradient(finite=False), case.backward_plan(tile=plan.candidates[-1].tile)
                            if plan.candidates else None)  # fmt: skip


@pytest.mark.parametrize("order", ["descending", "random"])
def test_order_of_threads_changes_nothing(order):
    for name, index in itertools.product(("2x2", "3x3 stride 2", "dilated"), (torch.uint8, torch.int64)):
        case = Case(c=32, dtype=BF16, index=index, **WINDOWS[name])
        case.check(order=order, seed=3)
        case.check_backward(order=order, seed=4)
        case.check_gather(order=order, seed=5)


def test_plans_ahead_of_time_keep_to_what_is_compiled():
    compiled = {kernel.name for kernel in _C.ahead_of_time_kernels() if kernel.header.startswith("pool/max_pool")}
    seen = set()
    for dtype, index, c, relu in itertools.product(DTYPES, INDICES, (64, 5), _C.Activation.__members__.values()):
        for window in (*WINDOWS.values(), dict(n=1, h=2**17, w=2**15, r=3, s=3)):
            if index not in indices_of(window):
                continue
            fields = dict(dtype=DTYPES_OF[dtype], index=INDEX_TYPES[index], layout=_C.Layout.nhwc, activation=relu)
            problem = _C.Pool2dProblem(**{**window, **fields, "c": c})
            for plan in (_C.plan_max_pool2d, _C.plan_max_pool2d_backward, _C.plan_max_pool2d_gather):
                if plan is _C.plan_max_pool2d_gather and index == torch.int32:
                    with pytest.raises(ValueError, match="no kernel of it ahead of time for indices of int32; use bac"):
                        plan(problem, "t4", ahead_of_time=True)
                elif index is not None or plan is _C.plan_max_pool2d:
                    seen |= {launch.kernel for launch in plan(problem, "t4", ahead_of_time=True).launches}
    assert seen == compiled


# More than 2^31 elements, of which memory holds the few pages that are touched.


@pytest.mark.parametrize("index", [torch.uint8, torch.int64], ids=str)
def test_windows_beyond_31_bits(index):
    """Windows at the corners of planes with more than 2^31 places, whose positions no integer of 32 bits holds."""
    h, w, n = 2**16 + 2, 2**15 + 8, 2
    small = Case(n=n, c=1, h=6, w=6, r=3, s=3, stride=(3, 3), dtype=F16, index=index)
    x = _C.Pool2dProblem(
        n=n, c=1, h=h, w=w, r=3, s=3, stride=(h - 3, w - 3), dtype=small.problem.dtype, layout=_C.Layout.nhwc,
        index=small.problem.index,
    )  # fmt: skip
    rows, columns = np.ix_([0, 1, 2, h - 3, h - 2, h - 1], [0, 1, 2, w - 3, w - 2, w - 1])
    input = emulator.sparse((n, h, w, 1), np.float16)
    input[:, rows, columns] = small.input.numpy()
    output, indices = small.pooled(), small.pooled(index)
    run(_C.plan_max_pool2d(x, "a100"), {"input": input, "output": output, "indices": indices})
    expected, offsets = small.expected()
    assert_same(output, expected, x)
    if index == torch.int64:
        positions = torch.from_numpy(rows * w + columns).flatten()
        offsets = positions[offsets]
        assert offsets.max() > 2**31
    assert torch.equal(indices, offsets)
    gathered = torch.zeros_like(output)
    run(_C.plan_max_pool2d_gather(x, "a100"), {"input": input, "indices": indices, "output": gathered})
    assert_same(gathered, expected, x)


@pytest.mark.parametrize("backward", [False, True])
def test_the_end_of_a_tensor_beyond_31_bits(backward):
    """The last rows of an image of 2^31 elements, by the launch's last threads: all of them are too many to run."""
    h, w, c, rows = 2**13 + 2, 2**9, 2**9, 16
    small = Case(n=1, c=c, h=rows, w=w, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1), dtype=BF16)
    fields = {name: getattr(small.problem, name) for name in ("n", "c", "w", "r", "s", "stride", "padding", "dtype")}
    x = _C.Pool2dProblem(h=h, layout=_C.Layout.nhwc, index=_C.IndexType.uint8, **fields)
    assert h * w * c > 2**31

    def at_the_end(plan):
        """The plan's launch of its last line of threads."""
        (launch,) = plan.launches
        blank = bytearray(launch.arguments())
        sweep = len(blank) - 56  # threads, first line, threads of a line ...
        threads, _, line = np.frombuffer(blank, np.uint32, 3, sweep)
        blank[sweep : sweep + 8] = np.array([line, threads // line - 1], np.uint32).tobytes()
        fields = {name: getattr(launch, name) for name in ("kernel", "header", "block", "shared_bytes", "pointers")}
        grid, arguments = (-(-int(line) // launch.block), 1, 1), lambda: bytes(blank)
        step = SimpleNamespace(**fields, constants={}, grid=grid, arguments=arguments)
        return SimpleNamespace(launches=[step], workspaces={})

    def huge(small, height):
        there = emulator.sparse((1, height, *small.shape[2:]), np.uint8 if small.dtype == torch.uint8 else np.int16)
        there[0, -small.shape[1] :] = (small if small.dtype == torch.uint8 else small.view(torch.int16))[0].numpy()
        return there

    output, indices = small.expected()
    if backward:
        gradient = small.gradient()
        to = emulator.sparse((1, h, w, c), np.int16)
        plan = _C.plan_max_pool2d_backward(x, "a100", tile="1x2")
        run(at_the_end(plan), {"grad_output": huge(gradient, x.p), "indices": huge(indices, x.p), "grad_input": to})
        expected = small.backward(gradient, indices, _C.plan_max_pool2d_backward(small.problem, "a100"))
        last = 1  # block row (h + pad) / 2 - 1 begins at row h - 1
        assert torch.equal(torch.from_numpy(to[0, -last:].copy()), expected[0, -last:].view(torch.int16))
    else:
        to, offsets = emulator.sparse((1, x.p, x.q, c), np.int16), emulator.sparse((1, x.p, x.q, c), np.uint8)
        plan = _C.plan_max_pool2d(x, "a100", tile="1x2")
        run(at_the_end(plan), {"input": huge(small.input, h), "output": to, "indices": offsets})
        assert torch.equal(torch.from_numpy(to[0, -1].copy()), output[0, -1].view(torch.int16))
        assert torch.equal(torch.from_numpy(offsets[0, -1].copy()), indices[0, -1])


# Faults, each of which the numbers or the checker must notice.

FAULTS = {
    "rows read before they are there": ("max_pool_rows.cuh", "    __syncthreads();\n\n", "\n"),
    "outputs stored before they are there": ("max_pool_rows.cuh", "    __syncthreads();\n    output", "    output"),
    "a row of planes too few": ("max_pool_rows.cuh", "args_.pad_top + extent,", "args_.pad_top + extent - 1,"),
    "rows of the wrong plane": ("max_pool_rows.cuh", "plane * args_.h + h - top", "plane * args_.p + h - top"),
    "the first row of planes does not win": ("max_pool_rows.cuh", "offer(row, h + r == 0)", "offer(row, false)"),
    "columns left of planes": ("max_pool_rows.cuh", "static_cast<unsigned>(w + s) < static_cast<unsigned>", "w + s <"),
    "gradients read before they are there": ("max_pool_rows_backward.cuh", "    __syncthreads();\n\n", "\n"),
    "pixels stored before they are there": (
        "max_pool_rows_backward.cuh", "    __syncthreads();\n    pixels", "    pixels",
    ),
    "a row of windows too few": (
        "max_pool_rows_backward.cuh", "bottom - 1 + args_.pad_top", "bottom - 3 + args_.pad_top",
    ),
    "windows of the wrong plane": (
        "max_pool_rows_backward.cuh", "plane * args_.p - first_p", "plane * args_.h - first_p",
    ),
    "windows in the other order": (
        "max_pool_rows_backward.cuh", "int j = REACH; j >= 0; --j", "int j = 0; j <= REACH; ++j",
    ),
    "a piece that two blocks share": ("run.cuh", "back = (lead_ + count_) % V > 0", "back = false"),
    "a run's last piece left out": ("run.cuh", "if (back && ", "if (false && "),
    "last column not read": ("max_pool.cuh", "left_ + i < args_.w", "left_ + i < args_.w - 1"),
    "a tile read past the image": ("max_pool.cuh", "h >= 0 && h < args_.h", "h >= 0 && h <= args_.h"),
    "the first row inside does not win": ("max_pool.cuh", "offer(row[j], h == 0)", "offer(row[j], false)"),
    "the first column inside does not win": ("max_pool.cuh", "left_ + i == 0);", "false);"),
    "codes of the first window": ("max_pool.cuh", "FLAT ? 0 : p * STRIDE * S", "0"),
    "open windows not shifted": ("max_pool.cuh", "open_[k - 1][j] = open_[k][j]", "open_[k - 1][j] = open_[0][j]"),
    "windows past the last stored": ("max_pool.cuh", "at_.exists && p < args_.p ?", "at_.exists ?"),
    "NaN loses": ("../ptx.cuh", "setp.nan.or.f32 firm, %2, %2, firm;", ""),
    "the last of equals wins": ("../ptx.cuh", "setp.gt.or.f32 wins", "setp.ge.or.f32 wins"),
    "an f16's NaN is beaten": ("../ptx.cuh", "setp.le.f32 wins, magnitude, %5;", "setp.eq.f32 wins, %5, %5;"),
    "lanes exchange with the wrong one": ("words.cuh", "given, step)", "given, 2 * step)"),
    "indices of the lane beside": ("winners.cuh", "pixel - lane * V, words);", "pixel, words);"),
    "a window too few": ("max_pool_backward.cuh", "for (int i = -REACH;", "for (int i = 0;"),
    "sums not carried": ("max_pool_backward.cuh", "sum[x] = carried_[r < SHARED ? r : 0][x];", "sum[x].clear();"),
    "the pixel beside": ("max_pool_backward.cuh", ": r * S + s)", ": r * S + s + 1)"),
    "a ReLU passes what it stopped": ("max_pool_backward.cuh", "? ~0u : code[j][v]", "? code[j][v] : code[j][v]"),
    "a ReLU of planes stops a NaN": ("contest.cuh", "(x <= 0) & !is_nan_rank<Element>(x)", "!(x > 0)"),
    "a gradient outside": ("max_pool_backward.cuh", "h >= 0 && h < args_.h)", "h >= 0)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path / "cache"))
    file, right, wrong = FAULTS[fault]
    headers = copytree(kernels_folder(), tmp_path / "cuda")
    header = headers / "pool" / file
    assert right in header.read_text(), f"{file} has no {right!r}: adapt the fault"
    header.write_text(header.read_text().replace(right, wrong))
    planes = "rows" in file or file == "run.cuh" or "planes" in fault
    sizes = dict(c=3, layout="nchw") if planes else dict(c=32)
    dtype = F16 if "f16" in fault else F32 if "order" in fault else BF16
    case = Case(dtype=dtype, relu="ReLU" in fault, **sizes, **CONSTANT["3x3 stride 2"])
    backward = "backward" in file or "ReLU" in fault
    checks, plan = (case.check_backward, case.backward_plan) if backward else (case.check, case.plan)
    options = dict(plan=plan(tile="4x11" if planes else "4x2"), headers=headers)
    if "order" in fault:  # which only sums tell that are rounded
        options["gradient"] = torch.randn(case.pooled().shape, generator=torch.Generator().manual_seed(1))
    with pytest.raises((AssertionError, emulator.EmulatorError)):
        checks(**options)
