"""SegNet's pairs: pooling hands its winners to unpooling as one byte each, and no int64 tensor ever exists."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyconvx
from pyconvx.models import create_model


class TorchSegNet(nn.Module):
    """Two stages of a SegNet, by torch's layers."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)])
        self.decoder = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)])
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x):
        kept = []
        for conv in self.encoder:
            x = torch.relu(conv(x))
            size = x.shape[-2:]
            x, indices = self.pool(x)
            kept.append((indices, size))
        for conv in self.decoder:
            indices, size = kept.pop()
            x = conv(self.unpool(x, indices, output_size=size))
        return x


class DTypes(TorchDispatchMode):
    """The dtypes of all tensors that operations return."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                self.seen.add(value.dtype)
        return result


def image(rng):
    return torch.randn(2, 3, 14, 18, generator=rng)


def test_a_swapped_segnet_hands_over_bytes_and_gives_torchs_numbers(rng):
    model, x = TorchSegNet(), image(rng)
    expected = model(x)
    expected_grad = torch.autograd.grad(expected.sum(), model.encoder[0].weight)[0]
    before = dict(vars(model.pool))
    with pyconvx.swap(model, offset_indices=True):
        with DTypes() as dtypes:
            output = model(x)
            (grad,) = torch.autograd.grad(output.sum(), model.encoder[0].weight)
        table = pyconvx.explain(model, x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grad, expected_grad)
    assert torch.int64 not in dtypes.seen and torch.uint8 in dtypes.seen
    pairs = [row for row in table.rows if row[1] in ("max_pool2d", "max_unpool2d")]
    assert [row[1] for row in pairs] == ["max_pool2d"] * 2 + ["max_unpool2d"] * 2
    assert all(row[2].endswith("indices uint8") for row in pairs)
    assert vars(model.pool) == before  # restored exactly
    torch.testing.assert_close(model(x), expected)


def test_without_it_a_swapped_segnet_keeps_torchs_form(rng):
    model = TorchSegNet()
    with pyconvx.swap(model):
        assert model.pool(image(rng))[1].dtype == torch.int64


def test_our_segnet_hands_over_bytes(rng):
    model = create_model("segnet", width=4).eval()
    with DTypes() as dtypes, torch.no_grad():
        model(torch.randn(1, 3, 32, 32, generator=rng))
    assert torch.int64 not in dtypes.seen and torch.uint8 in dtypes.seen
    rows = pyconvx.explain(model, torch.randn(1, 3, 32, 32, generator=rng)).rows
    pairs = [row[2] for row in rows if row[1] in ("max_pool2d", "max_unpool2d")]
    assert len(pairs) == 10 and all(problem.endswith("indices uint8") for problem in pairs)


def test_windows_by_which_offsets_would_mean_other_places_are_refused():
    model = TorchSegNet()
    model.unpool = nn.MaxUnpool2d(3, 2)
    with pytest.raises(pyconvx.InvalidCall, match="have different windows, by which an offset would mean different"):
        pyconvx.swap(model, offset_indices=True)
    assert type(model.pool) is nn.MaxPool2d


def test_an_unpooling_that_is_left_to_torch_is_refused():
    model = TorchSegNet()
    with pytest.raises(pyconvx.InvalidCall, match="is left to torch, which reads positions; let it be exchanged"):
        pyconvx.swap(model, exclude="unpool", offset_indices=True)
    assert type(model.pool) is nn.MaxPool2d


def test_large_windows_get_int32(rng):
    model = nn.Sequential(nn.MaxPool2d(17, return_indices=True))
    with pyconvx.swap(model, offset_indices=True):
        assert model(torch.randn(1, 1, 34, 34, generator=rng))[1].dtype == torch.int32
