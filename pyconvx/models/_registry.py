"""Networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import nn

from ..errors import InvalidCall

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}
_Builder = TypeVar("_Builder", bound=Callable[..., nn.Module])


def register(build: _Builder) -> _Builder:
    """Let :func:`create_model` find a network under the name of the function that builds it."""
    _BUILDERS[build.__name__] = build
    return build


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the networks, in order; those like ``'resnet*'`` if a pattern is given."""
    return sorted(name for name in _BUILDERS if fnmatchcase(name, pattern))


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: one of :func:`list_models`.
        options: of the network's class: ``num_classes``, ``in_channels`` where it takes images, and its own.

    Raises:
        InvalidCall: there is no such network.
    """
    build = _BUILDERS.get(name)
    if build is None:
        near = difflib.get_close_matches(str(name), _BUILDERS, n=3)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise InvalidCall(f"create_model: name is {name!r}, expected one of pyconvx.models.list_models(){hint}")
    return build(**options)
