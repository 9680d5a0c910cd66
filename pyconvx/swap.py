"""Exchange the layers of a model for ours, in place, and put them back.

A layer is exchanged by its class alone: ``torch.nn.Conv2d`` becomes ``pyconvx.nn.Conv2d`` while the module stays the
same object, so its Parameters, buffers, hooks, names and training mode are not copied and cannot be lost, an optimizer
and DistributedDataParallel keep what they hold, and undoing it is exact.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from . import nn as ours
from .errors import InvalidCall
from .functional import pair
from .ops import offset_dtype
from .ops._checks import FLOATING, name_of
from .table import Table

LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: ours.Conv2d,
    nn.ConvTranspose2d: ours.ConvTranspose2d,
    nn.MaxPool2d: ours.MaxPool2d,
    nn.MaxUnpool2d: ours.MaxUnpool2d,
}
"""The layers that are exchanged, by torch's class."""

_KIN = (nn.modules.conv._ConvNd, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._MaxUnpoolNd)
_SWAPPED = "swapped"

Pattern = str | type[nn.Module]


class Handle:
    """What ``swap`` did to a model, and the way back; usable with ``with``, which restores at its end."""

    def __init__(self, rows: list[tuple[str, str, str, str]], swapped: list[tuple[nn.Module, type[nn.Module]]]) -> None:
        self._rows = rows
        self._swapped = swapped

    @property
    def count(self) -> int:
        """The number of layers that are swapped by this handle at the moment."""
        return len(self._swapped)

    def report(self) -> Table:
        """Return a row for every convolution, max pooling and unpooling: name, layer, shape, swapped or why not."""
        count = sum(row[-1] == _SWAPPED for row in self._rows)
        title = f"pyconvx.swap: {count} of {len(self._rows)} layers swapped"
        return Table(title, ("name", "layer", "shape", "outcome"), list(self._rows))

    def restore(self) -> None:
        """Put torch's classes back; layers that something else has changed since are left as they are."""
        for module, original in self._swapped:
            if type(module) is LAYERS[original]:
                module.__class__ = original
                vars(module).pop("index_dtype", None)
        self._swapped = []

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"<{self.report().title.removeprefix('pyconvx.')}>"


def swap(
    model: nn.Module,
    include: Pattern | Iterable[Pattern] | None = None,
    exclude: Pattern | Iterable[Pattern] | None = None,
    where: Callable[[str, nn.Module], bool] | None = None,
    strict: bool = False,
    offset_indices: bool = False,
) -> Handle:
    """Exchange torch's convolutions, max poolings and unpoolings in ``model`` for ours, in place.

    Args:
        model: any module; the layers themselves, their Parameters, hooks and names stay the same objects.
        include: names to exchange, as patterns like ``'features.*'``, or layer classes; everything if None.
        exclude: names or classes to leave, likewise.
        where: called with name and module of each layer that is left by then; exchanges those it says yes to.
        strict: whether a call that exchanges nothing is an error rather than a warning.
        offset_indices: whether poolings that return indices return offsets in the window, one byte each, instead of
            torch's int64 positions. For models like SegNet, in which nothing but MaxUnpool2d reads them.

    Returns:
        A handle, with ``report()``, ``restore()`` and the protocol of ``with``.

    Raises:
        InvalidCall: nothing was exchanged, and ``strict`` is set; or ``offset_indices`` is, and a pooling's window is
            not that of every unpooling, by which its offsets would mean other positions.

    Example::

        with pyconvx.swap(model) as handle:
            print(handle.report())
            output = model(images)
    """
    if not isinstance(model, nn.Module):
        raise InvalidCall(f"swap: model is a {type(model).__name__}, expected a torch.nn.Module")
    included, excluded = _patterns("include", include), _patterns("exclude", exclude)
    rows: list[tuple[str, str, str, str]] = []
    swapped: list[tuple[nn.Module, type[nn.Module]]] = []
    for name, module in model.named_modules():
        if not isinstance(module, _KIN):
            continue
        reason = _reason_against(module) or _reason_unwanted(name, module, included, excluded, where)
        layer = type(module).__name__
        if reason is None:
            swapped.append((module, type(module)))
        rows.append((name, layer, _shape(module), reason or _SWAPPED))
    if offset_indices:
        _check_windows(model, [module for module, _ in swapped])
    for module, original in swapped:  # all or, if something raises, none
        module.__class__ = LAYERS[original]
        if offset_indices and isinstance(module, ours.MaxPool2d) and module.return_indices:
            module.index_dtype = offset_dtype(pair("swap", "kernel_size", module.kernel_size))
    handle = Handle(rows, swapped)
    if not swapped:
        sentence = f"swap: nothing was swapped in this {type(model).__name__}: {_summary(rows)}"
        if strict:
            raise InvalidCall(sentence)
        warnings.warn(sentence, stacklevel=2)
    return handle


