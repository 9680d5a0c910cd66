"""Problems: the sizes they derive, what they refuse and in which words, and their use as keys."""

from itertools import product

import pytest
import reference
import torch
import torch.nn.functional as F

from pyconvx import _C
from pyconvx.ops.conv2d import output_size as conv_output_size
from pyconvx.ops.conv_transpose2d import output_size as conv_transpose_output_size
from pyconvx.ops.max_pool import output_size as pool_output_size

CONV = {"n": 2, "c": 4, "h": 9, "w": 11, "k": 6, "r": 3, "s": 5}
POOL = {"n": 2, "c": 4, "h": 9, "w": 11, "r": 3, "s": 5}
UNPOOL = {"n": 2, "c": 4, "p": 3, "q": 5, "h": 9, "w": 11, "r": 3, "s": 2, "stride": (3, 2)}
LARGE = 2**31


def conv(**fields):
    return _C.Conv2dProblem(**{**CONV, **fields})


def pool(**fields):
    return _C.Pool2dProblem(**{**POOL, **fields})


def unpool(**fields):
    return _C.Unpool2dProblem(**{**UNPOOL, **fields})


# Derived sizes.

AXES = list(product(range(1, 8), range(1, 5), range(1, 4), ((0, 0), (1, 1), (0, 1), (2, 0)), range(1, 4)))


def test_a_convolutions_output_has_the_size_that_counting_gives():
    refused = 0
    for size, taps, stride, (before, after), dilation in AXES:
        geometry = (stride, 2), (before, after, 1, 0), (dilation, 1)
        problem = conv(h=size, w=6, r=taps, s=2, stride=geometry[0], padding=geometry[1], dilation=geometry[2])
        counted = reference.conv_size((size, 6), (taps, 2), *geometry)
        if 0 in counted:
            refused += 1
            assert "the window covers" in problem.refusal()
            continue
        assert problem.refusal() == ""
        assert (problem.p, problem.q) == counted
        assert conv_output_size((size, 6), (taps, 2), *geometry) == counted
        if before == after:
            x, weight = torch.empty(1, 1, size, 7, device="meta"), torch.empty(1, 1, taps, 2, device="meta")
            assert F.conv2d(x, weight, None, (stride, 2), (before, 0), (dilation, 1)).shape[2:] == counted
    assert refused > 50


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_a_poolings_output_has_the_size_that_counting_gives(ceil_mode):
    refused = 0
    for size, taps, stride, (before, after), dilation in AXES:
        geometry = (taps, 2), (stride, 2), (before, after, 1, 0), (dilation, 1), ceil_mode
        problem = pool(
            h=size, w=6, r=taps, s=2, stride=(stride, 2), padding=(before, after, 1, 0), dilation=(dilation, 1),
            ceil_mode=ceil_mode,
        )  # fmt: skip
        counted = reference.pool_size((size, 6), *geometry)
        extent = dilation * (taps - 1) + 1
        if max(before, after) > extent // 2 or 0 in counted:
            refused += 1
            assert problem.refusal()
            continue
        assert problem.refusal() == ""
        assert (problem.p, problem.q) == counted
        assert pool_output_size((size, 6), *geometry) == counted
        if before == after <= taps // 2:
            x = torch.empty(1, 1, size, 7, device="meta")
            torchs = F.max_pool2d(x, (taps, 2), (stride, 2), (before, 0), (dilation, 1), ceil_mode)
            assert torchs.shape[2:] == counted
    assert refused > 50


def test_a_transposed_convolutions_output_has_torchs_size():
    for size, taps, stride, (before, after), dilation in AXES:
        for more in range(max(stride, dilation)):
            geometry = (stride, 2), (before, after, 0, 0), (more, 0), (dilation, 1)
            ours = conv_transpose_output_size((size, 3), (taps, 2), *geometry)
            assert ours[0] == (size - 1) * stride - before - after + dilation * (taps - 1) + 1 + more
            if before == after and ours[0] > 0:
                x, weight = torch.empty(1, 1, size, 3, device="meta"), torch.empty(1, 1, taps, 2, device="meta")
                torchs = F.conv_transpose2d(x, weight, None, (stride, 2), (before, 0), (more, 0), 1, (dilation, 1))
                assert torchs.shape[2:] == ours


