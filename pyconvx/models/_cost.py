"""What a network costs: parameters, and multiply-adds of one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn


class Cost(NamedTuple):
    """Numbers of parameters and of multiply-adds."""

    parameters: int
    multiply_adds: int


def cost(network: nn.Module, *inputs: Any) -> Cost:
    """Count the parameters of ``network``, and the multiply-adds of convolutions and linear layers in one evaluation.

    Tensors on the ``meta`` device will do, and then nothing is computed or allocated:

        with torch.device("meta"):
            print(cost(create_model("vgg16"), torch.empty(1, 3, 224, 224)))

    A multiply-add is what papers since He et al. (2015) call a FLOP. Taps that fall on padding are counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    formulas: Any = {torch.ops.pyconvx.conv2d: _conv2d, torch.ops.pyconvx.conv_transpose2d: _conv_transpose2d}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), counter:
            network(*inputs)
    finally:
        for module, mode in training.items():
            module.training = mode
    # FlopCounterMode counts a multiplication and an addition as two.
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def _conv2d(input: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Every output is a sum over one filter."""
    return 2 * out_shape.numel() * weight[1:].numel()


def _conv_transpose2d(input: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Every input is spread over one filter."""
    return 2 * input.numel() * weight[1:].numel()
