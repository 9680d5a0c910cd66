"""Transposed convolution: right, exact where it can be, in its layout, and the size of its output settled."""

from typing import NamedTuple

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


class Case(NamedTuple):
    n: int
    c: int
    p: int
    q: int
    k: int
    r: int
    s: int
    stride: tuple = (1, 1)
    padding: tuple = (0, 0, 0, 0)
    output_padding: tuple = (0, 0)
    groups: int = 1
    dilation: tuple = (1, 1)

    @property
    def weight(self):
        return self.c, self.k // self.groups, self.r, self.s

    @property
    def geometry(self):
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation

    @property
    def output(self):
        axes = zip((self.p, self.q), (self.r, self.s), self.stride, self.dilation, self.output_padding, strict=True)
        h, w = ((size - 1) * step + gap * (taps - 1) + 1 + more for size, taps, step, gap, more in axes)
        top, bottom, left, right = self.padding
        return self.n, self.k, h - top - bottom, w - left - right

    @property
    def is_symmetric(self):
        return self.padding[0] == self.padding[1] and self.padding[2] == self.padding[3]

    @property
    def reduction(self):
        """The longest sum of the output and the gradients."""
        return max(self.c * self.r * self.s, self.k * self.r * self.s, self.n * self.p * self.q)


CASES = {
    "2x2 stride 2": Case(2, 8, 4, 5, 6, 2, 2, (2, 2)),
    "3x3": Case(1, 5, 6, 7, 4, 3, 3, (1, 1), (1, 1, 1, 1)),
    "3x3 stride 2 with output padding": Case(2, 6, 4, 5, 5, 3, 3, (2, 2), (1, 1, 1, 1), (1, 1)),
    "4x4 stride 2": Case(1, 8, 5, 4, 3, 4, 4, (2, 2), (1, 1, 1, 1)),
    "1x1": Case(2, 17, 3, 4, 5, 1, 1),
    "1x1 stride 2": Case(1, 4, 3, 3, 4, 1, 1, (2, 2), output_padding=(1, 1)),
    "1x7": Case(1, 6, 4, 5, 6, 1, 7, (1, 1), (0, 0, 3, 3)),
    "7x1 stride 2": Case(1, 6, 4, 5, 6, 7, 1, (2, 1), (3, 3, 0, 0), (1, 0)),
    "5x5 stride 3": Case(1, 3, 3, 4, 4, 5, 5, (3, 3), (2, 2, 1, 1), (2, 1)),
    "stride beyond the filter": Case(1, 3, 3, 3, 2, 2, 1, (4, 3), output_padding=(3, 2)),
    "2 groups": Case(2, 6, 5, 4, 8, 3, 3, (2, 2), (1, 1, 1, 1), (1, 0), 2),
    "depthwise": Case(1, 7, 4, 4, 7, 2, 2, (2, 2), groups=7),
    "depthwise, 2 filters a channel": Case(1, 3, 4, 4, 6, 3, 3, (1, 1), (1, 1, 1, 1), groups=3),
    "dilated": Case(1, 4, 5, 6, 3, 3, 3, (1, 2), (2, 2, 3, 3), (0, 1), 1, (2, 3)),
    "one channel": Case(2, 1, 4, 5, 1, 3, 3, (2, 2)),
    "one pixel": Case(3, 8, 1, 1, 4, 4, 4),
    "one pixel to one pixel": Case(2, 4, 1, 1, 4, 3, 3, (1, 1), (1, 1, 1, 1)),
    "unequal padding": Case(1, 4, 4, 5, 3, 3, 3, (2, 2), (0, 1, 2, 0), (1, 1)),
    "unequal padding in groups": Case(2, 4, 3, 3, 6, 4, 2, (3, 1), (1, 2, 0, 1), (0, 0), 2),
    "output padding of a stride, dilated": Case(1, 3, 4, 4, 2, 3, 3, (1, 1), (1, 1, 1, 1), (1, 1), 1, (2, 2)),
    "output padding beyond a stride": Case(2, 3, 3, 4, 4, 2, 3, (2, 1), (1, 1, 1, 1), (3, 2), 1, (4, 3)),
    "output padding beyond a stride, unequal": Case(1, 4, 3, 4, 4, 2, 3, (2, 1), (1, 0, 0, 2), (2, 2), 2, (3, 3)),
    "output padding that undoes padding": Case(2, 3, 3, 3, 2, 3, 2, (1, 2), (3, 3, 1, 1), (2, 2), 1, (4, 3)),
    "output padding half within the reach": Case(1, 2, 3, 2, 3, 2, 2, (1, 1), (1, 1, 1, 1), (3, 4), 1, (5, 5)),
}
BACKEND_DTYPES = [("cpu", dtype) for dtype in DTYPES[1:]] + [("aten", dtype) for dtype in DTYPES]