def test_windows_overlap_if_two_of_them_could_share_an_element():
    for taps, stride, dilation in product(range(1, 5), range(1, 8), range(1, 4)):
        expected = stride < dilation * (taps - 1) + 1
        assert pool(r=1, s=taps, stride=(1, stride), dilation=(1, dilation)).overlapping == expected
        assert unpool(r=taps, s=1, stride=(stride, 1), dilation=(dilation, 1)).overlapping == expected


def test_flops_count_a_multiplication_and_an_addition_per_product():
    problem = conv(groups=2, stride=(2, 1), padding=(1, 1, 0, 0))
    assert (problem.p, problem.q) == (5, 7)
    assert problem.flops == 2 * 2 * 6 * 5 * 7 * 3 * 5 * 2
    assert conv(groups=2, stride=(2, 1), padding=(1, 1, 0, 0), pass_=_C.Pass.wgrad).flops == problem.flops
    assert conv(n=2**30, c=2**10, k=2**10, w=2**10, r=1, s=1).flops == 2.0**61 * 9


def test_sizes_of_a_problem_that_is_refused_are_not_told():
    for problem, size in product((conv(r=20), pool(r=20)), ("p", "q")):
        with pytest.raises(ValueError, match="the window covers 20 x 5"):
            getattr(problem, size)
    with pytest.raises(ValueError, match="groups must be at least 1"):
        _ = conv(groups=0).flops


def test_defaults_are_the_plainest():
    problem = conv()
    assert (problem.stride, problem.padding, problem.dilation) == ([1, 1], [0, 0, 0, 0], [1, 1])
    assert (problem.groups, problem.dtype, problem.layout) == (1, _C.DType.float32, _C.Layout.nchw)
    assert (problem.pass_, problem.bias, problem.residual) == (_C.Pass.fprop, False, False)
    assert problem.activation == _C.Activation.none
    assert (pool().ceil_mode, pool().index) == (False, _C.IndexType.int64)
    assert not problem.channels_last
    assert conv(layout=_C.Layout.nhwc).channels_last


# Refusals.

