"""Max pooling: forward with every form of index, and the gradient."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import pyconvx
from pyconvx import ops

LAYERS = {  # C, H, W, R, stride, padding
    "resnet_3x3_s2": (64, 112, 112, 3, 2, 1),
    "vgg_2x2_s2": (64, 224, 224, 2, 2, 0),
    "inception_3x3_s2": (192, 71, 71, 3, 2, 0),
    "googlenet_3x3_s1": (480, 14, 14, 3, 1, 1),
}
INDICES = {"none": None, "uint8": torch.uint8, "int64": torch.int64}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("name", LAYERS)
def test_forward(compare, values, layout, name, index, dtype):
    c, h, w, *window = LAYERS[name]
    x = values(1, c, h, w, layout=layout, dtype=DTYPES[dtype])
    wanted = INDICES[index] is not None
    options = {"return_indices": True, "index_dtype": INDICES[index]} if wanted else {}
    compare(
        partial(pyconvx.max_pool2d, x, *window, **options), partial(F.max_pool2d, x, *window, return_indices=wanted)
    )


@pytest.mark.parametrize("index", ["uint8", "int64"])
@pytest.mark.parametrize("name", LAYERS)
def test_backward(compare, values, layout, name, index):
    c, h, w, r, stride, padding = LAYERS[name]
    x = values(1, c, h, w, layout=layout)
    window = (r, stride, padding)
    output, indices = pyconvx.max_pool2d(x, *window, return_indices=True, index_dtype=INDICES[index])
    _, flat = F.max_pool2d(x, *window, return_indices=True)
    grad = values(*output.shape, layout=layout)
    sizes = (r, r), (stride, stride)
    compare(
        lambda: ops.max_pool2d_backward(grad, indices, (h, w), *sizes, (padding,) * 4, (1, 1), False),
        lambda: torch.ops.aten.max_pool2d_with_indices_backward(
            grad, x, *sizes, (padding, padding), (1, 1), False, flat
        ),
    )
