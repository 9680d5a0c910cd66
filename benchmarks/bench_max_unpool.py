"""Max unpooling, from indices of either form, and its gradient, which in torch is a gather."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import pyconvx
from pyconvx import ops

LAYERS = {  # C, H, W, R, stride
    "segnet_2x2_s2": (64, 112, 112, 2, 2),
    "overlapping_3x3_s2": (64, 111, 111, 3, 2),
}
INDICES = {"uint8": torch.uint8, "int64": torch.int64}


def pooled(values, layout, name, index):
    c, h, w, *window = LAYERS[name]
    x = values(1, c, h, w, layout=layout)
    output, indices = pyconvx.max_pool2d(x, *window, return_indices=True, index_dtype=INDICES[index])
    _, flat = F.max_pool2d(x, *window, return_indices=True)
    return x, output, indices, flat, window


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("name", LAYERS)
def test_forward(compare, values, layout, name, index):
    x, output, indices, flat, window = pooled(values, layout, name, index)
    size = x.shape[2:]
    compare(
        partial(pyconvx.max_unpool2d, output, indices, *window, output_size=size),
        partial(F.max_unpool2d, output, flat, *window, output_size=size),
    )


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("name", LAYERS)
def test_backward(compare, values, layout, name, index):
    x, _, indices, flat, (r, stride) = pooled(values, layout, name, index)
    geometry = ((r, r), (stride, stride), (0, 0, 0, 0), (1, 1), tuple(x.shape[2:]))
    compare(
        lambda: ops.max_unpool2d_backward(x, indices, *geometry),
        lambda: x.flatten(2).gather(2, flat.flatten(2)).view(flat.shape),
    )
