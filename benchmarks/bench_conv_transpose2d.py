"""Transposed convolution: the learnable unpoolings of decoders and generators."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import pyconvx

LAYERS = {  # C, P, Q, K, R, stride, padding
    "4x4_s2": (128, 28, 28, 64, 4, 2, 1),
    "2x2_s2": (256, 28, 28, 128, 2, 2, 0),
    "3x3": (64, 56, 56, 64, 3, 1, 1),
}


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "forward_backward"])
@pytest.mark.parametrize("name", LAYERS)
def test_conv_transpose2d(compare, values, layout, name, gradient):
    c, p, q, k, r, stride, padding = LAYERS[name]
    x = values(1, c, p, q, layout=layout).requires_grad_(gradient)
    w = values(c, k, r, r, layout=layout).requires_grad_(gradient)

    def call(operation):
        output = operation(x, w, None, stride, padding)
        if gradient:
            torch.autograd.grad(output, (x, w), torch.ones_like(output))

    compare(partial(call, pyconvx.conv_transpose2d), partial(call, F.conv_transpose2d))
