"""The planner alone: no kernel is compiled or run."""

from __future__ import annotations

import itertools

import pytest

from pyconvx import _C

DEVICES = [device.name for device in _C.devices() if device.capability >= 80]


def problem(**changes):
    fields = dict(n=8, c=64, h=56, w=56, k=64, r=3, s=3, padding=(1, 1, 1, 1))
    return _C.Conv2dProblem(**{**fields, "dtype": _C.DType.float16, "layout": _C.Layout.nhwc, **changes})


@pytest.mark.parametrize(
    "changes, family",
    [
        ({}, "fprop_resident_patch"),
        ({"dtype": _C.DType.bfloat16}, "fprop_resident_patch"),
        ({"r": 1, "s": 7, "padding": (0, 0, 3, 3)}, "fprop_resident_patch"),
        ({"dilation": (2, 2)}, "fprop_resident_patch"),
        ({"h": 14, "w": 14}, "fprop_small_map"),
        ({"h": 7, "w": 7, "c": 512, "k": 512}, "fprop_small_map"),
        ({"h": 14, "w": 14, "c": 32}, "fprop_resident_patch"),
        ({"c": 63}, "fprop_resident_patch"),
        ({"groups": 2}, "fprop_resident_patch"),
        ({"r": 1, "s": 1, "padding": (0, 0, 0, 0)}, "fprop_tensor_core"),
        ({"stride": (1, 2)}, "fprop_tensor_core"),
        ({"c": 24}, "fprop_tensor_core"),  # a quarter of a channel block would be zeros
        ({"dilation": (24, 24), "padding": (24, 24, 24, 24)}, "fprop_tensor_core"),  # no room for the patch
        ({"dtype": _C.DType.float32}, "fprop_resident_patch"),
        ({"dtype": _C.DType.float32, "h": 7, "w": 7}, "fprop_resident_patch"),
        ({"dtype": _C.DType.float32, "c": 60}, "fprop_ffma"),  # zeros would be more than a sixteenth
        ({"dtype": _C.DType.float32, "stride": (2, 2)}, "fprop_ffma"),
        ({"dtype": _C.DType.float64}, "fprop_plain"),
        ({"c": 3}, "fprop_few_channels"),
        ({"c": 3, "dtype": _C.DType.float32}, "fprop_ffma"),
        ({"groups": 64}, "fprop_depthwise"),
        ({"groups": 64, "k": 128}, "fprop_depthwise"),
        ({"groups": 32}, "fprop_tensor_core"),
        ({"r": 20, "s": 20}, "fprop_plain"),
    ],
)
def test_family_depends_on_neither_batch_nor_device(changes, family):
    for n, device in itertools.product([1, 2, 64, 1000], DEVICES):
        assert _C.plan_conv2d(problem(n=n, **changes), device).family == family


def test_tf32_is_asked_for():
    fp32 = problem(dtype=_C.DType.float32)
    assert "tf32" in _C.plan_conv2d(fp32, "a100", tf32=True).launches[0].kernel
    assert "pyconvx::f32" in _C.plan_conv2d(fp32, "a100").launches[0].kernel


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, {"stride": (2, 2)}, {"c": 3}, {"groups": 64}, {"dtype": _C.DType.float32}])
def test_candidates_fit_the_device(device, changes):
    described = next(d for d in _C.devices() if d.name == device)
    plan = _C.plan_conv2d(problem(**changes), device)
    for tile in [candidate.tile for candidate in plan.candidates] or [""]:
        forced = _C.plan_conv2d(problem(**changes), device, tile=tile)
        assert forced.tile == tile
        assert all(launch.shared_bytes <= described.shared_per_block for launch in forced.launches)


def test_best_candidate_wins():
    plan = _C.plan_conv2d(problem(n=32), "a100")
    assert plan.tile == min(plan.candidates, key=lambda candidate: candidate.clocks).tile
    assert plan.tile.startswith(("128", "256"))  # a large problem takes a large tile, a small one
    assert _C.plan_conv2d(problem(n=1, h=7, w=7), "a100").tile.startswith(("32", "64"))


@pytest.mark.parametrize("changes", [{}, {"stride": (2, 2)}])
def test_tiles(changes):
    tiles = {candidate.tile.rpartition("x")[0] for candidate in _C.plan_conv2d(problem(**changes), "a100").candidates}
    assert tiles >= {"256x128", "128x256", "128x128", "128x64", "64x128", "64x64", "64x32"}


def test_split_of_channels_depends_on_neither_batch_nor_device():
    """A split would make another order of summation."""
    for c, h, splits in [(64, 7, 1), (256, 7, 2), (512, 7, 4), (512, 14, 1), (2048, 14, 4)]:
        for n, device in itertools.product([1, 8, 200], DEVICES):
            plan = _C.plan_conv2d(problem(n=n, c=c, h=h, w=h), device)
            partial = {"partial": n * h * h * splits * 64 * 4} if splits > 1 else {}
            assert plan.family == "fprop_small_map" and plan.workspaces == partial
            assert len(plan.launches) == 1 + (splits > 1)


