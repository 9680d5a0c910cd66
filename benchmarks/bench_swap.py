"""Whole models, swapped and not: LeNet-5 and a small residual network, in inference and in training."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyconvx
from pyconvx.demo import LeNet5


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


def small_resnet():
    return nn.Sequential(
        nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Block(32), Block(32), nn.Conv2d(32, 64, 1, 2), Block(64), Block(64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


MODELS = {"lenet5": (LeNet5, (1, 32, 32)), "small_resnet": (small_resnet, (3, 128, 128))}


def pair(name):
    """Return a swapped model and its twin that is not."""
    torch.manual_seed(0)
    original = MODELS[name][0]()
    swapped = copy.deepcopy(original)
    pyconvx.swap(swapped)
    return swapped, original


@pytest.mark.parametrize("batch", [1, 16], ids="N{}".format)
@pytest.mark.parametrize("name", MODELS)
def test_inference(compare, values, layout, name, batch):
    swapped, original = (model.eval().to(memory_format=layout) for model in pair(name))
    x = values(batch, *MODELS[name][1], layout=layout)
    with torch.no_grad():
        compare(lambda: swapped(x), lambda: original(x))


@pytest.mark.parametrize("name", MODELS)
def test_inference_frozen(compare, values, layout, name):
    """The swapped model with its filters packed once."""
    swapped, original = (model.eval().to(memory_format=layout) for model in pair(name))
    x = values(1, *MODELS[name][1], layout=layout)
    with torch.inference_mode(), pyconvx.frozen_filters():
        compare(lambda: swapped(x), lambda: original(x))


@pytest.mark.parametrize("name", MODELS)
def test_training_step(compare, values, layout, name):
    swapped, original = (model.train().to(memory_format=layout) for model in pair(name))
    x = values(16, *MODELS[name][1], layout=layout)
    labels = torch.arange(16) % 10

    def step(model):
        model.zero_grad()
        F.cross_entropy(model(x), labels).backward()

    compare(lambda: step(swapped), lambda: step(original))
