"""Convolution, all passes: one layer of each kind that networks are made of."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import pyconvx
from pyconvx import ops
from pyconvx.bench.shapes import Conv

LAYERS = {
    "stem_7x7_s2": Conv(1, 3, 224, 224, 64, 7, 7, stride=2, padding=(3, 3)),
    "3x3": Conv(1, 128, 28, 28, 128, 3, 3, padding=(1, 1)),
    "3x3_s2": Conv(1, 128, 56, 56, 128, 3, 3, stride=2, padding=(1, 1)),
    "1x1": Conv(1, 256, 14, 14, 1024, 1, 1),
    "1x7": Conv(1, 192, 17, 17, 192, 1, 7, padding=(0, 3)),
    "7x1": Conv(1, 192, 17, 17, 192, 7, 1, padding=(3, 0)),
    "groups": Conv(1, 96, 27, 27, 256, 5, 5, padding=(2, 2), groups=2),
    "depthwise": Conv(1, 144, 56, 56, 144, 3, 3, padding=(1, 1), groups=144),
}


def operands(layer, batch, values, layout):
    x = values(batch, layer.c, layer.h, layer.w, layout=layout)
    w = values(layer.k, layer.c // layer.groups, layer.r, layer.s, layout=layout)
    return x, w, values(batch, layer.k, layer.p, layer.q, layout=layout)


def geometry(layer):
    vertical, horizontal = layer.padding
    return (layer.stride,) * 2, (vertical, vertical, horizontal, horizontal), (1, 1), layer.groups


@pytest.mark.parametrize("batch", [1, 8], ids="N{}".format)
@pytest.mark.parametrize("name", LAYERS)
def test_fprop(compare, values, layout, name, batch):
    layer = LAYERS[name]
    x, w, _ = operands(layer, batch, values, layout)
    options = (None, layer.stride, layer.padding, 1, layer.groups)
    with torch.no_grad():
        compare(partial(pyconvx.conv2d, x, w, *options), partial(F.conv2d, x, w, *options))


@pytest.mark.parametrize("name", ["3x3", "1x1", "1x7"])
def test_fprop_fused(compare, values, layout, name):
    """Bias, residual and ReLU in the convolution, against torch's three operations."""
    layer = LAYERS[name]
    x, w, residual = operands(layer, 1, values, layout)
    bias = torch.ones(layer.k)
    options = (bias, layer.stride, layer.padding, 1, layer.groups)
    with torch.no_grad():
        compare(
            partial(pyconvx.conv2d, x, w, *options, activation="relu", residual=residual),
            lambda: F.conv2d(x, w, *options).add_(residual).relu_(),
        )


@pytest.mark.parametrize("name", ["3x3", "1x1", "1x7"])
def test_fprop_frozen(compare, values, layout, name):
    """Filters packed once, against torch's, which packs them in every call."""
    layer = LAYERS[name]
    x, w, _ = operands(layer, 1, values, layout)
    options = (None, layer.stride, layer.padding, 1, layer.groups)
    with torch.no_grad(), pyconvx.frozen_filters():
        compare(partial(pyconvx.conv2d, x, w, *options), partial(F.conv2d, x, w, *options))


@pytest.mark.parametrize("name", LAYERS)
def test_dgrad(compare, values, layout, name):
    layer = LAYERS[name]
    x, w, grad = operands(layer, 1, values, layout)
    stride, _, dilation, groups = geometry(layer)
    compare(
        lambda: ops.conv2d_dgrad(grad, w, (layer.h, layer.w), *geometry(layer)),
        lambda: torch.ops.aten.convolution_backward(
            grad, x, w, None, stride, layer.padding, dilation, False, (0, 0), groups, (True, False, False)
        ),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_wgrad(compare, values, layout, name):
    layer = LAYERS[name]
    x, w, grad = operands(layer, 1, values, layout)
    stride, _, dilation, groups = geometry(layer)
    compare(
        lambda: ops.conv2d_wgrad(grad, x, (layer.r, layer.s), *geometry(layer), False),
        lambda: torch.ops.aten.convolution_backward(
            grad, x, w, None, stride, layer.padding, dilation, False, (0, 0), groups, (False, True, False)
        ),
    )
