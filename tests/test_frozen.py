"""frozen_filters: filters packed once, changes noticed, gradients as before."""

from __future__ import annotations

import gc

import pytest
import torch
from operations import both_layouts
from torch import nn

import pyconvx
from pyconvx import backends, frozen
from pyconvx import nn as ours


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def packs(monkeypatch):
    """The filters that have been packed, one entry each time."""
    made, packed = [], frozen.packed

    def counting(weight, geometry, pack):
        def counted():
            made.append(id(weight))
            return pack()

        return packed(weight, geometry, counted)

    monkeypatch.setattr(frozen, "packed", counting)
    return made


GEOMETRIES = {
    "3x3": ((4, 6, 3), {"padding": 1}),
    "1x1": ((4, 6, 1), {"bias": False}),
    "strided, grouped, dilated": ((4, 6, (3, 1)), {"stride": 2, "groups": 2, "dilation": (2, 1), "padding": (2, 0)}),
    "depthwise": ((4, 4, 3), {"groups": 4, "padding": "same"}),
    "four sides": ((4, 6, 3), {"padding": (0, 1, 2, 1)}),
    "circular": ((4, 6, 3), {"padding": 1, "padding_mode": "circular"}),
}


def images(*size):
    """Images in the layout whose filters are packed."""
    return torch.randn(size).to(memory_format=torch.channels_last)


