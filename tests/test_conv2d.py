"""Convolution and its two gradients: right, exact where they can be, and in their layout."""

from typing import NamedTuple

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from checking import (
    DTYPES,
    array,
    assert_exact,
    assert_same_bits,
    assert_same_values,
    assert_within,
    integers,
    is_in,
    normal,
    opinfo,
)

import pyconvx
from pyconvx import backends
from pyconvx.backends.cpu import Cpu


class Case(NamedTuple):
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple = (1, 1)
    padding: tuple = (0, 0, 0, 0)
    dilation: tuple = (1, 1)
    groups: int = 1

    @property
    def input(self):
        return self.n, self.c, self.h, self.w

    @property
    def weight(self):
        return self.k, self.c // self.groups, self.r, self.s

    @property
    def output(self):
        return self.n, self.k, *reference.conv_size((self.h, self.w), (self.r, self.s), *self.geometry[:3])

    @property
    def geometry(self):
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def is_symmetric(self):
        return self.padding[0] == self.padding[1] and self.padding[2] == self.padding[3]

    @property
    def reduction(self):
        """The longest sum of the three passes."""
        per_pixel = self.r * self.s
        return max(self.c * per_pixel, self.k * per_pixel, self.n * self.h * self.w) // self.groups


CASES = {
    "3x3": Case(2, 8, 9, 11, 6, 3, 3, padding=(1, 1, 1, 1)),
    "3x3 without padding": Case(1, 5, 7, 6, 4, 3, 3),
    "3x3 stride 2": Case(2, 16, 9, 12, 8, 3, 3, (2, 2), (1, 1, 1, 1)),
    "3x3 dilated": Case(1, 4, 12, 11, 5, 3, 3, (1, 1), (2, 2, 2, 2), (2, 2)),
    "3x3 dilated beyond the image": Case(1, 3, 4, 5, 2, 3, 3, (1, 1), (5, 5, 5, 5), (5, 5)),
    "1x1": Case(2, 17, 6, 5, 9, 1, 1),
    "1x1 stride 2": Case(2, 8, 7, 8, 16, 1, 1, (2, 2)),
    "1x1 padded": Case(1, 3, 4, 4, 5, 1, 1, (1, 1), (1, 1, 2, 2)),
    "1x3": Case(2, 8, 5, 9, 8, 1, 3, (1, 1), (0, 0, 1, 1)),
    "1x7": Case(1, 12, 8, 9, 10, 1, 7, (1, 1), (0, 0, 3, 3)),
    "7x1": Case(1, 12, 9, 8, 10, 7, 1, (1, 1), (3, 3, 0, 0)),
    "3x1 stride 2": Case(2, 6, 9, 4, 4, 3, 1, (2, 1), (1, 1, 0, 0)),
    "5x5": Case(1, 6, 10, 9, 4, 5, 5, (1, 1), (2, 2, 2, 2)),
    "7x7 stride 2, a stem": Case(1, 3, 17, 15, 8, 7, 7, (2, 2), (3, 3, 3, 3)),
    "11x11 stride 4": Case(1, 3, 23, 19, 4, 11, 11, (4, 4), (2, 2, 2, 2)),
    "2 groups": Case(2, 8, 6, 7, 6, 3, 3, (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "4 groups, 1x1": Case(1, 12, 5, 5, 8, 1, 1, groups=4),
    "depthwise": Case(2, 9, 7, 8, 9, 3, 3, (1, 1), (1, 1, 1, 1), (1, 1), 9),
    "depthwise, 2 filters a channel, stride 2": Case(1, 5, 8, 9, 10, 5, 5, (2, 2), (2, 2, 2, 2), (1, 1), 5),
    "one channel": Case(2, 1, 8, 7, 3, 3, 3, (1, 1), (1, 1, 1, 1)),
    "one channel, one filter": Case(3, 1, 5, 6, 1, 3, 2),
    "one pixel": Case(4, 16, 1, 1, 10, 1, 1),
    "one pixel, padded": Case(1, 3, 1, 1, 4, 3, 3, (1, 1), (1, 1, 1, 1)),
    "one row": Case(2, 4, 1, 13, 4, 1, 5, (1, 3), (0, 0, 2, 2)),
    "the filter covers the image": Case(2, 4, 5, 6, 7, 5, 6),
    "the filter exceeds the image": Case(1, 3, 2, 3, 4, 5, 7, (1, 1), (2, 2, 3, 3)),
    "unequal padding": Case(2, 5, 6, 7, 4, 3, 3, (2, 2), (0, 1, 2, 0)),
    "padding on one side only": Case(1, 4, 5, 5, 3, 2, 2, (1, 1), (0, 1, 0, 1)),
    "unequal padding in groups, dilated": Case(1, 4, 7, 6, 4, 3, 2, (1, 2), (3, 0, 1, 2), (2, 1), 2),
    "nothing is even": Case(3, 5, 13, 6, 7, 2, 3, (3, 2), (1, 1, 0, 0), (2, 1)),
    "stride beyond the filter": Case(1, 3, 9, 8, 2, 1, 2, (3, 4)),
    "65 channels to 33": Case(1, 65, 4, 5, 33, 3, 3, (1, 1), (1, 1, 1, 1)),
}
BACKEND_DTYPES = [("cpu", dtype) for dtype in DTYPES[1:]] + [("aten", dtype) for dtype in DTYPES]


def torchs_conv2d(x, weight, bias, stride, padding, dilation, groups):
    top, bottom, left, right = padding
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)


def operands(make, rng, case, dtype, layout):
    """Input, weight, bias and a gradient of the output, of which the first three want gradients."""
    x, weight = make(rng, case.input, dtype, layout), make(rng, case.weight, dtype)
    bias, grad = make(rng, (case.k,), dtype), make(rng, case.output, dtype, layout)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), grad


