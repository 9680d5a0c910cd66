"""Layers: those of ``torch.nn`` that have a kernel of ours, with the same constructor, attributes and state_dict, and
the blocks that the networks are built from."""

from .blocks import ConvBNReLU, FactorizedConv2d, Sequential, fused_conv
from .conv import Conv2d, ConvTranspose2d
from .pooling import MaxPool2d, MaxUnpool2d, NearestUnpool2d
from .residual import ResidualAdd

__all__ = [
    "Conv2d",
    "ConvBNReLU",
    "ConvTranspose2d",
    "FactorizedConv2d",
    "MaxPool2d",
    "MaxUnpool2d",
    "NearestUnpool2d",
    "ResidualAdd",
    "Sequential",
    "fused_conv",
]
