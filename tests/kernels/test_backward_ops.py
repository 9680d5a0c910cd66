"""Derivatives through autograd, by the kernels: gradcheck in float64, and results that never depend on the run."""

from __future__ import annotations

import pytest
import torch
from operations import Recorder

import pyconvx
from kernels import harness  # noqa: F401 (skips where the emulator is not there)
from pyconvx import _C

GEOMETRY = dict(stride=(2, 1), padding=(1, 1), groups=2)


@pytest.fixture(autouse=True)
def emulator():
    with pyconvx.backend("emulator"):
        yield


def tensors(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


RELU = pytest.param("relu", marks=pytest.mark.skipif(not hasattr(_C, "plan_relu_backward"), reason="no relu_backward"))


@pytest.mark.parametrize("activation", [None, RELU])
def test_convolution(activation):
    operands = tensors((2, 4, 6, 5), (6, 2, 3, 3), (6,), (2, 6, 3, 5))

    def convolve(x, w, b, residual=None):
        return pyconvx.conv2d(x, w, b, residual=residual, activation=activation, **GEOMETRY)

    assert torch.autograd.gradcheck(convolve, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(convolve, operands, fast_mode=True)
    if activation:  # whose mask the gradients apply themselves, where no residual needs the masked gradient
        assert torch.autograd.gradcheck(convolve, operands[:3], fast_mode=True)
        assert torch.autograd.gradgradcheck(convolve, operands[:3], fast_mode=True)


@pytest.mark.parametrize(
    "backend, residual, expected",
    [
        ("emulator", False, {"conv2d_dgrad_relu", "conv2d_wgrad_relu"}),
        ("emulator", True, {"relu_backward", "conv2d_dgrad", "conv2d_wgrad"}),
        ("cpu", False, {"relu_backward", "conv2d_dgrad", "conv2d_wgrad"}),
    ],
)
def test_who_applies_the_mask_of_a_relu(backend, residual, expected):
    """Kernels that mask what they load; but relu_backward where its result is the residual's gradient."""
    x, w, added = (operand.detach().float() for operand in tensors((1, 4, 5, 5), (6, 4, 3, 3), (1, 6, 3, 3)))
    leaves = [operand.requires_grad_() for operand in ((x, w, added) if residual else (x, w))]
    with pyconvx.backend(backend):
        y = pyconvx.conv2d(x, w, None, residual=added if residual else None, activation="relu")
        with Recorder() as recorder:
            gradients = torch.autograd.grad(y.sum(), leaves)
    assert recorder.operations() == expected
    with pyconvx.backend("aten"):
        y = pyconvx.conv2d(x, w, None, residual=added if residual else None, activation="relu")
        for gradient, reference in zip(gradients, torch.autograd.grad(y.sum(), leaves), strict=True):
            torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize(
    "geometry",
    [
        dict(stride=(2, 2), padding=(1, 1), output_padding=(1, 0), groups=2),
        dict(stride=(1, 2), dilation=(3, 1), output_padding=(2, 1), groups=2),  # rows beyond the reach of all filters
    ],
)
def test_transposed_convolution(geometry):
    operands = tensors((2, 4, 3, 4), (4, 3, 3, 2), (6,))

    def convolve(x, w, b):
        return pyconvx.conv_transpose2d(x, w, b, **geometry)

    with pyconvx.backend(None):
        expected = convolve(*operands)
    torch.testing.assert_close(convolve(*operands), expected)
    assert torch.autograd.gradcheck(convolve, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(convolve, operands, fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nothing_is_nondeterministic(layout):
    x = torch.randn(2, 16, 7, 6, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    w = torch.randn(24, 16, 3, 3, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    b = torch.randn(24, dtype=torch.bfloat16).requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            y = pyconvx.conv2d(x, w, b, stride=2, padding=1)
            gradients.append(torch.autograd.grad(y.float().square().sum(), (x, w, b)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(g.is_contiguous(memory_format=layout) for g in gradients[0][:2])