def three_passes(x, weight, bias, grad, geometry):
    output = pyconvx.conv2d(x, weight, bias, *geometry)
    return output, *torch.autograd.grad(output, (x, weight, bias), grad)


def references(x, weight, bias, grad, geometry):
    x, weight, bias, grad = map(array, (x, weight, bias, grad))
    return (
        reference.conv2d(x, weight, bias, *geometry),
        reference.conv2d_dgrad(grad, weight, x.shape[2:], *geometry),
        reference.conv2d_wgrad(grad, x, weight.shape[2:], *geometry),
        grad.sum((0, 2, 3)),
    )


@pytest.mark.parametrize(("backend", "dtype"), BACKEND_DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_integers_give_exact_results_in_all_passes(rng, case, backend, dtype, layout):
    tensors = operands(integers, rng, case, dtype, layout)
    with pyconvx.backend(backend):
        results = three_passes(*tensors, case.geometry)
    for result, exact in zip(results, references(*tensors, case.geometry), strict=True):
        assert result.dtype == dtype
        assert_exact(result, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_errors_stay_within_the_promise(rng, case, dtype, layout):
    tensors = operands(normal, rng, case, dtype, layout)
    results = three_passes(*tensors, case.geometry)
    exact = references(*tensors, case.geometry)
    scales = references(*(tensor.detach().abs() for tensor in tensors), case.geometry)
    for result, value, scale in zip(results, exact, scales, strict=True):
        assert_within(result, value, scale, case.reduction)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float64_gradients_equal_torchs_autograd(rng, case, layout):
    x, weight, bias, grad = operands(normal, rng, case, torch.float64, layout)
    ours = three_passes(x, weight, bias, grad, case.geometry)
    output = torchs_conv2d(x, weight, bias, *case.geometry)
    torchs = (output, *torch.autograd.grad(output, (x, weight, bias), grad))
    for mine, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_output_and_gradients_are_in_the_inputs_layout(rng, case, layout, backend):
    x, weight, bias, grad = operands(normal, rng, case, torch.float32, layout)
    with pyconvx.backend(backend):
        output, grad_input, grad_weight, _ = three_passes(x, weight, bias, grad, case.geometry)
    assert is_in(layout, output)
    assert is_in(layout, grad_input)
    assert is_in(layout, grad_weight)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_symmetric])