FITS = "kernel_size, stride, padding and dilation must be below 2^31, got "
REFUSALS = {
    "conv2d, no channel": (
        conv(c=0),
        "conv2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 0, 9, 11]; only the "
        "batch may be empty",
    ),
    "conv2d, negative batch": (
        conv(n=-1),
        "conv2d: the input must have at least one channel, row and column, got [N, C, H, W] = [-1, 4, 9, 11]; only the "
        "batch may be empty",
    ),
    "conv2d, no row": (
        conv(h=0),
        "conv2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 4, 0, 11]; only the "
        "batch may be empty",
    ),
    "conv2d, too many elements": (
        conv(n=2**30, h=2**30),
        "conv2d: the input has more elements than 64 bits can address, got [N, C, H, W] = [1073741824, 4, 1073741824, "
        "11]; split the batch or the image",
    ),
    "conv2d, too many elements of the output": (
        conv(n=2**50, k=2**12),
        "conv2d: the output has more elements than 64 bits can address, got [N, C, H, W] = [1125899906842624, 4096, 7, "
        "7]; split the batch or the image",
    ),
    "conv2d, no filter": (
        conv(k=0),
        "conv2d: there must be at least one filter, got 0; give the weight out_channels >= 1",
    ),
    "conv2d, no tap": (
        conv(s=0),
        "conv2d: kernel_size must be at least 1 in both directions, got (3, 0); use kernel_size=1 for a window of one "
        "element",
    ),
    "conv2d, no step": (
        conv(stride=(0, 1)),
        "conv2d: stride must be at least 1 in both directions, got (0, 1); use stride=1 for dense output",
    ),
    "conv2d, negative dilation": (
        conv(dilation=(1, -2)),
        "conv2d: dilation must be at least 1 in both directions, got (1, -2); use dilation=1 for a window without "
        "holes",
    ),
    "conv2d, negative padding": (
        conv(padding=(0, 0, -1, 0)),
        "conv2d: padding must not be negative, got (top, bottom, left, right) = (0, 0, -1, 0); use padding=0 and slice "
        "the input to crop it",
    ),
    "conv2d, geometry beyond 2^31": (
        conv(stride=(LARGE, 1)),
        f"conv2d: {FITS}kernel_size=(3, 5), stride=(2147483648, 1), padding=(0, 0, 0, 0), dilation=(1, 1); reduce the "
        f"one that is not",
    ),
    "conv2d, no group": (
        conv(groups=0),
        "conv2d: groups must be at least 1, got 0; use groups=1 for a dense one",
    ),
    "conv2d, groups that do not divide": (
        conv(groups=4),
        "conv2d: groups must divide both the channels and the filters, got groups=4 for 4 channels and 6 filters; use "
        "a common divisor of the two",
    ),
    "conv2d, window beyond the input": (
        conv(r=5, dilation=(3, 1), padding=(1, 2, 0, 0)),
        "conv2d: the window covers 13 x 5 with kernel_size=(5, 5) and dilation=(3, 1), but the padded input is only 12 "
        "x 11; use a smaller kernel_size or dilation, or more padding",
    ),
    "max_pool2d, no column": (
        pool(w=0),
        "max_pool2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 4, 9, 0]; only "
        "the batch may be empty",
    ),
    "max_pool2d, negative stride": (
        pool(stride=(1, -1)),
        "max_pool2d: stride must be at least 1 in both directions, got (1, -1); use stride=1 for dense output",
    ),
    "max_pool2d, padding beyond half": (
        pool(padding=(1, 2, 2, 2)),
        "max_pool2d: padding must be at most half of the window on each side, got (top, bottom, left, right) = (1, 2, "
        "2, 2) for a window that covers 3 x 5; use a larger kernel_size, or pad the input with -inf beforehand",
    ),
    "max_pool2d, window beyond the input": (
        pool(r=12),
        "max_pool2d: the window covers 12 x 5 with kernel_size=(12, 5) and dilation=(1, 1), but the padded input is "
        "only 9 x 11; use a smaller kernel_size or dilation, or more padding",
    ),
    "max_pool2d, no output": (
        pool(r=12, ceil_mode=True),
        "max_pool2d: the output would be 0 x 7 for an input of 9 x 11; use a smaller kernel_size or dilation, or more "
        "padding",
    ),
    "max_pool2d, window beyond a byte": (
        pool(h=40, w=40, r=16, s=16, index=_C.IndexType.uint8),
        "max_pool2d: torch.uint8 indices tell at most 255 elements of a window apart, got kernel_size=(16, 16) with "
        "256; use torch.int32 or torch.int64 indices",
    ),
    "max_pool2d, window beyond 32 bits": (
        pool(h=2**16, w=2**16, r=2**16, s=2**15, index=_C.IndexType.int32),
        "max_pool2d: torch.int32 indices tell fewer than 2^31 elements of a window apart, got kernel_size=(65536, "
        "32768) with 2147483648; use torch.int64 indices",
    ),
    "max_unpool2d, no pooled row": (
        unpool(p=0),
        "max_unpool2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 4, 0, 5]; only "
        "the batch may be empty",
    ),
    "max_unpool2d, no output column": (
        unpool(w=-3),
        "max_unpool2d: the output must have at least one channel, row and column, got [N, C, H, W] = [2, 4, 9, -3]; "
        "only the batch may be empty",
    ),
    "max_unpool2d, no index": (
        unpool(index=_C.IndexType.none),
        "max_unpool2d: indices are needed, got none; pass those that max_pool2d returned with return_indices=True",
    ),
    "max_unpool2d, negative padding": (
        unpool(padding=(0, -1, 0, 0)),
        "max_unpool2d: padding must not be negative, got (top, bottom, left, right) = (0, -1, 0, 0); use padding=0 and "
        "slice the input to crop it",
    ),
}


