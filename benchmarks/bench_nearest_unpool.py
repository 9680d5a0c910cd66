"""Nearest unpooling and its gradient, beside torch's nearest interpolation."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import pyconvx
from pyconvx import ops

LAYERS = {  # C, P, Q, scale
    "decoder_2x2": (64, 56, 56, 2),
    "decoder_4x4": (32, 28, 28, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_forward(compare, values, layout, name):
    *size, scale = LAYERS[name]
    x = values(1, *size, layout=layout)
    compare(
        partial(pyconvx.nearest_unpool2d, x, scale),
        partial(F.interpolate, x, scale_factor=scale, mode="nearest"),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_backward(compare, values, layout, name):
    c, p, q, scale = LAYERS[name]
    grad = values(1, c, p * scale, q * scale, layout=layout)
    torchs = torch.ops.aten.upsample_nearest2d_backward.default
    sizes = [p * scale, q * scale], [1, c, p, q]
    compare(
        lambda: ops.nearest_unpool2d_backward(grad, (scale, scale)),
        lambda: torchs(grad, *sizes),
    )
