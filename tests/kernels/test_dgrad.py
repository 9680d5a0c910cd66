"""The gradient of the input, and transposed convolution: as forward convolution is tested in test_fprop.py."""

from __future__ import annotations

import math
import os

import pytest
import torch

from kernels.backward import Dgrad
from kernels.harness import run
from kernels.test_fprop import DEPTHWISE, FEW_CHANNELS, GEOMETRY, TENSOR_CORE, cases, tiles
from pyconvx import _C

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

slow = pytest.mark.skipif(not os.environ.get("PYCONVX_SLOW"), reason="takes a minute; set PYCONVX_SLOW=1 to run it")

STRIDED = {
    "3x3 stride 2": dict(n=2, c=72, h=15, w=14, k=64, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2)),
    "1x1 stride 2": dict(n=2, c=40, h=9, w=8, k=64, r=1, s=1, stride=(2, 2)),
    "stride above the window": dict(n=1, c=24, h=13, w=11, k=40, r=2, s=2, stride=(3, 4), padding=(1, 0, 0, 2)),
    "dilated": dict(n=2, c=24, h=17, w=19, k=9, r=3, s=4, stride=(4, 3), dilation=(2, 3), padding=(2, 1, 4, 0)),
    "dilation by the stride": dict(n=1, c=16, h=13, w=14, k=24, r=3, s=3, stride=(2, 2), dilation=(2, 2)),
    "rows left over": dict(n=1, c=16, h=12, w=13, k=24, r=3, s=2, stride=(3, 2)),
    "patches": dict(n=1, c=16, h=16, w=16, k=24, r=4, s=4, stride=(4, 4)),
    "groups": dict(n=2, c=48, h=9, w=8, k=36, r=3, s=3, stride=(2, 1), padding=(1, 1, 1, 1), groups=3),
    "strides without number": dict(n=2, c=5, h=70, w=60, k=7, r=2, s=3, stride=(40, 30), padding=(1, 0, 0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("problem", cases({"3x3": TENSOR_CORE["3x3"], "1x1": TENSOR_CORE["1x1"]}, (F16, BF16)))
def test_every_tile(problem):
    case = Dgrad(**problem)
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases(STRIDED, (F16, BF16, F32, F64)))
def test_strided(problem):
    case = Dgrad(**problem)
    case.check(case.plan())


def test_strided_in_other_tiles():
    case = Dgrad(**STRIDED["3x3 stride 2"])
    assert len(tiles(case)) > 3
    for tile in (tiles(case)[0], tiles(case)[-1]):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases({**TENSOR_CORE, **GEOMETRY}, (F16, BF16, F32, F64)))
def test_geometry(problem):
    case = Dgrad(**problem)
    case.check(case.plan())


@pytest.mark.parametrize("name", ["stride", "groups", "odd channels"])
def test_geometry_tf32(name):
    case = Dgrad(**GEOMETRY[name], dtype=F32, tf32=True)
    case.check(case.plan())


@pytest.mark.parametrize("problem", cases({**FEW_CHANNELS, **DEPTHWISE}, (F16, F32)))
def test_few_channels_and_depthwise(problem):
    case = Dgrad(**problem)
    case.check(case.plan())


FEW_FILTERS = {  # of which dgrad makes few channels
    "3x3": dict(n=2, c=40, h=17, w=19, k=3, r=3, s=3, padding=(1, 1, 1, 1)),
    "3x3 stride 2": dict(n=2, c=40, h=17, w=19, k=4, r=3, s=3, padding=(1, 0, 2, 1), stride=(2, 2)),
    "7x7 stride 2": dict(n=1, c=24, h=23, w=26, k=3, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2)),
    "1x1 padding": dict(n=1, c=24, h=9, w=12, k=1, r=1, s=1, padding=(1, 2, 0, 1)),
    "depthwise 3x3 stride 2": dict(n=2, c=40, h=9, w=9, k=40, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2), groups=40),
    "depthwise 5x5": dict(n=1, c=16, h=17, w=19, k=16, r=5, s=5, padding=(4, 4, 5, 0), groups=16),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("problem", cases(FEW_FILTERS, (F16, F32)))
def test_few_filters(problem, bias):
    case = Dgrad(**problem, bias=bias)
    case.check(case.plan())


