"""Convolutions of integers, which must come out exactly, and of floats, which may differ by rounding alone."""

from __future__ import annotations

import os

import pytest
import torch

from kernels.convolution import Case
from kernels.harness import ORDERS

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
slow = pytest.mark.skipif(not os.environ.get("PYCONVX_SLOW"), reason="takes minutes; set PYCONVX_SLOW=1 to run it")

# n, c, h, w, k, r, s and what differs from a plain convolution. Sizes leave partial tiles everywhere, and are large
# enough that every thread of the largest tiles copies something that matters.
TENSOR_CORE = {
    "3x3": dict(n=2, c=72, h=13, w=15, k=136, r=3, s=3, padding=(1, 1, 1, 1)),
    "1x1": dict(n=3, c=72, h=11, w=9, k=264, r=1, s=1),
    "1x7": dict(n=1, c=40, h=17, w=17, k=96, r=1, s=7, padding=(0, 0, 3, 3)),
    "7x1": dict(n=1, c=48, h=17, w=17, k=72, r=7, s=1, padding=(3, 3, 0, 0)),
    "any window": dict(n=2, c=24, h=12, w=19, k=40, r=4, s=6, padding=(3, 0, 1, 4)),
}
# Patches of several strips and images, with halos of every kind, and several channel blocks.
RESIDENT_PATCH = {
    "3x3": dict(n=2, c=64, h=13, w=35, k=136, r=3, s=3, padding=(1, 1, 1, 1)),
    "7x1": dict(n=1, c=64, h=17, w=17, k=72, r=7, s=1, padding=(3, 3, 0, 0)),
    "1x7": dict(n=1, c=96, h=17, w=17, k=40, r=1, s=7, padding=(0, 0, 3, 3)),
    "5x5, odd channels": dict(n=2, c=31, h=20, w=40, k=33, r=5, s=5, padding=(3, 0, 2, 1)),
    "groups": dict(n=3, c=192, h=14, w=18, k=120, r=3, s=3, padding=(0, 2, 3, 1), groups=3),
    "dilation": dict(n=2, c=30, h=25, w=24, k=64, r=3, s=3, padding=(2, 2, 3, 3), dilation=(2, 3)),
    "any window": dict(n=2, c=64, h=19, w=15, k=24, r=2, s=4, padding=(1, 0, 3, 1)),
    "long window": dict(n=1, c=32, h=3, w=40, k=8, r=2, s=9, padding=(0, 0, 4, 4)),
    "two taps": dict(n=1, c=32, h=40, w=17, k=24, r=2, s=1),
    "runs that begin below the image": dict(n=3, c=32, h=1, w=6, k=32, r=1, s=5, padding=(1, 3, 0, 2)),
    "window beyond the image": dict(n=40, c=32, h=2, w=3, k=24, r=5, s=5, padding=(2, 2, 2, 2)),
}
# Maps of up to 256 pixels: one channel block and several, and reductions so long that their channels are split.
SMALL_MAP = {
    "7x7, split": dict(n=3, c=264, h=7, w=7, k=72, r=3, s=3, padding=(1, 1, 1, 1), bias=True, residual=True),
    "14x14": dict(n=2, c=120, h=14, w=14, k=136, r=3, s=3, padding=(1, 1, 1, 1)),
    "1x7": dict(n=5, c=64, h=8, w=8, k=40, r=1, s=7, padding=(0, 0, 3, 3)),
    "7x1, groups": dict(n=2, c=128, h=9, w=7, k=80, r=7, s=1, padding=(3, 3, 0, 0), groups=2),
    "5x5, odd channels": dict(n=3, c=61, h=6, w=5, k=33, r=5, s=5, padding=(3, 0, 2, 1)),
    "split groups, odd channels": dict(n=2, c=1022, h=5, w=4, k=70, r=1, s=3, padding=(0, 0, 0, 2), groups=2),
    "dilation": dict(n=2, c=62, h=12, w=13, k=24, r=3, s=2, padding=(2, 2, 3, 3), dilation=(2, 3)),
    "one pixel": dict(n=70, c=64, h=1, w=1, k=24, r=3, s=1, padding=(1, 1, 0, 0)),
}
GEOMETRY = {
    "stride": dict(n=2, c=32, h=15, w=14, k=64, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2)),
    "1x1 stride": dict(n=2, c=32, h=15, w=14, k=64, r=1, s=1, stride=(2, 3)),
    "1x1 padding": dict(n=2, c=32, h=7, w=6, k=64, r=1, s=1, padding=(0, 1, 2, 0)),
    "dilation": dict(n=1, c=32, h=15, w=14, k=64, r=3, s=3, padding=(2, 2, 3, 3), dilation=(2, 3)),
    "asymmetric": dict(n=1, c=32, h=9, w=10, k=64, r=3, s=3, padding=(0, 2, 1, 0), stride=(1, 2)),
    "groups": dict(n=2, c=96, h=9, w=8, k=120, r=3, s=3, padding=(1, 1, 1, 1), groups=3),
    "groups of few": dict(n=2, c=24, h=9, w=8, k=18, r=3, s=3, padding=(1, 1, 1, 1), groups=6),
    "window of the image": dict(n=5, c=32, h=6, w=5, k=64, r=6, s=5),
    "window beyond the image": dict(n=2, c=8, h=2, w=3, k=24, r=5, s=5, padding=(2, 2, 2, 2)),
    "one pixel": dict(n=1, c=8, h=1, w=1, k=8, r=3, s=3, padding=(1, 1, 1, 1)),
    "odd channels": dict(n=1, c=13, h=8, w=9, k=11, r=3, s=3, padding=(1, 1, 1, 1)),
    "even channels": dict(n=1, c=22, h=8, w=9, k=30, r=3, s=3, padding=(1, 1, 1, 1)),
    "channels by 4": dict(n=1, c=36, h=8, w=9, k=20, r=3, s=3, padding=(1, 1, 1, 1)),
}
FEW_CHANNELS = {
    # Of 3 and 4 channels, by windows that have a kernel: even and odd widths, even and odd pads.
    "7x7 stride 2": dict(n=2, c=3, h=37, w=41, k=64, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2)),
    "7x7 stride 2, 4 channels": dict(n=2, c=4, h=37, w=42, k=72, r=7, s=7, padding=(3, 2, 3, 2), stride=(2, 2)),
    "3x3 stride 2": dict(n=2, c=3, h=35, w=38, k=40, r=3, s=3, padding=(0, 1, 0, 1), stride=(2, 2)),
    "3x3": dict(n=1, c=4, h=18, w=33, k=72, r=3, s=3, padding=(1, 1, 1, 1)),
    "5x5": dict(n=2, c=3, h=28, w=28, k=6, r=5, s=5, padding=(2, 2, 2, 2)),
    "11x11 stride 4": dict(n=1, c=3, h=63, w=68, k=64, r=11, s=11, padding=(2, 2, 2, 2), stride=(4, 4)),
    # By any other.
    "5x5, one channel": dict(n=2, c=1, h=28, w=28, k=6, r=5, s=5, padding=(2, 2, 2, 2)),
    "any window": dict(n=2, c=2, h=28, w=19, k=70, r=2, s=6, padding=(2, 1, 0, 3), dilation=(3, 2), stride=(2, 3)),
    "dilation": dict(n=1, c=3, h=20, w=21, k=16, r=3, s=3, padding=(2, 2, 2, 2), dilation=(2, 2)),
    "1x1": dict(n=1, c=4, h=9, w=20, k=8, r=1, s=1),
}
DEPTHWISE = {
    "3x3": dict(n=2, c=40, h=19, w=21, k=40, r=3, s=3, padding=(1, 1, 1, 1), groups=40),
    "3x3 stride 2": dict(n=2, c=72, h=20, w=35, k=72, r=3, s=3, padding=(0, 1, 0, 1), groups=72, stride=(2, 2)),
    "5x5": dict(n=1, c=24, h=19, w=13, k=24, r=5, s=5, padding=(1, 2, 1, 3), groups=24),
    "7x7": dict(n=1, c=32, h=13, w=14, k=32, r=7, s=7, padding=(3, 3, 3, 3), groups=32),
    "5x5 stride 2": dict(n=1, c=24, h=19, w=21, k=24, r=5, s=5, padding=(2, 2, 2, 2), groups=24, stride=(2, 2)),
    "any window": dict(n=1, c=24, h=12, w=13, k=24, r=2, s=5, padding=(1, 0, 2, 3), groups=24, dilation=(2, 1)),
    "odd channels": dict(n=1, c=11, h=9, w=13, k=11, r=3, s=3, padding=(1, 1, 1, 1), groups=11),
    "multiplier": dict(n=2, c=10, h=9, w=13, k=30, r=3, s=2, groups=10, dilation=(1, 2), stride=(2, 1)),
}


