"""The gradients of filters and bias: of integers exactly, of floats but for rounding, and the same bits every time."""

from __future__ import annotations

import math

import pytest
import torch

from kernels.backward import Wgrad
from kernels.test_fprop import DEPTHWISE, FEW_CHANNELS, GEOMETRY, TENSOR_CORE, cases, tiles
from pyconvx import _C

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

# Enough pixels for several splits of the reduction, and more than a tile of filters and columns.
SPLIT = {
    "2x3": dict(n=6, c=24, h=11, w=13, k=72, r=2, s=3, padding=(1, 0, 1, 1)),
    "1x1": dict(n=5, c=136, h=11, w=13, k=72, r=1, s=1),
    "stem": dict(n=2, c=3, h=41, w=44, k=24, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2)),
}
PATCH = {
    "3x3": dict(n=2, c=64, h=13, w=15, k=136, r=3, s=3, padding=(1, 1, 1, 1)),
    "3x3 of whole tiles": dict(n=3, c=40, h=18, w=18, k=72, r=3, s=3),
    "3x3 stride 2": dict(n=4, c=72, h=33, w=40, k=64, r=3, s=3, padding=(0, 1, 1, 0), stride=(2, 2)),
    "groups": dict(n=2, c=96, h=9, w=8, k=120, r=3, s=3, padding=(1, 1, 1, 1), groups=3),
    "odd channels": dict(n=6, c=21, h=8, w=9, k=30, r=3, s=3, padding=(1, 1, 1, 1)),
    "much padding": dict(n=9, c=36, h=8, w=9, k=20, r=3, s=3, padding=(4, 1, 0, 3)),
    "one pixel": dict(n=3, c=16, h=1, w=1, k=8, r=3, s=3, padding=(1, 1, 1, 1)),
}
# What a table of pixels must know of rows and columns.
WINDOWS = {
    "1x7": dict(n=2, c=40, h=13, w=11, k=24, r=1, s=7, padding=(0, 0, 3, 3)),
    "7x1 stride 2": dict(n=3, c=36, h=29, w=11, k=24, r=7, s=1, padding=(3, 2, 0, 0), stride=(2, 1)),
    "5x5": dict(n=2, c=16, h=9, w=8, k=72, r=5, s=5, padding=(2, 2, 2, 2)),
    "dilated": dict(n=3, c=24, h=14, w=17, k=16, r=3, s=3, padding=(3, 2, 4, 5), dilation=(2, 3)),
    "windows that meet no pixel": dict(n=3, c=24, h=4, w=5, k=16, r=2, s=2, padding=(7, 9, 8, 6), dilation=(2, 2)),
    "15x16": dict(n=1, c=8, h=19, w=22, k=16, r=15, s=16, padding=(2, 0, 1, 7)),
    "16x16": dict(n=1, c=8, h=19, w=22, k=16, r=16, s=16, padding=(2, 0, 1, 7)),
}
# Vectors of any taps of a row of the window: how many bytes.
RUNS = {
    "3 channels": (4, dict(n=2, c=3, h=21, w=24, k=24, r=7, s=7, padding=(3, 2, 3, 3), stride=(2, 2))),
    "3 channels, no lead": (4, dict(n=2, c=3, h=21, w=24, k=24, r=3, s=5, padding=(1, 1, 2, 1), stride=(1, 2))),
    "4 channels": (16, dict(n=2, c=4, h=19, w=22, k=40, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2))),
    "4 channels, no padding": (16, dict(n=2, c=4, h=19, w=22, k=40, r=3, s=3, stride=(2, 2))),
    "1 channel": (8, dict(n=3, c=1, h=25, w=28, k=8, r=6, s=5, padding=(0, 2, 3, 1), stride=(3, 4))),
    "rows apart": (4, dict(n=2, c=3, h=21, w=24, k=24, r=3, s=3, padding=(1, 2, 3, 3), stride=(1, 2), dilation=(2, 1))),
    "past both edges": (4, dict(n=3, c=3, h=5, w=4, k=8, r=2, s=9, padding=(1, 0, 9, 8), stride=(1, 2))),
    "odd rows": (2, dict(n=2, c=3, h=21, w=23, k=24, r=7, s=7, padding=(3, 2, 3, 3), stride=(2, 2))),
    "columns apart": (2, dict(n=2, c=3, h=21, w=24, k=24, r=3, s=3, stride=(2, 2), dilation=(1, 2))),
    "groups": (2, dict(n=2, c=6, h=21, w=24, k=24, r=3, s=3, stride=(2, 2), groups=2)),
}
SPLIT_DEPTHWISE = dict(n=9, c=40, h=19, w=9, k=40, r=3, s=3, padding=(1, 1, 1, 1), groups=40)


def splits(plan):
    return len(plan.launches) and plan.workspaces.get("wgrad_sums", 0)