@pytest.mark.parametrize("dtype", [F16, F32, F64])
@pytest.mark.parametrize("name", ["3x3 stride 2", "groups", "stride above the window"])
def test_nchw(name, dtype):
    case = Dgrad(**STRIDED[name], dtype=dtype, layout="nchw")
    case.check(case.plan())


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("problem", cases(STRIDED, (F16, F32)))
def test_conv_transpose2d(problem, layout):
    case = Dgrad(**problem, bias=True, layout=layout)
    case.check(case.plan())


SMALL_MAPS = {  # whose channels may be split, with partial sums in a workspace that the classes share
    "7x7": dict(n=2, c=72, h=7, w=7, k=256, r=3, s=3, padding=(1, 1, 1, 1)),
    "14x14 stride 2": dict(n=1, c=40, h=14, w=14, k=256, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2)),
}


@pytest.mark.parametrize("problem", cases(SMALL_MAPS, (F16, BF16)))
def test_small_maps(problem):
    case = Dgrad(**problem)
    plan = case.plan()
    assert any("small_map" in launch.kernel for launch in plan.launches)
    case.check(plan)


MASKED = {  # all families
    "resident patch": dict(n=2, c=40, h=19, w=18, k=72, r=3, s=3, padding=(1, 1, 1, 1)),
    "resident patch, 1x7": dict(n=1, c=24, h=17, w=19, k=96, r=1, s=7, padding=(0, 0, 3, 3)),
    "small map": SMALL_MAPS["7x7"],
    "gather": dict(n=2, c=40, h=9, w=8, k=72, r=1, s=1),
    "strided": STRIDED["3x3 stride 2"],
    "groups": STRIDED["groups"],
    "odd channels": dict(n=2, c=24, h=9, w=8, k=35, r=2, s=3, padding=(1, 0, 1, 1)),
    "few channels": FEW_FILTERS["3x3 stride 2"],
    "depthwise": FEW_FILTERS["depthwise 3x3 stride 2"],
    "depthwise 3x3": dict(n=2, c=40, h=19, w=33, k=40, r=3, s=3, padding=(1, 1, 1, 1), groups=40),
    "depthwise, two filters a channel": dict(n=1, c=12, h=9, w=8, k=24, r=3, s=3, padding=(1, 1, 1, 1), groups=12),
    "strides without number": STRIDED["strides without number"],
}


@pytest.mark.parametrize("problem", cases(MASKED, (F16, BF16, F32, F64)))
def test_masked(problem):
    """Only where the output of a ReLU is not <= 0 does a gradient count, and kernels see to that as they load it."""
    case = Dgrad(**problem, masked=True)
    plan = case.plan()
    assert not any("relu_backward" in launch.kernel for launch in plan.launches)
    case.check(plan)


@pytest.mark.parametrize("name", ["resident patch", "gather", "few channels"])
def test_masked_tf32(name):
    case = Dgrad(**MASKED[name], dtype=F32, tf32=True, masked=True)
    case.check(case.plan())


@pytest.mark.parametrize("dtype", [F16, F32, F64])
def test_masked_nchw(dtype):
    """Where the gradient is transposed, it is masked."""
    case = Dgrad(**MASKED["resident patch"], dtype=dtype, layout="nchw", masked=True)
    plan = case.plan()
    masking = [launch.kernel for launch in plan.launches if "true" in launch.kernel or "relu" in launch.kernel]
    assert len(masking) == 1 and "transpose" in masking[0]
    case.check(plan)


@pytest.mark.parametrize("name", ["small map", *(pytest.param(n, marks=slow) for n in ("resident patch", "gather"))])
def test_masked_in_every_tile(name):
    case = Dgrad(**{**MASKED[name], "n": 1}, masked=True)
    assert len(tiles(case)) > 2
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize(
    "name, alignment",
    [("resident patch", 4), ("resident patch", 2), ("gather", 2), ("few channels", 2)],
)
def test_masked_by_fewer_bytes(name, alignment):
    case = Dgrad(**{**MASKED[name], "n": 1}, masked=True, alignment=alignment)
    case.check(case.plan())


@pytest.mark.parametrize("name", ["resident patch", "small map", "depthwise"])
def test_masked_on_the_way_or_before_gives_the_same_bits(name):
    masked = Dgrad(**MASKED[name], integers=False, masked=True)
    before = Dgrad(**MASKED[name], integers=False)
    before.grad_output = masked.counting
    assert torch.equal(masked.run(), before.run())


