"""What a call costs the host: problems so small that nothing else is left to measure."""

import pytest
import torch
import torch.nn.functional as F

import pyconvx


def operations(library, values):
    """Return the calls of one library by name, and the tensors that gradients are asked of."""
    F_ = pyconvx if library == "pyconvx" else F
    x, w, wt = values(1, 2, 4, 4), values(2, 2, 1, 1), values(2, 2, 1, 1)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)

    def add_relu():
        return pyconvx.add_relu(x, x) if library == "pyconvx" else torch.add(x, x).relu_()

    calls = {
        "conv2d": lambda: F_.conv2d(x, w),
        "conv_transpose2d": lambda: F_.conv_transpose2d(x, wt),
        "max_pool2d": lambda: F_.max_pool2d(x, 2),
        "max_unpool2d": lambda: F_.max_unpool2d(pooled, indices, 2),
        "add_relu": add_relu,
    }
    return calls, (x, w, wt, pooled)


@pytest.mark.parametrize("road", ["no_grad", "forward", "forward_backward"])
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "max_pool2d", "max_unpool2d", "add_relu"])
def test_call(compare, library, values, name, road):
    calls, leaves = operations(library, values)
    call = calls[name]
    if road == "no_grad":
        with torch.no_grad():
            compare(call, call)
        return
    for leaf in leaves:
        leaf.requires_grad_()
    grad = torch.ones_like(call())

    def both():
        call().backward(grad)

    timed = call if road == "forward" else both
    compare(timed, timed)