def cases(problems, dtypes=(F16,)):
    """Named test parameters: every problem in the first dtype, and in one of the others."""
    return [
        pytest.param({**problem, "dtype": dtype}, id=f"{name}, {str(dtype).removeprefix('torch.')}")
        for index, (name, problem) in enumerate(problems.items())
        for dtype in dict.fromkeys([dtypes[0], dtypes[index % len(dtypes)]])
    ]


def shares(problems, dtypes=(F16,), between=3):
    """cases(), and what each has of the tiles: the first problem all of them, the others one in so many, in turns.
    Compiling takes most of the time; PYCONVX_SLOW=1 runs every problem in every tile."""
    every = bool(os.environ.get("PYCONVX_SLOW"))
    return [
        pytest.param(*case.values, slice(None) if every or i == 0 else slice(i % between, None, between), id=case.id)
        for i, case in enumerate(cases(problems, dtypes))
    ]


def tiles(case):
    return [candidate.tile for candidate in case.plan().candidates]


@pytest.mark.parametrize("problem, share", shares(TENSOR_CORE, (F16, BF16)))
def test_tensor_cores_in_every_tile(problem, share):
    case = Case(**problem)
    assert len(tiles(case)) > 8
    for tile in tiles(case)[share]:
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem, share", shares(dict(reversed(TENSOR_CORE.items())), (F32,), between=4))
def test_tf32_in_every_tile(problem, share):
    case = Case(**problem, tf32=True)
    for tile in tiles(case)[share]:
        case.check(case.plan(tile=tile))