def test_strides_are_torchs(rng, name, layout):
    case = CASES[name]
    x, weight, bias, grad = operands(normal, rng, case, torch.float32, layout)
    ours = three_passes(x, weight, bias, grad, case.geometry)
    output = F.conv2d(x, weight, bias, case.stride, case.padding[::2], case.dilation, case.groups)
    torchs = (output, *torch.autograd.grad(output, (x, weight, bias), grad))
    assert [mine.stride() for mine in ours[:2]] == [other.stride() for other in torchs[:2]]
    # torch gives the gradient of a 1x1 filter either layout's strides, which address the same elements.
    assert telling_strides(ours[2]) == telling_strides(torchs[2])


def telling_strides(tensor):
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def test_channels_last_filters_make_the_output_channels_last(rng):
    x, weight = normal(rng, (2, 8, 5, 6)), normal(rng, (4, 8, 3, 3), layout=torch.channels_last)
    output = pyconvx.conv2d(x, weight)
    assert is_in(torch.channels_last, output)
    assert output.stride() == F.conv2d(x, weight).stride()


def test_a_gradient_in_another_layout_is_taken(rng, layout):
    case = CASES["3x3"]
    x, weight, bias, grad = operands(integers, rng, case, torch.float32, layout)
    other = torch.contiguous_format if layout is torch.channels_last else torch.channels_last
    results = three_passes(x, weight, bias, grad.contiguous(memory_format=other), case.geometry)
    for result, exact in zip(results, references(x, weight, bias, grad, case.geometry), strict=True):
        assert_exact(result, exact)
    assert is_in(layout, results[1])


def test_an_expanded_gradient_is_taken(rng, layout):
    case = CASES["2 groups"]
    x, weight, bias, _ = operands(integers, rng, case, torch.float32, layout)
    output = pyconvx.conv2d(x, weight, bias, *case.geometry)
    grads = torch.autograd.grad(output.sum(), (x, weight, bias))
    exact = references(x, weight, bias, torch.ones_like(output), case.geometry)[1:]
    for grad, value in zip(grads, exact, strict=True):
        assert_exact(grad, value)


