"""Training on the CUDA kernels: losses of the first steps, step by step, as the reference's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyconvx
import pyconvx.nn as pnn
from kernels import harness  # noqa: F401 (skips where the emulator is not there)
from pyconvx.models import LeNet5

STEPS = 3


def losses(model: nn.Module, images: Tensor, labels: Tensor, batch: int, rate: float) -> Tensor:
    """The loss of each step of gradient descent with momentum on one batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    seen = []
    for _ in range(STEPS):
        loss = F.cross_entropy(model(images[:batch]), labels[:batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.detach())
    return torch.stack(seen)


def check(model: nn.Module, images: Tensor, labels: Tensor, batch: int, rate: float) -> None:
    twin = copy.deepcopy(model).double()
    expected = losses(twin, images.double(), labels, batch, rate)
    with pyconvx.backend("emulator"):
        seen = losses(model, images, labels, batch, rate)
    torch.testing.assert_close(seen.double(), expected, rtol=2e-4, atol=0)
    assert expected[-1] < expected[0]  # it learns


def test_lenet_on_the_digits():
    pytest.importorskip("sklearn")
    from pyconvx.demo import load_digits

    digits = load_digits()
    torch.manual_seed(0)
    check(LeNet5(), digits.images, digits.labels, batch=4, rate=0.02)


class Block(nn.Module):
    """Two 3x3, the first of which may halve the map, and a shortcut by 1x1 where it does."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = pnn.Conv2d(channels, filters, 3, stride, 1)
        self.second = pnn.Conv2d(filters, filters, 3, 1, 1)
        self.shortcut = pnn.Conv2d(channels, filters, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = pyconvx.conv2d(x, self.first.weight, self.first.bias, self.first.stride, 1, activation="relu")
        return pyconvx.residual_add(self.second(y), self.shortcut(x), activation="relu")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_residual_network(layout):
    torch.manual_seed(1)
    model = nn.Sequential(
        pnn.Conv2d(3, 8, 3, 1, 1), pnn.MaxPool2d(2), Block(8, 8, 1), Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).to(memory_format=layout)  # fmt: skip
    labels = torch.arange(4)
    images = torch.randn(len(labels), 3, 16, 16) + 0.5 * labels.view(-1, 1, 1, 1)
    check(model, images.to(memory_format=layout), labels, batch=4, rate=0.05)