SAME_BITS = {
    "tensor core": dict(c=72, h=6, w=7, k=104, r=3, s=3, padding=(1, 1, 1, 1), dtype=F16),
    "strided": dict(c=40, h=8, w=8, k=72, r=2, s=1, stride=(2, 1), dtype=BF16),
    "ffma": dict(c=24, h=6, w=7, k=52, r=3, s=3, padding=(1, 1, 1, 1), dtype=F32),
    "depthwise": dict(c=40, h=9, w=9, k=40, r=3, s=3, padding=(1, 1, 1, 1), groups=40, stride=(2, 2), dtype=F16),
    "plain": dict(c=10, h=6, w=7, k=24, r=3, s=3, padding=(1, 1, 1, 1), stride=(1, 2), dtype=F64),
}


@pytest.mark.parametrize("problem", SAME_BITS.values(), ids=SAME_BITS)
def test_same_bits_in_every_tile_and_device(problem):
    """In every batch: test_same_bits.py."""
    case = Dgrad(n=2, **problem, integers=False)
    expected = case.run()
    plans = [case.plan(tile=tile) for tile in tiles(case)] + [case.plan("h100")]
    assert all(torch.equal(case.run(plan), expected) for plan in plans)
    assert torch.equal(case.run(order="random", seed=2), expected)


def test_same_bits_in_tiles_of_several_classes():
    """One by one: windows of a strided dgrad's classes are many kernels to compile."""
    case = Dgrad(n=2, c=40, h=9, w=8, k=72, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2), dtype=BF16, integers=False)
    expected = case.run()
    chosen = tiles(case)
    assert all(torch.equal(case.run(case.plan(tile=tile)), expected) for tile in (chosen[-1], chosen[-3]))


@pytest.mark.parametrize("problem", SAME_BITS.values(), ids=SAME_BITS)
def test_floats(problem):
    case = Dgrad(n=1, **problem, integers=False)
    error = (case.run().double() - case.expected()).abs()
    assert (error <= case.tolerance()).all()


@pytest.mark.parametrize("problem", SAME_BITS.values(), ids=SAME_BITS)
def test_nan_and_infinity_stay(problem):
    case = Dgrad(n=1, **problem)
    case.grad_output[0, 1, 1, 2] = math.nan
    case.grad_output[0, 2, 3, 0] = math.inf
    expected, result = case.expected(), case.run()
    assert expected.isnan().any()
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.double().nan_to_num(nan=0.5), expected.to(case.dtype).double().nan_to_num(nan=0.5))


@pytest.mark.parametrize("r", [3, 1])
def test_no_multiplication_by_the_zeros_between_outputs(r):
    """With stride 2, the products of full tiles are those of the taps that lead somewhere, and no others."""
    case = Dgrad(n=2, c=64, h=32, w=32, k=64, r=r, s=r, padding=(r // 2,) * 4, stride=(2, 2))
    launches = run(case.plan(), case.buffers())
    multiplied = sum(launch.counts.opcode("mma").warp_instructions for launch in launches) * 16 * 8 * 16
    useful = case.problem.flops / 2
    assert useful <= multiplied <= 1.05 * useful


@pytest.mark.parametrize(
    "options, changes, sentence",
    [
        ({"device": "t4"}, {}, "compute capability 8.0.*t4 has 7.5"),
        ({"tile": "3x3x3"}, {}, "no tile 3x3x3"),
        ({"alignment": 12}, {}, "power of two.*got 12"),
        ({}, {"pass_": _C.Pass.wgrad}, "needs a problem of pass dgrad, got one of wgrad.*plan_conv2d_wgrad"),
        ({}, {"h": 2**31}, "31 bits.*split"),
        ({"ahead_of_time": True}, {"masked": True}, "no kernel that masks.*ahead of time; mask it with relu_backward"),
    ],
)
def test_refusals_are_sentences(options, changes, sentence):
    fields = dict(n=8, c=64, h=56, w=56, k=64, r=3, s=3, padding=(1, 1, 1, 1), pass_=_C.Pass.dgrad)
    problem = _C.Conv2dProblem(**{**fields, "dtype": _C.DType.float16, "layout": _C.Layout.nhwc, **changes})
    with pytest.raises(ValueError, match=sentence):
        _C.plan_conv2d_dgrad(problem, options.pop("device", "a100"), **options)
