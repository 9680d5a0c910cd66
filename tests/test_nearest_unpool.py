"""Nearest unpooling: torch's interpolation, and its gradient summed in one order."""

import pytest
import torch
import torch.nn.functional as F
from checking import DTYPES, assert_same_bits, in_layout, integers, is_in, normal

import pyconvx
from pyconvx import backends, nn, ops

BACKENDS = ["cpu", "aten", "emulator"]
CASES = {  # N, C, P, Q, scale
    "2x2": (2, 16, 3, 4, (2, 2)),
    "3x2": (1, 8, 4, 3, (3, 2)),
    "7x7": (1, 5, 3, 2, (7, 7)),
    "1x1": (2, 3, 4, 5, (1, 1)),
    "1x4": (1, 12, 2, 5, (1, 4)),
    "one channel": (2, 1, 3, 4, (2, 2)),
    "one pixel": (2, 3, 1, 1, (4, 5)),
}


@pytest.fixture(params=BACKENDS)
def backend(request):
    found = next(backend for backend in backends.registered() if backend.name == request.param)
    if found.unavailable():
        pytest.skip(found.unavailable())
    with pyconvx.backend(request.param):
        yield request.param


def summed(grad, scale):
    """Every cell's sum, one addition after another in row-major order, in float32 at least."""
    wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
    sums = wide[:, :, :: scale[0], :: scale[1]]
    for place in range(1, scale[0] * scale[1]):
        row, column = divmod(place, scale[1])
        sums = sums + wide[:, :, row :: scale[0], column :: scale[1]]
    return sums.to(grad.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_are_torchs_and_gradients_are_summed_in_order(rng, case, dtype, layout, backend):
    *size, scale = case
    x = normal(rng, size, dtype, layout).requires_grad_()
    grad = normal(rng, (*size[:2], size[2] * scale[0], size[3] * scale[1]), dtype, layout)
    output = pyconvx.nearest_unpool2d(x, scale)
    (grad_input,) = torch.autograd.grad(output, x, grad)
    expected = x.detach().repeat_interleave(scale[0], 2).repeat_interleave(scale[1], 3)
    assert_same_bits(output.detach(), expected)
    assert_same_bits(grad_input, summed(grad, scale))
    assert is_in(layout, output) and is_in(layout, grad_input)


def test_it_is_torchs_interpolation(rng, layout):
    x = normal(rng, (2, 3, 4, 5), layout=layout)
    for scale in (1, 2, (3, 2)):
        assert_same_bits(pyconvx.nearest_unpool2d(x, scale), F.interpolate(x, scale_factor=scale, mode="nearest"))
    assert_same_bits(nn.NearestUnpool2d(2)(x[0]), torch.nn.Upsample(scale_factor=2)(x[:1])[0])


def test_values_are_moved_and_not_computed(layout, backend):
    bits = torch.tensor([0x7FC12345, -0x3EDCBB, -0x800000, 0x7F800000], dtype=torch.int32)
    x = in_layout(bits.view(torch.float32).view(1, 4, 1, 1), layout)
    output = pyconvx.nearest_unpool2d(x, 2).permute(2, 3, 0, 1).contiguous().view(torch.int32)
    assert torch.equal(output.flatten(), bits.repeat(4))


def test_views_and_empty_batches_are_taken(rng, backend):
    x = integers(rng, (3, 6, 4, 10))[1:, ::2, :, 1::3]
    assert_same_bits(pyconvx.nearest_unpool2d(x, 2), F.interpolate(x, scale_factor=2, mode="nearest"))
    grad = integers(rng, (2, 5, 8, 6)).transpose(2, 3)
    assert_same_bits(ops.nearest_unpool2d_backward(grad, (3, 2)), summed(grad, (3, 2)))
    assert pyconvx.nearest_unpool2d(torch.empty(0, 3, 2, 2), 2).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: pyconvx.nearest_unpool2d(torch.ones(1, 1, 2, 2), 0),
         r"nearest_unpool2d: scale must be at least 1 in both directions, got \(0, 0\); use scale=1"),
        (lambda: pyconvx.nearest_unpool2d(torch.ones(1, 1, 2, 2), 1.5),
         r"nearest_unpool2d: scale is 1.5, expected an int or a pair of ints"),
        (lambda: pyconvx.nearest_unpool2d(torch.ones(2, 2), 2),
         r"nearest_unpool2d: input has 2 dimensions, shape \(2, 2\), expected 4"),
        (lambda: pyconvx.nearest_unpool2d(torch.ones(1, 1, 2, 2, dtype=torch.int32), 2), "input has dtype int32"),
        (lambda: ops.nearest_unpool2d_backward(torch.ones(1, 1, 5, 4), (2, 2)),
         r"grad_output has shape \(1, 1, 5, 4\), expected rows and columns in whole cells of 2 x 2"),
    ],
)  # fmt: skip
def test_a_bad_call_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(pyconvx.InvalidCall, match=sentence):
        call()


def test_the_checks_see_a_cell_that_is_not_filled(rng, wrong_kernel):
    x = normal(rng, (1, 2, 3, 4))

    def spoil(output):
        output[0, 1, 3, 5] += 1
        return output

    wrong_kernel(backends.registered()[0], "nearest_unpool2d", spoil)
    with pytest.raises(AssertionError, match=r"1 of 96 differ; first at \(0, 1, 3, 5\)"):
        assert_same_bits(pyconvx.nearest_unpool2d(x, 2), F.interpolate(x, scale_factor=2, mode="nearest"))