@pytest.mark.parametrize(("problem", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_say_what_was_given_what_was_expected_and_what_to_do(problem, sentence):
    assert problem.refusal() == sentence


@pytest.mark.parametrize("make", [conv, pool, unpool])
@pytest.mark.parametrize("extreme", [0, -1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)])
def test_no_number_makes_a_problem_crash(make, extreme):
    """Neither division by zero nor overflow, for extremes in every field and in pairs of them."""
    single = [name for name in ("n", "c", "h", "w", "k", "p", "q", "r", "s", "groups") if accepts(make, name)]
    changes = [{name: extreme} for name in single]
    changes += [{name: (extreme, 1)} for name in ("stride", "dilation")]
    changes += [{"padding": (0, extreme, extreme, 0)}]
    for one, other in product(changes, changes):
        problem = make(**one, **{name: value for name, value in other.items() if name not in one})
        assert isinstance(problem.refusal(), str)
        assert str(problem)
        if make is not unpool and not problem.refusal():
            assert problem.p >= 1
            assert problem.q >= 1


def accepts(make, name):
    try:
        make(**{name: 1})
    except TypeError:
        return False
    return True


def test_numbers_beyond_64_bits_and_other_things_are_no_fields():
    for value in (2**63, -(2**63) - 1, 1.5, float("nan"), "3", None):
        with pytest.raises(TypeError):
            conv(n=value)
    with pytest.raises(TypeError):
        conv(stride=(1, 1, 1))
    with pytest.raises(TypeError):
        _C.Conv2dProblem(1, 1, 1, 1, 1, 1, 1)  # numbers without names


# Text, equality, keys.

EVERY_CONV_FIELD = {
    "n": 3, "c": 8, "h": 12, "w": 13, "k": 12, "r": 2, "s": 4, "stride": (1, 2), "padding": (0, 1, 0, 0),
    "dilation": (2, 1), "groups": 2, "dtype": _C.DType.bfloat16, "layout": _C.Layout.nhwc, "pass_": _C.Pass.dgrad,
    "bias": True, "residual": True, "activation": _C.Activation.relu,
}  # fmt: skip
EVERY_POOL_FIELD = {
    "n": 3, "c": 8, "h": 12, "w": 13, "r": 2, "s": 4, "stride": (1, 2), "padding": (0, 1, 0, 0), "dilation": (2, 1),
    "ceil_mode": True, "dtype": _C.DType.float16, "layout": _C.Layout.nhwc, "index": _C.IndexType.uint8,
    "activation": _C.Activation.relu,
}  # fmt: skip
EVERY_UNPOOL_FIELD = {
    "n": 3, "c": 8, "p": 4, "q": 6, "h": 12, "w": 13, "r": 2, "s": 4, "stride": (1, 2), "padding": (0, 1, 0, 0),
    "dilation": (2, 1), "dtype": _C.DType.float64, "layout": _C.Layout.nhwc, "index": _C.IndexType.int32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            conv(),
            "conv2d fprop n2 c4 h9 w11 k6 r3 s5 stride 1x1 pad 0,0,0,0 dilation 1x1 groups 1 float32 nchw",
        ),
        (
            _C.Conv2dProblem(**EVERY_CONV_FIELD),
            "conv2d dgrad n3 c8 h12 w13 k12 r2 s4 stride 1x2 pad 0,1,0,0 dilation 2x1 groups 2 bfloat16 nhwc +bias "
            "+residual relu",
        ),
        (pool(), "max_pool2d n2 c4 h9 w11 r3 s5 stride 1x1 pad 0,0,0,0 dilation 1x1 float32 nchw indices int64"),
        (
            _C.Pool2dProblem(**EVERY_POOL_FIELD),
            "max_pool2d n3 c8 h12 w13 r2 s4 stride 1x2 pad 0,1,0,0 dilation 2x1 ceil float16 nhwc indices uint8 relu",
        ),
        (
            pool(index=_C.IndexType.none),
            "max_pool2d n2 c4 h9 w11 r3 s5 stride 1x1 pad 0,0,0,0 dilation 1x1 float32 nchw",
        ),
        (
            _C.Unpool2dProblem(**EVERY_UNPOOL_FIELD),
            "max_unpool2d n3 c8 p4 q6 h12 w13 r2 s4 stride 1x2 pad 0,1,0,0 dilation 2x1 float64 nhwc indices int32",
        ),
    ],
)
def test_a_problem_reads_as_one_line(problem, text):
    assert str(problem) == text
    assert repr(problem) == f"<{text}>"