@pytest.mark.parametrize("vector, problem", RUNS.values(), ids=RUNS)
def test_runs_of_taps(vector, problem):
    """The bits are those of element by element."""
    case = Wgrad(**problem, bias=True)
    plan = case.plan()
    assert plan.family == "wgrad_tensor_core"
    assert plan.launches[0].kernel.split(", ")[-2] == str(vector), plan.launches[0].kernel
    case.check(plan)
    if vector == 4:
        case.check(case.plan(tile="64x128x32"))
    floats = Wgrad(**problem, bias=True, integers=False)
    expected = floats.run()
    floats.alignment = 2
    assert "2, 2, true>" in floats.plan().launches[0].kernel
    for one, other in zip(floats.run(), expected, strict=True):
        assert torch.equal(one, other)


def test_runs_of_taps_in_f32():
    _, problem = RUNS["3 channels"]
    case = Wgrad(**problem, bias=True, dtype=F32, masked=True)
    assert "16, 8, true, true>" in case.plan().launches[0].kernel
    case.check(case.plan())
    case.tf32 = True
    case.check(case.plan())


# In the other dtype they run masked.
@pytest.mark.parametrize("name, dtype", [("2x3", F16), ("1x1", BF16)])
def test_tensor_cores_in_every_tile(name, dtype):
    case = Wgrad(**SPLIT[name], dtype=dtype, bias=True)
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases(PATCH, (F16, BF16)))
def test_patch(problem):
    case = Wgrad(**problem, bias=True)
    assert case.plan().family == "wgrad_patch"
    case.check(case.plan())


@pytest.mark.parametrize("problem", cases(WINDOWS, (F16, F32)))
def test_windows(problem):
    case = Wgrad(**problem)
    plan = case.plan()
    assert (plan.family == "wgrad_plain") == (problem["r"] == 16)  # a pixel has 31 bits for its rows and columns
    case.check(plan)


@pytest.mark.parametrize("problem", cases({"2x3": SPLIT["2x3"]}, (F32,)))
def test_tf32_in_every_tile(problem):
    case = Wgrad(**problem, tf32=True, bias=True)
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases({"2x3": SPLIT["2x3"]}, (F32,)))
def test_ffma_in_every_tile(problem):
    case = Wgrad(**problem, bias=True)
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases({**TENSOR_CORE, **GEOMETRY}, (F16, BF16, F32, F64)))
def test_geometry(problem):
    case = Wgrad(**problem, bias=True)
    case.check(case.plan())


@pytest.mark.parametrize("name, dtype, layout", [("2x3", BF16, "nhwc"), ("1x1", F16, "nhwc"), ("2x3", F32, "nchw")])
def test_masked_in_every_tile(name, dtype, layout):
    """Only where the output of a ReLU is not <= 0 does a gradient count."""
    case = Wgrad(**SPLIT[name], dtype=dtype, layout=layout, bias=True, masked=True)
    for tile in tiles(case):
        plan = case.plan(tile=tile)
        assert not any("relu_backward" in launch.kernel for launch in plan.launches)
        case.check(plan)


@pytest.mark.parametrize("name", ["stride", "groups", "odd channels"])
def test_geometry_tf32(name):
    case = Wgrad(**GEOMETRY[name], dtype=F32, tf32=True)
    case.check(case.plan())


@pytest.mark.parametrize("problem", cases(FEW_CHANNELS, (F16, F32)))
def test_few_channels(problem):
    case = Wgrad(**problem)
    case.check(case.plan())


@pytest.mark.parametrize("problem", cases({**DEPTHWISE, "split": SPLIT_DEPTHWISE}, (F16, BF16, F32)))
def test_depthwise(problem):
    case = Wgrad(**problem, bias=True)
    assert case.plan().family == "wgrad_depthwise"
    case.check(case.plan())


@pytest.mark.parametrize("dtype", [F16, F32, F64])
@pytest.mark.parametrize("name", ["stride", "groups", "1x1 padding"])
def test_nchw(name, dtype):
    case = Wgrad(**GEOMETRY[name], dtype=dtype, layout="nchw", bias=True)
    case.check(case.plan())


@pytest.mark.parametrize("alignment", [2, 4, 8])
def test_addresses_of_less_alignment(alignment):
    for window in (1, 3):
        case = Wgrad(n=1, c=32, h=9, w=9, k=44, r=window, s=window, bias=True, masked=True, alignment=alignment)
        case.check()


@pytest.mark.parametrize("dtype", [F16, F32, F64])
def test_an_empty_batch_gives_zeros(dtype):
    case = Wgrad(n=0, c=8, h=5, w=5, k=16, r=3, s=3, bias=True, dtype=dtype)
    for gradient in case.run():
        assert not gradient.any()