def operands(make, rng, case, dtype, layout):
    """Input, weight, bias and a gradient of the output, of which the first three want gradients."""
    x, weight = make(rng, (case.n, case.c, case.p, case.q), dtype, layout), make(rng, case.weight, dtype)
    bias, grad = make(rng, (case.k,), dtype), make(rng, case.output, dtype, layout)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), grad


def forward_and_backward(x, weight, bias, grad, geometry):
    output = pyconvx.conv_transpose2d(x, weight, bias, *geometry)
    return output, *torch.autograd.grad(output, (x, weight, bias), grad)


def references(x, weight, bias, grad, geometry):
    """The gradients are a convolution's passes over a gradient that is laid out on the whole, uncut canvas."""
    x, weight, bias, grad = map(array, (x, weight, bias, grad))
    stride, padding, _, groups, dilation = geometry
    whole = reference.padded(grad, padding)
    # Rows that no filter reaches would make the convolution one row of windows too large.
    p, q = x.shape[2:]
    reach = [
        (size - 1) * step + gap * (taps - 1) + 1
        for size, step, gap, taps in zip((p, q), stride, dilation, weight.shape[2:], strict=True)
    ]
    whole = whole[:, :, : reach[0], : reach[1]]
    return (
        reference.conv_transpose2d(x, weight, bias, *geometry),
        reference.conv2d(whole, weight, None, stride, (0, 0, 0, 0), dilation, groups),
        reference.conv2d_wgrad(x, whole, weight.shape[2:], stride, (0, 0, 0, 0), dilation, groups),
        grad.sum((0, 2, 3)),
    )


def torchs_conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation):
    whole = F.conv_transpose2d(x, weight, bias, stride, 0, output_padding, groups, dilation)
    return reference.cropped(whole, padding)


@pytest.mark.parametrize(("backend", "dtype"), BACKEND_DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_integers_give_exact_results_and_gradients(rng, case, backend, dtype, layout):
    tensors = operands(integers, rng, case, dtype, layout)
    with pyconvx.backend(backend):
        results = forward_and_backward(*tensors, case.geometry)
    for result, exact in zip(results, references(*tensors, case.geometry), strict=True):
        assert result.dtype == dtype
        assert_exact(result, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_errors_stay_within_the_promise(rng, case, dtype, layout):
    tensors = operands(normal, rng, case, dtype, layout)
    results = forward_and_backward(*tensors, case.geometry)
    exact = references(*tensors, case.geometry)
    scales = references(*(tensor.detach().abs() for tensor in tensors), case.geometry)
    for result, value, scale in zip(results, exact, scales, strict=True):
        assert_within(result, value, scale, case.reduction)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float64_gradients_equal_torchs_autograd(rng, case, layout):
    x, weight, bias, grad = operands(normal, rng, case, torch.float64, layout)
    ours = forward_and_backward(x, weight, bias, grad, case.geometry)
    output = torchs_conv_transpose2d(x, weight, bias, *case.geometry)
    torchs = (output, *torch.autograd.grad(output, (x, weight, bias), grad))
    for mine, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("output padding")])
def test_it_is_the_gradient_of_a_convolution(rng, name):
    case = CASES[name]
    x, weight, *_ = operands(integers, rng, case, torch.float32, torch.contiguous_format)
    image = integers(rng, case.output).requires_grad_()
    stride, padding, _, groups, dilation = case.geometry
    forward = pyconvx.conv2d(image, weight, None, stride, padding, dilation, groups)
    (dgrad,) = torch.autograd.grad(forward, image, x.detach())
    assert_same_values(pyconvx.conv_transpose2d(x, weight, None, *case.geometry).detach(), dgrad)


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_output_and_gradients_are_in_the_inputs_layout(rng, case, layout, backend):
    x, weight, bias, grad = operands(normal, rng, case, torch.float32, layout)
    with pyconvx.backend(backend):
        output, grad_input, grad_weight, _ = forward_and_backward(x, weight, bias, grad, case.geometry)
    assert is_in(layout, output)
    assert is_in(layout, grad_input)
    assert is_in(layout, grad_weight)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_symmetric])
def test_strides_are_torchs(rng, name, layout):
    case = CASES[name]
    x, weight, bias, grad = operands(normal, rng, case, torch.float32, layout)
    output, grad_input, *_ = forward_and_backward(x, weight, bias, grad, case.geometry)
    torchs = F.conv_transpose2d(x, weight, bias, case.stride, case.padding[::2], *case.geometry[2:])
    assert output.stride() == torchs.stride()
    assert grad_input.stride() == torch.autograd.grad(torchs, x, grad)[0].stride()


def test_output_padding_beyond_the_reach_of_the_filters_holds_the_bias():
    x, weight, bias = torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1), torch.tensor([7.0])
    output = pyconvx.conv_transpose2d(x, weight, bias, dilation=3, output_padding=(2, 1))
    assert_same_values(output[0, 0], torch.tensor([[8.0, 8.0, 7.0], [7.0, 7.0, 7.0], [7.0, 7.0, 7.0]]))