def _window(layer: nn.Module) -> tuple[Any, ...]:
    """Return kernel size, stride, padding and dilation, as pairs; an unpooling has no dilation."""
    sizes = (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
    return tuple(pair("swap", "window", size) for size in sizes)


def _check_windows(model: nn.Module, swapped: list[nn.Module]) -> None:
    """Raise unless every unpooling is exchanged and has the window of every pooling whose indices it may be given."""
    unpoolings = [layer for layer in model.modules() if isinstance(layer, nn.MaxUnpool2d)]
    exchanged = {id(layer) for layer in swapped}
    for unpooling in unpoolings:
        if id(unpooling) not in exchanged and type(unpooling) is not ours.MaxUnpool2d:
            raise InvalidCall(f"swap: offset_indices is set, but {unpooling} is left to torch, which reads positions; "
                              f"let it be exchanged, or leave offset_indices out")  # fmt: skip
    for pooling in swapped:
        if not isinstance(pooling, nn.MaxPool2d) or not pooling.return_indices:
            continue
        for unpooling in unpoolings:
            if _window(pooling) != _window(unpooling):
                raise InvalidCall(
                    f"swap: offset_indices is set, but {pooling} and {unpooling} have different windows, by which an "
                    f"offset would mean different positions; leave offset_indices out"
                )


def _patterns(name: str, value: Pattern | Iterable[Pattern] | None) -> tuple[Pattern, ...] | None:
    if value is None:
        return None
    patterns = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, type)) else (value,)
    for pattern in patterns:
        if not isinstance(pattern, (str, type)):
            raise InvalidCall(f"swap: {name} holds {pattern!r}, expected names like 'features.*' or layer classes")
    return patterns


def _matches(name: str, module: nn.Module, patterns: tuple[Pattern, ...]) -> bool:
    return any(
        fnmatchcase(name, pattern) if isinstance(pattern, str) else isinstance(module, pattern) for pattern in patterns
    )


def _reason_unwanted(
    name: str,
    module: nn.Module,
    included: tuple[Pattern, ...] | None,
    excluded: tuple[Pattern, ...] | None,
    where: Callable[[str, nn.Module], bool] | None,
) -> str | None:
    if included is not None and not _matches(name, module, included):
        return "not named by include"
    if excluded is not None and _matches(name, module, excluded):
        return "named by exclude"
    if where is not None and not where(name, module):
        return "where() said no"
    return None


def _reason_against(module: nn.Module) -> str | None:
    """Return why a layer cannot be exchanged without changing what it does, None if it can."""
    kind = type(module)
    if kind in LAYERS.values():
        return "is a pyconvx layer already"
    if torch.nn.utils.parametrize.is_parametrized(module):
        return "its parameters are parametrized, which lives in a class of its own"
    if kind not in LAYERS:
        base = next((layer for layer in LAYERS if isinstance(module, layer)), None)
        if base is None:
            return f"pyconvx has no {kind.__name__}"
        return f"{kind.__name__} is a subclass of {base.__name__}, whose own behaviour would be lost"
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return "its forward is replaced on the instance, which would be lost"
    for parameter in module.parameters(recurse=False):
        if parameter.dtype not in FLOATING:
            return f"its parameters are {name_of(parameter.dtype)}, which pyconvx does not compute in"
    return None


def _shape(module: nn.Module) -> str:
    if isinstance(module, nn.modules.conv._ConvNd):
        size = "x".join(map(str, module.kernel_size))
        text = f"{module.in_channels} -> {module.out_channels}, {size}"
        if set(module.stride) != {1}:
            text += f", stride {'x'.join(map(str, module.stride))}"
        return text + (f", groups {module.groups}" if module.groups != 1 else "")
    return f"{module.kernel_size}, stride {module.stride}"


def _summary(rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return "it holds no convolution, max pooling or unpooling layer; `with pyconvx.use():` catches functional calls"
    reasons: dict[str, int] = {}
    for row in rows:
        reasons[row[-1]] = reasons.get(row[-1], 0) + 1
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
