"""The residual add with its ReLU, in one pass over memory, against torch's two."""

from functools import partial

import pytest
import torch

import pyconvx
from pyconvx import ops
from pyconvx.bench.shapes import NETWORKS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHAPES = NETWORKS["resnet50"].residual


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_relu(compare, values, shape, dtype):
    x, residual = (values(1, shape.c, shape.h, shape.w, dtype=DTYPES[dtype]) for _ in range(2))
    compare(partial(pyconvx.add_relu, x, residual), lambda: torch.add(x, residual).relu_())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient(compare, values, shape, dtype):
    grad, output = (values(1, shape.c, shape.h, shape.w, dtype=DTYPES[dtype]) for _ in range(2))
    output.relu_()
    compare(partial(ops.relu_backward, grad, output), lambda: torch.ops.aten.threshold_backward(grad, output, 0))
