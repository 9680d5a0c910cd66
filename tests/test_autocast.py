"""Autocast: the dtypes of torch.nn.functional's functions, and gradients in the dtypes of the parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from operations import both_layouts

import pyconvx

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


CALLS = {
    "conv2d": lambda module, x: module.conv2d(x, x[:, :, :3, :3], x[:, 0, 0, 0]),
    "conv_transpose2d": lambda module, x: module.conv_transpose2d(x, x[:, :, :2, :2], x[0, :, 0, 0]),
    "max_pool2d": lambda module, x: module.max_pool2d(x, 2),
    "max_pool2d with indices": lambda module, x: module.max_pool2d(x, 2, return_indices=True)[0],
    "max_unpool2d": lambda module, x: module.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
}


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_results_have_the_dtype_that_torch_gives_them(call, dtype, low):
    x = torch.randn(4, 4, 4, 4).to(dtype)
    with torch.autocast("cpu", dtype=low):
        ours, torchs = call(pyconvx, x), call(F, x)
    assert ours.dtype is torchs.dtype
    torch.testing.assert_close(ours, torchs, rtol=2e-2, atol=2e-2)


@both_layouts
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_gradients_have_the_dtype_of_the_parameters(call, layout):
    x = torch.randn(4, 4, 4, 4).to(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = call(pyconvx, x)
    result.sum().backward()
    assert x.grad.dtype is torch.float32
    assert x.grad.is_contiguous(memory_format=layout)
    assert x.grad.isfinite().all()


def test_operands_are_cast_before_they_are_saved():
    x, weight = torch.randn(1, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    saved = []

    def pack(tensor):
        saved.append(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu"):
        pyconvx.conv2d(x, weight, activation="relu")
    assert set(saved) == {torch.bfloat16}


def test_fused_operands_are_cast_together():
    x, weight, bias = torch.randn(1, 4, 5, 5), torch.randn(4, 4, 1, 1), torch.randn(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = pyconvx.conv2d(x, weight, bias, activation="relu", residual=x)
    assert fused.dtype is torch.bfloat16
    torch.testing.assert_close(fused.float(), (F.conv2d(x, weight, bias) + x).relu(), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("second", DTYPES, ids=str)
@pytest.mark.parametrize("first", DTYPES, ids=str)
def test_residual_add_takes_the_wider_dtype(first, second, activation):
    one, other = torch.randn(2, 3).to(first).requires_grad_(), torch.randn(2, 3).to(second).requires_grad_()
    with torch.autocast("cpu"):
        result = pyconvx.residual_add(one, other, activation)
        assert result.dtype is (one + other).dtype
    result.sum().backward()
    assert (one.grad.dtype, other.grad.dtype) == (first, second)


def test_residual_add_without_autocast_refuses_two_dtypes():
    with pytest.raises(pyconvx.InvalidCall, match="autocast"):
        pyconvx.residual_add(torch.randn(2), torch.randn(2).double())


def test_switching_autocast_off_inside_restores_the_dtype():
    x, weight = torch.randn(1, 3, 6, 6), torch.randn(4, 3, 3, 3)
    with torch.autocast("cpu"):
        assert pyconvx.conv2d(x, weight).dtype is torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert pyconvx.conv2d(x, weight).dtype is torch.float32
    assert pyconvx.conv2d(x, weight).dtype is torch.float32


def test_network_trains_under_autocast():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        pyconvx.nn.ConvBNReLU(1, 8, 3), pyconvx.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(72, 2)
    )
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 2
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        with torch.autocast("cpu"):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
