"""pyconvx: hand-written kernels for convolutional networks, as PyTorch functions, layers and a swap for whole models.

    pyconvx.conv2d, max_pool2d, ...     functions, with torch.nn.functional's signatures
    pyconvx.nn                          layers, subclasses of torch.nn's
    pyconvx.swap(model)                 the layers of a model you have, exchanged in place, and back again
    pyconvx.explain(model, x)           what ran where, and why

On the command line ``pyconvx info`` says what this machine has.
"""

from importlib.metadata import version as _version

from . import nn
from .backends import backend
from .errors import BackendRefusal, InvalidCall
from .explain import explain
from .frozen import frozen_filters
from .functional import add_relu, conv2d, conv_transpose2d, max_pool2d, max_unpool2d, residual_add
from .swap import swap
from .use import use

__version__ = _version("pyconvx")

__all__ = [
    "BackendRefusal",
    "InvalidCall",
    "add_relu",
    "backend",
    "conv2d",
    "conv_transpose2d",
    "explain",
    "frozen_filters",
    "max_pool2d",
    "max_unpool2d",
    "nn",
    "residual_add",
    "swap",
    "use",
]