def test_model_says_what_binds():
    (candidate,) = [
        candidate
        for candidate in _C.plan_conv2d(problem(n=256, c=256, k=256), "a100").candidates
        if candidate.tile == "128x128x32"
    ]
    # A large 3x3 is bound by the A100's tensor cores, with a little on top for starts and ends of blocks.
    assert candidate.tensor == max(candidate.tensor, candidate.issue, candidate.shared, candidate.l2, candidate.dram)
    assert candidate.tensor < candidate.clocks < 1.1 * candidate.tensor
    multiplications = 256 * 56 * 56 * 256 * 256 * 9
    assert candidate.tensor == pytest.approx(multiplications / (108 * 4 * 2048 / 8), rel=0.02)
    # One pixel for each filter: bound by what is read.
    plan = _C.plan_conv2d(problem(n=1, c=2048, k=2048, h=1, w=1, r=1, s=1, padding=(0, 0, 0, 0)), "a100")
    assert all(candidate.dram == pytest.approx(2 * 2048 * 2050 / 1100) for candidate in plan.candidates)


def test_vectors_follow_channels_and_alignment():
    def vector(alignment=16, **changes):
        kernel = _C.plan_conv2d(problem(**changes), "a100", alignment=alignment).launches[0].kernel
        return int(kernel.rstrip(">").split(", ")[-1])

    assert [vector(c=c) for c in (64, 20, 22, 21)] == [16, 8, 4, 2]
    assert [vector(alignment) for alignment in (16, 8, 4, 2)] == [16, 8, 4, 2]
    assert vector(c=24, k=30, groups=2) == 8


def test_channels_last_is_never_copied():
    plan = _C.plan_conv2d(problem(residual=True), "a100")
    assert len(plan.launches) == 1 and plan.workspaces == {}


def test_nchw_is_transposed_around_the_kernel():
    plan = _C.plan_conv2d(problem(layout=_C.Layout.nchw, residual=True), "a100")
    assert ["transpose" in launch.kernel for launch in plan.launches] == [True, True, True, False, True]
    elements = 8 * 64 * 56 * 56
    assert plan.workspaces == {
        "nhwc_input": 2 * elements,
        "nhwc_filter": 2 * 64 * 64 * 9,
        "nhwc_residual": 2 * elements,
        "nhwc_output": 2 * elements,
    }


def test_nothing_to_transpose_in_one_channel_or_pixel():
    assert not _C.plan_conv2d(problem(layout=_C.Layout.nchw, c=1, k=1), "a100").workspaces
    pixel = problem(layout=_C.Layout.nchw, h=1, w=1, r=1, s=1, padding=(0, 0, 0, 0))
    assert not _C.plan_conv2d(pixel, "a100").workspaces


def test_batches_beyond_31_bits_are_split():
    plan = _C.plan_conv2d(problem(n=2**20, c=8, k=8), "a100")
    assert len(plan.launches) == 2
    images = (2**31 - 1024) // 56**2
    skips = {slot.buffer: slot.skip for slot in plan.launches[1].pointers}
    assert skips["input"] == skips["output"] == images * 56 * 56 * 8 * 2
    assert skips["filter"] == skips["bias"] == 0


def test_an_image_beyond_31_bits_runs_plain():
    assert _C.plan_conv2d(problem(n=1, c=8, h=2**16, w=2**16), "a100").family == "fprop_plain"


def test_empty_batch_launches_nothing():
    assert _C.plan_conv2d(problem(n=0), "a100").launches == []


def test_arguments_are_bytes_with_addresses():
    launch = _C.plan_conv2d(problem(), "a100").launches[0]
    blank, filled = launch.arguments(), launch.arguments(input=0x1234, output=0x5678)
    at = {slot.buffer: slot.at for slot in launch.pointers}
    assert len(blank) == len(filled)
    assert int.from_bytes(filled[at["input"] : at["input"] + 8], "little") == 0x1234
    assert int.from_bytes(filled[at["output"] : at["output"] + 8], "little") == 0x5678
    assert int.from_bytes(filled[at["bias"] : at["bias"] + 8], "little") == 0


@pytest.mark.parametrize(
    "options, changes, sentence",
    [
        ({"device": "t4"}, {}, "compute capability 8.0.*t4 has 7.5"),
        ({"device": "gtx"}, {}, 'no device "gtx".*a100'),
        ({"tile": "3x3x3"}, {}, "no tile 3x3x3"),
        ({"alignment": 1}, {}, "power of two.*got 1"),
        ({"alignment": 12}, {}, "power of two.*got 12"),
        ({}, {"pass_": _C.Pass.dgrad}, "needs a problem of that pass, got one of dgrad.*plan_conv2d_dgrad"),
        ({}, {"h": 2**31}, "31 bits.*split"),
        ({}, {"c": 63, "groups": 2}, "groups must divide"),
    ],
)
def test_refusals_are_sentences(options, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        _C.plan_conv2d(problem(**changes), options.pop("device", "a100"), **options)


def test_classes_of_dgrad_share_the_workspace_of_the_longest():
    """Strided dgrad runs a convolution for each class of pixels; their channels are split differently."""
    strided = problem(n=2, c=64, h=14, w=14, k=2048, stride=(2, 2), padding=(1, 1, 1, 1), pass_=_C.Pass.dgrad)
    plan = _C.plan_conv2d_dgrad(strided, "a100")
    assert sum("sum_splits" in launch.kernel for launch in plan.launches) > 1
    assert plan.workspaces["partial"] == 2 * 7 * 7 * 7 * 64 * 4  # seven splits of the class of four taps