@pytest.mark.parametrize(
    ("make", "changes"),
    [(conv, EVERY_CONV_FIELD), (pool, EVERY_POOL_FIELD), (unpool, {**EVERY_UNPOOL_FIELD, "r": 4, "s": 5})],
)
def test_problems_are_equal_and_equal_keys_if_all_fields_are(make, changes):
    one = make()
    assert one == make()
    assert hash(one) == hash(make())
    assert one != str(one)
    different = {one: "none"}
    for name, value in changes.items():
        other = make(**{name: value})
        assert other != one
        assert hash(other) != hash(one)
        different[other] = name
    assert len(different) == len(changes) + 1
    assert different[make()] == "none"


def test_problems_of_different_kinds_are_never_equal():
    assert pool() != conv()
    assert len({pool(), conv(), unpool()}) == 3


@pytest.mark.parametrize("side", range(4))
def test_the_four_sides_of_padding_are_told_apart(side):
    padding = tuple(int(i == side) for i in range(4))
    problem = conv(padding=padding)
    assert problem.padding == list(padding)
    assert (problem.pad_top, problem.pad_bottom, problem.pad_left, problem.pad_right) == padding
    assert len({conv(padding=tuple(int(i == other) for i in range(4))) for other in range(4)}) == 4


# The kernels' own border: what passes it may not crash.


def test_null_addresses_are_refused():
    x = torch.zeros(2, 4, 9, 11)
    problem = pool()
    with pytest.raises(ValueError, match="max_pool2d: `input` is a null address"):
        _C.cpu.max_pool2d(problem, 0, x.data_ptr(), x.data_ptr())
    with pytest.raises(ValueError, match="max_pool2d: `indices` is a null address"):
        _C.cpu.max_pool2d(problem, x.data_ptr(), x.data_ptr(), 0)
    with pytest.raises(ValueError, match="residual_add: `output` is a null address"):
        _C.cpu.residual_add(3, _C.DType.float32, _C.Activation.none, x.data_ptr(), x.data_ptr(), 0)


def test_problems_that_are_refused_are_not_run():
    x = torch.zeros(16)
    before = x.clone()
    address = x.data_ptr()
    for kernel in (_C.cpu.max_pool2d, _C.cpu.max_pool2d_backward, _C.cpu.max_pool2d_gather):
        with pytest.raises(ValueError, match="stride must be at least 1"):
            kernel(pool(stride=(0, 1)), address, address, address)
    for kernel in (_C.cpu.max_unpool2d, _C.cpu.max_unpool2d_backward):
        with pytest.raises(ValueError, match="the output must have at least one channel"):
            kernel(unpool(h=0), address, address, address)
    with pytest.raises(ValueError, match="the winners' indices are needed"):
        _C.cpu.max_pool2d_backward(pool(index=_C.IndexType.none), address, address, address)
    with pytest.raises(ValueError, match="count must not be negative, got -1"):
        _C.cpu.residual_add(-1, _C.DType.float32, _C.Activation.none, address, address, address)
    assert torch.equal(x, before)


def test_an_index_outside_is_refused_before_anything_is_written():
    problem = unpool(n=1, c=1, p=1, q=1, h=2, w=2, r=2, s=2, stride=(2, 2))
    value, index, output = torch.ones(1), torch.tensor([4]), torch.full((4,), 7.0)
    with pytest.raises(ValueError, match=r"index 4 at \[n, c, p, q\] = \[0, 0, 0, 0\] lies outside the 2 x 2 output"):
        _C.cpu.max_unpool2d(problem, value.data_ptr(), index.data_ptr(), output.data_ptr())
    assert (output == 7).all()


def test_counting_agrees_with_counts_made_by_hand():
    assert reference.conv_size((7, 8), (3, 3), (2, 2), (0, 0, 0, 0), (1, 1)) == (3, 3)
    assert reference.conv_size((7, 8), (3, 3), (2, 2), (1, 1, 0, 1), (1, 1)) == (4, 4)
    assert reference.pool_size((7, 8), (3, 3), (2, 2), (0, 0, 0, 0), (1, 1), True) == (3, 4)
    assert reference.pool_size((7, 8), (2, 2), (3, 3), (0, 1, 0, 0), (1, 1), True) == (3, 3)