@both_layouts
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("args, kwargs", GEOMETRIES.values(), ids=GEOMETRIES)
def test_results_agree_with_those_outside(args, kwargs, activation, with_residual, layout):
    layer = ours.Conv2d(*args, **kwargs)
    image = torch.randn(2, 4, 8, 9).to(memory_format=layout)
    with torch.no_grad():
        residual = torch.randn_like(layer(image)) if with_residual else None
        want = layer(image, activation=activation, residual=residual)
        with pyconvx.frozen_filters():
            for _ in range(2):
                got = layer(image, activation=activation, residual=residual)
    torch.testing.assert_close(got, want)
    assert got.stride() == want.stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes_agree_too(dtype):
    layer, image = ours.Conv2d(4, 6, 3).to(dtype), torch.randn(2, 4, 8, 8).to(dtype)
    with torch.no_grad():
        want = layer(image, activation="relu")
        with pyconvx.frozen_filters():
            got = layer(image, activation="relu")
    assert got.dtype is dtype
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("native", [True, False], ids=["native", "by way of float32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_filter_is_packed_once(packs, monkeypatch, dtype, native):
    if not native:
        monkeypatch.setattr(backends.registered()[0], "native", {torch.float32})
    elif dtype not in backends.registered()[0].native:
        pytest.skip("oneDNN does not convolve in bfloat16 here")
    model = nn.Sequential(ours.Conv2d(3, 4, 3), nn.ReLU(), ours.Conv2d(4, 4, 1)).to(dtype)
    with torch.no_grad(), pyconvx.frozen_filters():
        for batch in (1, 2, 1, 3):
            model(images(batch, 3, 8, 8).to(dtype))
    assert packs == [id(model[0].weight), id(model[2].weight)]


def test_contiguous_images_find_their_filters_as_they_are(packs):
    with torch.no_grad(), pyconvx.frozen_filters():
        ours.Conv2d(3, 4, 3)(torch.randn(1, 3, 8, 8).contiguous())
    assert not packs


def test_filters_serve_images_of_other_sizes(packs):
    layer = ours.Conv2d(3, 16, 3, padding=1)
    with torch.no_grad():
        for size in ((1, 3, 8, 8), (5, 3, 40, 24), (1, 3, 3, 3), (0, 3, 8, 8)):
            image = torch.randn(size)
            want = layer(image)
            with pyconvx.frozen_filters():
                layer(images(2, 3, 16, 16))
                torch.testing.assert_close(layer(image), want)


def test_one_filter_in_two_geometries_is_packed_for_both(packs):
    weight, image = torch.randn(4, 3, 3, 3), images(1, 3, 8, 8)
    with pyconvx.frozen_filters():
        for stride in (1, 2, 1, 2):
            torch.testing.assert_close(
                pyconvx.conv2d(image, weight, stride=stride), nn.functional.conv2d(image, weight, stride=stride)
            )
    assert len(packs) == 2


CHANGES = {
    "copy_": lambda layer: layer.weight.copy_(torch.ones_like(layer.weight)),
    "mul_": lambda layer: layer.weight.mul_(2),
    "load_state_dict": lambda layer: layer.load_state_dict(ours.Conv2d(3, 4, 3).state_dict()),
    "new parameter": lambda layer: setattr(layer, "weight", nn.Parameter(torch.ones(4, 3, 3, 3))),
    "to channels_last": lambda layer: layer.to(memory_format=torch.channels_last),
    "optimizer": lambda layer: step(layer),
}


def step(layer):
    with torch.enable_grad():
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
        layer(torch.ones(1, 3, 8, 8)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_that_torch_counts_is_noticed(change):
    layer, image = ours.Conv2d(3, 4, 3), images(1, 3, 8, 8)
    with torch.no_grad(), pyconvx.frozen_filters():
        layer(image)
        change(layer)
        torch.testing.assert_close(layer(image), nn.Conv2d.forward(layer, image))


def test_forms_are_dropped_at_the_end_and_with_their_filter(packs):
    layer, image = ours.Conv2d(3, 4, 3), images(1, 3, 8, 8)
    assert frozen.packed_filters is None
    with torch.no_grad():
        for _ in range(2):
            with pyconvx.frozen_filters():
                layer(image)
                assert len(frozen.packed_filters) == 1
                pyconvx.conv2d(image, images(2, 3, 1, 1))
                gc.collect()
                assert len(frozen.packed_filters) == 1
            assert frozen.packed_filters is None
        layer(image)
    assert len(packs) == 4


def test_nested_block_is_one_of_its_own(packs):
    layer, image = ours.Conv2d(3, 4, 3), images(1, 3, 8, 8)
    with torch.no_grad(), pyconvx.frozen_filters():
        layer(image)
        with pytest.raises(ZeroDivisionError), pyconvx.frozen_filters():
            layer(image)
            raise ZeroDivisionError
        layer(image)
        assert len(frozen.packed_filters) == 1  # the outer block's, still there
    assert len(packs) == 2
    assert frozen.packed_filters is None


def test_gradients_inside_are_those_outside():
    def gradients():
        image = torch.ones(2, 3, 8, 8).cumsum(3).sin().requires_grad_()
        layer.zero_grad()
        layer(image, activation="relu").square().sum().backward()
        return [image.grad, layer.weight.grad.clone(), layer.bias.grad.clone()]

    layer = ours.Conv2d(3, 4, 3)
    want = gradients()
    with pyconvx.frozen_filters():
        torch.testing.assert_close(gradients(), want, rtol=1e-4, atol=1e-4)


def test_training_inside_goes_on_as_outside(packs):
    def train(layer):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(image).square().mean().backward()
            optimizer.step()
        return layer.weight.detach()

    torch.manual_seed(1)
    one = ours.Conv2d(3, 4, 3)
    torch.manual_seed(1)
    two, image = ours.Conv2d(3, 4, 3), images(2, 3, 8, 8)
    with pyconvx.frozen_filters():
        got = train(one)
    torch.testing.assert_close(got, train(two), rtol=1e-4, atol=1e-5)
    assert len(packs) == 3


def test_inference_tensors_are_packed(packs):
    with torch.inference_mode(), pyconvx.frozen_filters():
        weight, image = torch.randn(4, 3, 3, 3), images(1, 3, 8, 8)
        for _ in range(2):
            got = pyconvx.conv2d(image, weight)
        torch.testing.assert_close(got, nn.functional.conv2d(image, weight))
    assert len(packs) == 1


def test_convolution_and_batch_norm_are_folded_once(packs):
    block, image = ours.ConvBNReLU(3, 4, 3).eval(), images(2, 3, 8, 8)
    with torch.inference_mode():
        want = block(image)
        with pyconvx.frozen_filters():
            for _ in range(3):
                torch.testing.assert_close(block(image), want)
            assert len(packs) == 2  # folded, and then packed
            with torch.inference_mode(False), torch.no_grad():
                block.bn.running_mean.add_(1)
            torch.testing.assert_close(block(image), block.bn(nn.Conv2d.forward(block.conv, image)).relu())


def test_folding_leaves_training_and_gradients_alone(packs):
    block, image = ours.ConvBNReLU(3, 4, 3), images(2, 3, 8, 8)
    with pyconvx.frozen_filters():
        block(image).sum().backward()
        assert block.bn.num_batches_tracked == 1 and block.bn.weight.grad is not None
        block.zero_grad()
        block.eval()(image).sum().backward()
        assert block.bn.weight.grad is not None


def test_swapped_model_runs_frozen(packs):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 2, 2, 2)).eval()
    image = images(1, 3, 8, 8)
    want = model(image)
    with pyconvx.swap(model), torch.inference_mode(), pyconvx.frozen_filters():
        torch.testing.assert_close(model(image), want)
    assert len(packs) == 1


def test_compiled_model_runs_frozen():
    layer, image = ours.Conv2d(3, 4, 3), images(1, 3, 8, 8)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        want = compiled(image)
        with pyconvx.frozen_filters():
            torch.testing.assert_close(compiled(image), want)
    torch._dynamo.reset()