# Padding.


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("stride", [1, 2, 3, (3, 1), (2, 5)])
@pytest.mark.parametrize("filter_size", [(1, 1), (2, 2), (3, 3), (2, 5), (4, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_same_padding_gives_an_output_for_every_stride(rng, stride, filter_size, dilation):
    x, weight = integers(rng, (1, 2, 9, 10)), integers(rng, (3, 2, *filter_size))
    output = pyconvx.conv2d(x, weight, stride=stride, padding="same", dilation=dilation)
    vertical, horizontal = (stride, stride) if isinstance(stride, int) else stride
    assert output.shape == (1, 3, -(-9 // vertical), -(-10 // horizontal))
    if stride == 1:
        assert_same_values(output, F.conv2d(x, weight, padding="same", dilation=dilation))


def test_same_padding_puts_the_odd_row_at_the_bottom_and_right():
    x, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
    expected = torch.tensor([[4.0, 4.0, 2.0], [4.0, 4.0, 2.0], [2.0, 2.0, 1.0]])
    assert_same_values(pyconvx.conv2d(x, weight, padding="same")[0, 0], expected)


def test_same_padding_is_never_negative(rng):
    x, weight = integers(rng, (1, 2, 9, 9)), integers(rng, (3, 2, 1, 1))
    output = pyconvx.conv2d(x, weight, stride=4, padding="same")
    assert_same_values(output, F.conv2d(x, weight, stride=4))


def test_valid_padding_is_none(rng):
    x, weight = integers(rng, (1, 2, 9, 8)), integers(rng, (3, 2, 3, 3))
    assert_same_values(pyconvx.conv2d(x, weight, stride=2, padding="valid"), F.conv2d(x, weight, stride=2))


@pytest.mark.parametrize("padding", [1, (1,), [1, 1], (1, 1, 1, 1), torch.Size([1, 1])])
def test_all_forms_of_padding_mean_the_same(rng, padding):
    x, weight = integers(rng, (1, 2, 6, 5)), integers(rng, (3, 2, 3, 3))
    assert_same_values(pyconvx.conv2d(x, weight, padding=padding), F.conv2d(x, weight, padding=1))


# Inputs of every kind.


def test_an_unbatched_image_is_a_batch_of_one(rng):
    x, weight, bias = integers(rng, (4, 6, 7)), integers(rng, (3, 4, 3, 3)), integers(rng, (3,))
    residual = integers(rng, (3, 6, 7))
    output = pyconvx.conv2d(x, weight, bias, padding=1, activation="relu", residual=residual)
    assert_same_values(output, torch.relu(F.conv2d(x, weight, bias, padding=1) + residual))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(layout, dtype, groups):
    x = torch.empty((0, 4, 6, 7), dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.ones((6, 4 // groups, 3, 3), dtype=dtype, requires_grad=True)
    bias = torch.ones(6, dtype=dtype, requires_grad=True)
    output = pyconvx.conv2d(x, weight, bias, padding=(0, 1, 1, 1), groups=groups, activation="relu")
    assert output.shape == (0, 6, 5, 7)
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()
    assert not bias.grad.any()


def views(rng):
    """Inputs of 2 x 4 x 6 x 7 that are not dense, by name."""
    return {
        "every other column": integers(rng, (2, 4, 6, 14))[..., ::2],
        "inner rows": integers(rng, (2, 4, 9, 7))[:, :, 1:7],
        "some channels": integers(rng, (2, 9, 6, 7))[:, 2:6],
        "some channels of channels_last": integers(rng, (2, 9, 6, 7), layout=torch.channels_last)[:, 2:6],
        "expanded images": integers(rng, (1, 4, 6, 7)).expand(2, -1, -1, -1),
        "expanded channels": integers(rng, (2, 1, 6, 7)).expand(-1, 4, -1, -1),
        "one number": integers(rng, ()).expand(2, 4, 6, 7),
        "transposed planes": integers(rng, (2, 4, 7, 6)).transpose(2, 3),
        "images and channels exchanged": integers(rng, (4, 2, 6, 7)).transpose(0, 1),
        "an offset into memory": integers(rng, (2 * 4 * 6 * 7 + 3,))[3:].view(2, 4, 6, 7),
    }


VIEWS = list(views(torch.Generator()))


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("view", VIEWS)
def test_inputs_that_are_not_dense_give_the_same(rng, view, backend):
    x = views(rng)[view]
    weight = integers(rng, (5, 3, 3, 4)).transpose(1, 3)  # (5, 4, 3, 3), in an order of its own
    bias = integers(rng, (10,))[::2]
    grad = integers(rng, (2, 5, 6, 7)).transpose(2, 3).contiguous().transpose(2, 3)
    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    geometry = (1, 1), (1, 1, 1, 1), (1, 1), 1
    with pyconvx.backend(backend):
        results = three_passes(*leaves, grad, geometry)
    for result, exact in zip(results, references(x, weight, bias, grad, geometry), strict=True):
        assert_exact(result, exact)
    assert results[0].stride() == F.conv2d(x, weight, bias, padding=1).stride()


# Epilogues.


@pytest.mark.parametrize(("backend", "dtype"), BACKEND_DTYPES)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 2, 1, 1)])
def test_epilogues_are_exact(rng, backend, dtype, layout, has_bias, has_residual, activation, padding):
    case = Case(2, 6, 7, 8, 5, 3, 3, padding=padding)
    x, weight, bias, grad = operands(lambda *args: integers(*args, most=1), rng, case, dtype, layout)
    residual = integers(rng, case.output, dtype, layout).requires_grad_() if has_residual else None
    bias = bias if has_bias else None
    with pyconvx.backend(backend):
        output = pyconvx.conv2d(x, weight, bias, *case.geometry, activation=activation, residual=residual)
        leaves = [tensor for tensor in (x, weight, bias, residual) if tensor is not None]
        grads = torch.autograd.grad(output, leaves, grad)

    exact = reference.conv2d(array(x), array(weight), array(bias), *case.geometry)
    exact = exact + array(residual) if has_residual else exact
    passed = np.where(exact <= 0, 0, array(grad)) if activation else array(grad)
    exact = np.maximum(exact, 0) if activation else exact
    assert_exact(output, exact)
    assert is_in(layout, output)
    assert_exact(grads[0], reference.conv2d_dgrad(passed, array(weight), (7, 8), *case.geometry))
    assert_exact(grads[1], reference.conv2d_wgrad(passed, array(x), (3, 3), *case.geometry))
    if has_bias:
        assert_exact(grads[2], passed.sum((0, 2, 3)))
    if has_residual:
        assert_exact(grads[-1], passed)


@pytest.mark.parametrize("backend", ["cpu", "aten"])
def test_a_residual_in_another_layout_is_added(rng, layout, backend):
    x, weight = integers(rng, (2, 3, 5, 6), layout=layout), integers(rng, (4, 3, 3, 3))
    residual = integers(rng, (2, 4, 6, 5)).transpose(2, 3)
    before = residual.clone()
    with pyconvx.backend(backend):
        output = pyconvx.conv2d(x, weight, padding=1, residual=residual)
    assert_same_values(output, F.conv2d(x, weight, padding=1) + residual)
    assert is_in(layout, output)
    assert_same_values(residual, before)


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_nan_passes_the_relu_in_both_directions(backend, dtype):
    x = torch.tensor([1.0, -1.0, float("nan"), float("inf")], dtype=dtype).view(1, 1, 2, 2).requires_grad_()
    weight = torch.ones((1, 1, 1, 1), dtype=dtype)
    with pyconvx.backend(backend):
        output = pyconvx.conv2d(x, weight, activation="relu")
        (grad,) = torch.autograd.grad(output, x, torch.full_like(output, 3))
    nan, inf = float("nan"), float("inf")
    assert_same_values(output.detach(), torch.tensor([1.0, 0.0, nan, inf], dtype=dtype).view(1, 1, 2, 2))
    assert_same_values(grad, torch.tensor([3.0, 0.0, 3.0, 3.0], dtype=dtype).view(1, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_sums_are_taken_in_float32(layout, dtype):
    # 4,608 ones: a bfloat16 accumulator stays at 256, a float16 one at 2,048.
    x = torch.ones((1, 512, 5, 5), dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.ones((2, 512, 3, 3), dtype=dtype, requires_grad=True)
    output = pyconvx.conv2d(x, weight, padding=1)
    assert output[0, 0, 2, 2] == 4608
    x = torch.ones((1, 4, 50, 50), dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.ones((512, 4, 3, 3), dtype=dtype, requires_grad=True)
    output = pyconvx.conv2d(x, weight, padding=1)
    grad_input, grad_weight = torch.autograd.grad(output, (x, weight), torch.ones_like(output))
    assert grad_input[0, 0, 5, 5] == 4608
    assert grad_weight[0, 0, 1, 1] == torch.tensor(2500.0).to(dtype)


# The same in every run, and with filters that are kept packed.


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_repeat_bit_for_bit(rng, dtype, layout):
    case = Case(3, 16, 20, 19, 24, 3, 3, padding=(1, 1, 1, 1))
    tensors = operands(normal, rng, case, dtype, layout)
    first = three_passes(*tensors, case.geometry)
    for again in (three_passes(*tensors, case.geometry) for _ in range(3)):
        for one, other in zip(first, again, strict=True):
            assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("name", ["3x3", "1x7", "depthwise", "7x7 stride 2, a stem", "unequal padding", "one pixel"])
def test_frozen_filters_give_the_same_on_integers(rng, name, dtype, layout, activation, has_residual):
    case = CASES[name]
    x, weight, bias, residual = operands(lambda *args: integers(*args, most=1), rng, case, dtype, layout)
    options = {"activation": activation, "residual": residual if has_residual else None}
    with torch.no_grad():
        expected = pyconvx.conv2d(x, weight, bias, *case.geometry, **options)
        with pyconvx.frozen_filters():
            for _ in range(2):
                frozen = pyconvx.conv2d(x, weight, bias, *case.geometry, **options)
                assert_same_values(frozen, expected)
                assert frozen.stride() == expected.stride()


def test_frozen_filters_notice_a_change_that_torch_counts(rng):
    x, weight = integers(rng, (1, 8, 5, 5)), integers(rng, (8, 8, 3, 3))
    with torch.no_grad(), pyconvx.frozen_filters():
        pyconvx.conv2d(x, weight)
        weight.mul_(2)
        assert_same_values(pyconvx.conv2d(x, weight), F.conv2d(x, weight))


# torch's own samples, and the errors that torch raises.


def apply(function, sample, dtype):
    """Return the function's output on a sample in ``dtype``, and the tensors that want gradients."""
    args = [arg if arg is None else arg.detach().to(dtype).requires_grad_() for arg in (sample.input, *sample.args)]
    return function(*args, **sample.kwargs), [arg for arg in args if arg is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_own_samples(rng, dtype):
    count = 0
    for sample in opinfo("nn.functional.conv2d").sample_inputs("cpu", dtype, requires_grad=True):
        ours, tensors = apply(pyconvx.conv2d, sample, dtype)
        # torch may sum in bfloat16, which is no measure for a sum in float32.
        torchs, tensors_of_torch = apply(F.conv2d, sample, torch.float32)
        grad = normal(rng, torchs.shape, dtype)
        results = ours, *torch.autograd.grad(ours, tensors, grad)
        expected = torchs, *torch.autograd.grad(torchs, tensors_of_torch, grad.float())
        for mine, other in zip(results, expected, strict=True):
            torch.testing.assert_close(mine, other.to(dtype), msg=lambda text, sample=sample: f"{sample}: {text}")
        count += 1
    assert count >= 30


def test_what_torch_refuses_is_refused():
    count = 0
    for error in opinfo("nn.functional.conv2d").error_inputs("cpu"):
        with pytest.raises(pyconvx.InvalidCall):
            pyconvx.conv2d(error.sample_input.input, *error.sample_input.args, **error.sample_input.kwargs)
        count += 1
    assert count >= 10


# The checks are checked.


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_dgrad", "conv2d_wgrad"])
def test_the_checks_see_a_kernel_that_is_a_little_wrong(rng, wrong_kernel, operation):
    case = CASES["3x3"]
    x, weight, bias, grad = operands(normal, rng, case, torch.float32, torch.contiguous_format)
    scales = references(*(tensor.detach().abs() for tensor in (x, weight, bias, grad)), case.geometry)
    exact = references(x, weight, bias, grad, case.geometry)
    place = ["conv2d", "conv2d_dgrad", "conv2d_wgrad"].index(operation)

    def spoil(result):
        """Leave out about one product of one sum."""
        tensor = result[0] if isinstance(result, tuple) else result
        tensor.view(-1)[37] += scales[place].flat[37] / case.reduction
        return result

    wrong_kernel(Cpu(), operation, spoil)
    results = three_passes(x, weight, bias, grad, case.geometry)
    for i in range(3):
        if i != place:
            assert_within(results[i], exact[i], scales[i], case.reduction)
    with pytest.raises(AssertionError, match="times as far"):
        assert_within(results[place], exact[place], scales[place], case.reduction)


def test_the_check_of_exactness_sees_one_wrong_bit(rng, wrong_kernel):
    x, weight = integers(rng, (1, 4, 5, 5)), integers(rng, (4, 4, 3, 3))
    exact = reference.conv2d(array(x), array(weight))
    assert_exact(pyconvx.conv2d(x, weight), exact)

    def spoil(result):
        result.view(torch.int32)[0, 1, 2, 0] ^= 1
        return result

    wrong_kernel(backends.registered()[0], "conv2d", spoil)
    with pytest.raises(AssertionError, match="1 of 36 differ"):
        assert_exact(pyconvx.conv2d(x, weight), exact)