ONE_OF_EACH = {
    "tensor core": SPLIT["2x3"],
    "1x1": SPLIT["1x1"],
    "patch": dict(n=9, c=24, h=13, w=18, k=72, r=3, s=3, padding=(1, 1, 1, 1)),
    "patch, stride 2": dict(n=9, c=24, h=13, w=19, k=40, r=3, s=3, padding=(1, 1, 0, 1), stride=(2, 2), dtype=BF16),
    "stem": SPLIT["stem"],
    "unaligned": {**GEOMETRY["channels by 4"], "n": 9},
    "tf32": {**SPLIT["2x3"], "dtype": F32, "tf32": True},
    "ffma": {**SPLIT["2x3"], "dtype": F32},
    "depthwise": SPLIT_DEPTHWISE,
    "plain": dict(n=20, c=3, h=9, w=8, k=6, r=3, s=3, padding=(1, 1, 1, 1), dtype=F64),
}


@pytest.mark.parametrize("problem", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_same_bits_in_every_run_tile_and_device(problem):
    case = Wgrad(**problem, bias=True, integers=False)
    expected = case.run()
    assert splits(case.plan())
    again = [dict(order="random", seed=1), dict(order="descending")]
    plans = [case.plan(tile=candidate.tile) for candidate in case.plan().candidates] + [case.plan("rtx4090")]
    for plan, options in [(None, options) for options in again] + [(plan, {}) for plan in plans]:
        for one, other in zip(case.run(plan, **options), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("problem", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_masked_is_what_gradients_masked_before_give(problem):
    case = Wgrad(**problem, bias=True, integers=False, masked=True)
    before = Wgrad(**problem, bias=True, integers=False)
    before.grad_output = case.counting
    assert case.grad_output.isnan().any() and not before.grad_output.isnan().any()
    for one, other in zip(case.run(), before.run(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("problem", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_floats(problem):
    case = Wgrad(**problem, bias=True, integers=False)
    for result, expected, tolerance in zip(case.run(), case.expected(), case.tolerance(), strict=True):
        assert ((result.double() - expected).abs() <= tolerance).all()


@pytest.mark.parametrize("problem", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_nan_and_infinity_stay(problem):
    """What is not a number spoils the taps that met it, and no others."""
    case = Wgrad(**problem, bias=True)
    case.grad_output[0, 2, 1, 2] = math.nan
    last = case.input.shape[2] - 1, case.input.shape[3] - 1
    case.input[0, 1, last[0], last[1]] = math.inf
    for result, expected in zip(case.run(), case.expected(), strict=True):
        # A tap outside the image multiplies nothing here, and zeros in the reference.
        assert not (result.isnan() & ~expected.isnan()).any()
        finite = expected.isfinite()
        assert torch.equal(result[finite], expected[finite].to(case.dtype))
        assert not result[~finite & ~expected.isnan()].isfinite().any()
    assert case.run()[0].isnan().any() and case.run()[1].isnan().any()


def test_splits_depend_on_the_problem_and_fill_a_chip_with_few_bytes():
    for c, k, size, r in [(64, 64, 56, 3), (256, 256, 14, 3), (512, 512, 7, 3), (64, 256, 56, 1)]:
        fields = dict(n=32, c=c, h=size, w=size, k=k, r=r, s=r, padding=(r // 2,) * 4)
        problem = _C.Conv2dProblem(**fields, dtype=_C.DType.float16, layout=_C.Layout.nhwc, pass_=_C.Pass.wgrad)
        plans = [_C.plan_conv2d_wgrad(problem, device.name) for device in _C.devices() if device.capability >= 80]
        sums = {plan.workspaces["wgrad_sums"] for plan in plans}
        assert len(sums) == 1
        runs = sums.pop() / (4 * k * c * r * r)
        blocks = runs * -(-k // 128) * -(-c * r * r // 128)
        assert 128 <= blocks < 512  # of a chip's 100 to 200 SMs
        # Written and read once more: less than the pass's multiplications would take at 1024 a clock of 108 SMs.
        assert 2 * 4 * k * c * r * r * runs / 1400 < 32 * size * size * k * c * r * r / 1024 / 108


@pytest.mark.parametrize(
    "options, changes, sentence",
    [
        ({"device": "t4"}, {}, "compute capability 8.0.*t4 has 7.5"),
        ({"tile": "3x3x3"}, {}, "no tile 3x3x3"),
        ({"alignment": 1}, {}, "power of two.*got 1"),
        (
            {},
            {"pass_": _C.Pass.fprop},
            "needs a problem of pass wgrad, got one of fprop; make",
        ),
        ({}, {"pass_": _C.Pass.dgrad}, "plan_conv2d_dgrad"),
        ({}, {"c": 63, "groups": 2}, "groups must divide"),
    ],
)
def test_refusals_are_sentences(options, changes, sentence):
    fields = dict(n=8, c=64, h=56, w=56, k=64, r=3, s=3, padding=(1, 1, 1, 1), pass_=_C.Pass.wgrad)
    problem = _C.Conv2dProblem(**{**fields, "dtype": _C.DType.float16, "layout": _C.Layout.nhwc, **changes})
    with pytest.raises(ValueError, match=sentence):
        _C.plan_conv2d_wgrad(problem, options.pop("device", "a100"), **options)