def test_resident_patch_in_every_tile():
    case = Case(**RESIDENT_PATCH["3x3"])
    assert len(tiles(case)) > 8
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases(RESIDENT_PATCH, (F16, BF16)))
def test_resident_patch(problem):
    case = Case(**problem)
    assert case.plan().family == "fprop_resident_patch"
    for tile in tiles(case)[len(tiles(case)) // 2], tiles(case)[-1]:
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases({name: RESIDENT_PATCH[name] for name in ("7x1", "groups")}, (F32,)))
def test_resident_patch_tf32(problem):
    case = Case(**problem, tf32=True)
    assert case.plan().family == "fprop_resident_patch"
    for tile in "256x128x16", "64x32x16":
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize(
    "name, tile",
    [
        ("3x3", "128x128x16"),
        ("1x7", "64x128x16"),
        ("5x5, odd channels", "256x64x16"),
        ("groups", "128x64x16"),
        ("long window", "32x64x16"),
        ("two taps", "64x64x16"),
        ("runs that begin below the image", "128x64x16"),
        ("window beyond the image", "32x64x16"),
    ],
)
def test_resident_patch_f32(name, tile):
    case = Case(**{**RESIDENT_PATCH[name], "dtype": F32})
    assert case.plan().family == "fprop_resident_patch"
    case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem, share", shares(SMALL_MAP, (F16, BF16), between=2))
def test_small_map(problem, share):
    case = Case(**problem)
    assert case.plan().family == "fprop_small_map"
    assert len(tiles(case)) >= 2
    for tile in tiles(case)[share]:
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases({name: SMALL_MAP[name] for name in ("7x7, split", "14x14")}, (F32,)))
def test_small_map_tf32(problem):
    case = Case(**problem, tf32=True)
    assert case.plan().family == "fprop_small_map"
    case.check(case.plan())


@pytest.mark.parametrize("problem, share", shares({**TENSOR_CORE, **GEOMETRY}, (F32,)))
def test_f32_in_every_tile(problem, share):
    case = Case(**problem)
    for tile in tiles(case)[share]:
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases(GEOMETRY, (F16, BF16, F64)))
def test_geometry(problem):
    case = Case(**problem)
    case.check(case.plan())


@pytest.mark.parametrize("problem", cases(GEOMETRY, (F32,)))
def test_geometry_tf32(problem):
    case = Case(**problem, tf32=True)
    case.check(case.plan())


@pytest.mark.parametrize("problem", cases(FEW_CHANNELS, (F16, BF16)))
def test_few_channels(problem):
    case = Case(**problem, bias=True)
    assert case.plan().family == "fprop_few_channels"
    case.check(case.plan())


@pytest.mark.parametrize("name", ["7x7 stride 2", *(pytest.param(name, marks=slow) for name in FEW_CHANNELS)])
def test_few_channels_in_every_tile(name):
    case = Case(**FEW_CHANNELS[name], bias=True, relu=True)
    assert len(tiles(case)) > 1
    for tile in tiles(case):
        case.check(case.plan(tile=tile))


@pytest.mark.parametrize("problem", cases(FEW_CHANNELS, (F32,)))
def test_few_channels_tf32(problem):
    case = Case(**problem, tf32=True, bias=True)
    case.check(case.plan())


