"""pyconvx: hand-written kernels for convolutional networks, as PyTorch functions, layers and a swap for whole models.

    pyconvx.conv2d, max_pool2d, ...     functions, with torch.nn.functional's signatures
    pyconvx.nn                          layers, subclasses of torch.nn's
    pyconvx.models                      networks, built from them
    pyconvx.augment, losses, transfer, evaluate, visualize     the techniques around them
    pyconvx.swap(model)                 the layers of a model you have, exchanged in place, and back again
    pyconvx.explain(model, x)           what ran where, and why

On the command line ``pyconvx info`` says what this machine has.
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import nn
from .backends import backend
from .errors import BackendRefusal, InvalidCall
from .explain import explain
from .frozen import frozen_filters
from .functional import add_relu, conv2d, conv_transpose2d, max_pool2d, max_unpool2d, nearest_unpool2d, residual_add
from .swap import swap
from .use import use

if _TYPE_CHECKING:
    from . import augment, evaluate, losses, models, transfer, visualize

__version__ = _version("pyconvx")

__all__ = [
    "BackendRefusal",
    "InvalidCall",
    "add_relu",
    "augment",
    "backend",
    "conv2d",
    "conv_transpose2d",
    "evaluate",
    "explain",
    "frozen_filters",
    "losses",
    "max_pool2d",
    "max_unpool2d",
    "models",
    "nearest_unpool2d",
    "nn",
    "residual_add",
    "swap",
    "transfer",
    "use",
    "visualize",
]

_ON_DEMAND = frozenset({"augment", "evaluate", "losses", "models", "transfer", "visualize"})
"""Imported when they are first looked at: most programs need none of them."""


def __getattr__(name: str) -> _Any:
    if name in _ON_DEMAND:
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