# Inputs of every kind.


def test_an_unbatched_image_is_a_batch_of_one(rng):
    x, weight, bias = integers(rng, (4, 3, 5)), integers(rng, (4, 3, 3, 2)), integers(rng, (3,))
    output = pyconvx.conv_transpose2d(x, weight, bias, 2, 1, (1, 0))
    assert_same_values(output, F.conv_transpose2d(x, weight, bias, 2, 1, (1, 0)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(layout, dtype, groups):
    x = torch.empty((0, 4, 3, 4), dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.ones((4, 6 // groups, 3, 3), dtype=dtype, requires_grad=True)
    bias = torch.ones(6, dtype=dtype, requires_grad=True)
    output = pyconvx.conv_transpose2d(x, weight, bias, 2, (0, 1, 1, 1), 1, groups)
    assert output.shape == (0, 6, 7, 8)
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()
    assert not bias.grad.any()


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize(
    "view",
    [
        lambda rng: integers(rng, (2, 4, 3, 10))[..., ::2],
        lambda rng: integers(rng, (2, 9, 3, 5), layout=torch.channels_last)[:, 2:6],
        lambda rng: integers(rng, (1, 1, 3, 5)).expand(2, 4, -1, -1),
        lambda rng: integers(rng, (2, 4, 5, 3)).transpose(2, 3),
        lambda rng: integers(rng, (4, 2, 3, 5)).transpose(0, 1),
    ],
    ids=["sliced", "some channels of channels_last", "expanded", "transposed", "images and channels exchanged"],
)
def test_inputs_that_are_not_dense_give_the_same(rng, view, backend):
    x = view(rng).detach().requires_grad_()
    weight = integers(rng, (2, 3, 3, 4)).transpose(0, 3).detach().requires_grad_()
    bias = integers(rng, (6,))[::2].requires_grad_()
    geometry = (2, 2), (1, 1, 1, 1), (1, 1), 1, (1, 1)
    grad = integers(rng, (1, 3, 1, 9)).expand(2, 3, 6, 9)
    with pyconvx.backend(backend):
        results = forward_and_backward(x, weight, bias, grad, geometry)
    for result, exact in zip(results, references(x, weight, bias, grad, geometry), strict=True):
        assert_exact(result, exact)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_repeat_bit_for_bit(rng, dtype, layout):
    case = Case(2, 16, 9, 10, 12, 3, 3, (2, 2), (1, 1, 1, 1), (1, 1))
    tensors = operands(normal, rng, case, dtype, layout)
    first = forward_and_backward(*tensors, case.geometry)
    for again in (forward_and_backward(*tensors, case.geometry) for _ in range(3)):
        for one, other in zip(first, again, strict=True):
            assert_same_bits(one, other)


# torch's own samples.


def apply(function, sample, dtype):
    """Return the function's output on a sample in ``dtype``, and the tensors that want gradients."""
    args = [arg if arg is None else arg.detach().to(dtype).requires_grad_() for arg in (sample.input, *sample.args)]
    return function(*args, **sample.kwargs), [arg for arg in args if arg is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_own_samples(rng, dtype):
    count = 0
    for sample in opinfo("nn.functional.conv_transpose2d").sample_inputs("cpu", dtype, requires_grad=True):
        ours, tensors = apply(pyconvx.conv_transpose2d, sample, dtype)
        # torch may sum in bfloat16, which is no measure for a sum in float32.
        torchs, tensors_of_torch = apply(F.conv_transpose2d, sample, torch.float32)
        grad = normal(rng, torchs.shape, dtype)
        results = ours, *torch.autograd.grad(ours, tensors, grad)
        expected = torchs, *torch.autograd.grad(torchs, tensors_of_torch, grad.float())
        for mine, other in zip(results, expected, strict=True):
            torch.testing.assert_close(mine, other.to(dtype), msg=lambda text, sample=sample: f"{sample}: {text}")
        count += 1
    assert count >= 12


# The checks are checked.


def test_the_checks_see_a_kernel_that_is_a_little_wrong(rng, wrong_kernel):
    case = CASES["2x2 stride 2"]
    tensors = operands(normal, rng, case, torch.float32, torch.contiguous_format)
    scale = references(*(tensor.detach().abs() for tensor in tensors), case.geometry)[0]
    exact = references(*tensors, case.geometry)[0]
    assert_within(forward_and_backward(*tensors, case.geometry)[0], exact, scale, case.reduction)

    def spoil(result):
        """Add a bias to one value twice."""
        result[0, 1, 2, 3] += tensors[2][1]
        return result

    wrong_kernel(backends.registered()[0], "conv_transpose2d", spoil)
    with pytest.raises(AssertionError, match=r"at .*0.*1.*2.*3.* times as far"):
        assert_within(forward_and_backward(*tensors, case.geometry)[0], exact, scale, case.reduction)