def test_few_channels_in_blocks_that_walk():
    """More tiles than blocks, so that each block computes several: on a chip with few SMs."""
    case = Case(n=9, c=3, h=96, w=96, k=64, r=3, s=3, padding=(1, 1, 1, 1))
    plan = case.plan("l4", tile="8x16x64")
    assert plan.launches[0].grid[0] < 9 * 12 * 6
    case.check(plan)


@pytest.mark.parametrize("problem", cases(DEPTHWISE, (F16, BF16, F32)))
def test_depthwise(problem):
    case = Case(**problem, bias=True)
    assert case.plan().family == "fprop_depthwise"
    case.check(case.plan())


@pytest.mark.parametrize("name", ["3x3", "3x3 stride 2", *(pytest.param(name, marks=slow) for name in DEPTHWISE)])
def test_depthwise_in_every_tile(name):
    case = Case(**DEPTHWISE[name], bias=True, relu=True)
    for tile in tiles(case) or [""]:
        case.check(case.plan(tile=tile))


def test_depthwise_in_blocks_that_walk():
    """More tiles than blocks, also from one image to the next."""
    case = Case(n=40, c=8, h=19, w=17, k=8, r=3, s=3, padding=(1, 1, 1, 1), groups=8)
    plan = case.plan("l4", tile="16x16x32")
    assert plan.launches[0].grid[0] < 40 * 2 * 2
    case.check(plan)


@pytest.mark.parametrize("problem", cases({**GEOMETRY, **DEPTHWISE}, (F64,)))
def test_plain(problem):
    case = Case(**problem)
    assert case.plan().family == "fprop_plain"
    case.check(case.plan())


@pytest.mark.parametrize("dtype", [F16, F32, F64])
@pytest.mark.parametrize("problem", cases({**GEOMETRY, "stem": FEW_CHANNELS["3x3"], "depthwise": DEPTHWISE["3x3"]}))
def test_nchw(problem, dtype):
    case = Case(**{**problem, "dtype": dtype}, layout="nchw", bias=True, residual=True)
    case.check(case.plan())


@pytest.mark.parametrize("alignment", [2, 4, 8])
def test_addresses_of_less_alignment(alignment):
    case = Case(n=1, c=32, h=9, w=9, k=48, r=3, s=3, padding=(1, 1, 1, 1), residual=True, alignment=alignment)
    case.check(case.plan())


ONE_OF_EACH = {
    "resident patch": RESIDENT_PATCH["3x3"],
    "resident patch, unaligned": RESIDENT_PATCH["5x5, odd channels"],
    "small map": SMALL_MAP["7x7, split"],
    "resident patch, f32": {**RESIDENT_PATCH["groups"], "dtype": F32},
    "tensor core": TENSOR_CORE["3x3"],
    "unaligned": GEOMETRY["odd channels"],
    "tf32": {**TENSOR_CORE["7x1"], "dtype": F32, "tf32": True},
    "ffma": {**TENSOR_CORE["1x1"], "dtype": F32},
    "few channels": FEW_CHANNELS["7x7 stride 2"],
    "depthwise": DEPTHWISE["3x3"],
    "plain": {**GEOMETRY["stride"], "dtype": F64},
    "transposes": {**GEOMETRY["stride"], "layout": "nchw"},
}


@pytest.mark.parametrize("problem", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_all_orders_of_warps_and_blocks(problem):
    case = Case(**problem)
    for order in ORDERS:
        case.check(case.plan(), order=order, seed=1)


@pytest.mark.parametrize("device, target", [("rtx4090", "sm_89"), ("h100", "sm_90"), ("rtx5090", "sm_120")])
@pytest.mark.parametrize("problem", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_other_chips(problem, device, target):
    case = Case(**problem)
    case.check(case.plan(device), target=target)


FLOATS = {
    "tensor core": dict(n=1, c=128, h=9, w=9, k=64, r=3, s=3, padding=(1, 1, 1, 1)),
    "few channels": dict(n=1, c=3, h=33, w=33, k=64, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2)),
    "depthwise": dict(n=1, c=64, h=9, w=9, k=64, r=3, s=3, padding=(1, 1, 1, 1), groups=64),
}


@pytest.mark.parametrize("dtype", [F16, BF16, F32, "tf32", F64], ids=str)
@pytest.mark.parametrize("problem", FLOATS.values(), ids=FLOATS)
def test_floats(problem, dtype):
    tf32 = dtype == "tf32"
    case = Case(**problem, dtype=F32 if tf32 else dtype, tf32=tf32, integers=False)
    error = (case.run().double() - case.expected()).abs()
    assert (error <= case.tolerance()).all(), f"{case.problem}: {(error / case.tolerance()).max()} x the tolerance"
