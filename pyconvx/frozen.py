"""Filters that are promised not to change, so that forms of them that a backend prefers can be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_Form = TypeVar("_Form")

packed_filters: WeakIdKeyDictionary | None = None
"""Packed forms by filter tensor while a ``frozen_filters`` block is open, else None."""


@contextmanager
def frozen_filters() -> Iterator[None]:
    """Promise that no filter changes inside the ``with`` block: packed forms are made once and kept until it ends.

    oneDNN rearranges a convolution's filters on every call, which at batch 1 can take as long as the convolution.
    Inside the block it happens once per layer, for channels_last images, and the blocks of ``pyconvx.nn`` fold their
    batch norms into their filters. Results can differ from those outside in the last bits. A change that torch counts
    (an optimizer's step, ``copy_``) is noticed and packs again; one that it does not (through ``.data``) is not: leave
    the block before you make it.

    Example::

        with torch.inference_mode(), pyconvx.frozen_filters():
            for images in loader:
                model(images)
    """
    global packed_filters
    before, packed_filters = packed_filters, WeakIdKeyDictionary()
    try:
        yield
    finally:
        packed_filters = before


def packed(weight: Tensor, geometry: tuple[Any, ...], pack: Callable[[], _Form]) -> _Form:
    """Return the packed form of ``weight`` for one geometry, made by ``pack`` the first time."""
    kept = packed_filters
    if kept is None:  # another thread has just left the block
        return pack()
    version = 0 if weight.is_inference() else weight._version
    forms = kept.setdefault(weight, {})
    key = (geometry, weight.data_ptr(), weight.stride())
    if key not in forms or forms[key][0] != version:
        forms[key] = (version, pack())
    return forms[key][1]
