"""Benchmarks of the kernels on the machine at hand, side by side with torch's: what ``pyconvx bench`` runs.

Every row is one layer of a network: the median time of ours and of torch's, taken in turns in one process on the same
operands, and how far ours is from float64. Filters and images are random with mean zero and stay in the caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from .. import backends
from .._progress import progress
from ..errors import InvalidCall
from ..explain import explain
from ..frozen import frozen_filters
from ..table import Table
from . import conv2d, max_pool, max_unpool, residual_add
from .case import Case, Operands
from .shapes import layers
from .timing import interleaved

__all__ = ["OPERATIONS", "run"]

OPERATIONS = {
    "conv": (conv2d, "conv", "GFLOP/s"),
    "pool": (max_pool, "pool", "GB/s"),
    "unpool": (max_unpool, "pool", "GB/s"),
    "residual": (residual_add, "residual", "GB/s"),
}
"""By the name on the command line: the module with its cases, the kind of layer it takes, the unit of its rate."""

_CALM = 25
"""Spread in percent up to which a median means something."""


def run(
    operation: str,
    shapes: str = "resnet50",
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    pass_: str = "fprop",
    *,
    channels_last: bool = False,
    index_dtype: torch.dtype | None = torch.uint8,
    frozen: bool = False,
    threads: int | None = None,
    backend: str | None = None,
    device: str | torch.device | None = None,
    repeat: int = 30,
    limit: int | None = None,
    show_progress: bool = False,
) -> Table:
    """Measure one operation on every distinct layer of a network.

    Args:
        operation: ``'conv'``, ``'pool'``, ``'unpool'`` or ``'residual'``.
        shapes: a network of ``pyconvx.bench.shapes.NETWORKS``.
        batch: N.
        dtype: of the operands.
        pass_: ``'fprop'``, ``'dgrad'``, ``'wgrad'`` (convolutions only) or ``'all'``.
        channels_last: whether the operands are, instead of contiguous.
        index_dtype: form of our indices in pooling and unpooling; None pools without any.
        frozen: whether ours runs in :func:`pyconvx.frozen_filters`.
        threads: as for ``torch.set_num_threads``, during the run; torch's setting if None.
        backend: the backend that is forced for ours; the usual choice if None.
        device: where the operands are; the first GPU that torch can use, else the CPU, if None.
        repeat: samples of each time, at least 2.
        limit: number of shapes, from the first; all if None.
        show_progress: whether to show a progress bar, if stderr is a terminal.

    Returns:
        A row per shape and pass. ``us`` and ``torch us`` are medians, ``spread %`` is the distance of the quartiles of
        ours as a percentage of the median, the ratio is torch's time over ours (above 1: ours is faster), and
        ``match`` the largest error as a fraction of what it may be (see ``pyconvx.bench.match``).

    Raises:
        InvalidCall: an argument is none of these.
        BackendRefusal: the backend that is forced cannot run a shape.
    """
    if operation not in OPERATIONS:
        raise InvalidCall(f"bench: there is no operation {operation!r}; there are {', '.join(OPERATIONS)}")
    limits = (("batch", batch, 1), ("repeat", repeat, 2), ("limit", limit, 1), ("threads", threads, 1))
    for name, value, least in limits:
        if value is not None and value < least:
            raise InvalidCall(f"bench: {name} is {value}, expected at least {least}")
    module, kind, unit = OPERATIONS[operation]
    if pass_ != "all" and pass_ not in module.PASSES:
        raise InvalidCall(f"bench: {operation} has no pass {pass_!r}; it has {', '.join(module.PASSES)} and all")
    if operation == "unpool" and index_dtype is None:
        raise InvalidCall("bench: unpooling needs indices, got none; choose uint8 or int64")
    passes = module.PASSES if pass_ == "all" else (pass_,)
    chosen = layers(shapes, kind)[:limit]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    operands = Operands(batch, dtype, layout, _device(device))
    indexed = {} if kind != "pool" else {"index_dtype": index_dtype}

    columns = ("count", "shape", "pass", "backend", "us", "spread %", unit, "torch us", "ratio", "match")
    table = Table("", columns)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_threads(threads))
        stack.enter_context(backends.backend(backend or backends.forced_name()))
        if frozen:
            stack.enter_context(frozen_filters())
        step = stack.enter_context(progress(f"bench {operation}", len(chosen) * len(passes), show_progress))
        for case in module.cases(chosen, passes, operands, **indexed):
            table.rows.append(_row(case, repeat, operands.device))
            step(case.shape)
        used = f", {torch.get_num_threads()} threads" if operands.device.type == "cpu" else ""
    layout_name = "channels_last" if channels_last else "contiguous"
    table.title = (
        f"pyconvx bench {operation}: {shapes}, N{batch} {str(dtype).removeprefix('torch.')} {layout_name}, "
        f"{operands.device}{used}"
    )
    ours, theirs = (sum(row["count"] * row[column] for row in table) * 1e-3 for column in ("us", "torch us"))
    table.notes = [
        f"all layers, each as often as it occurs: ours {ours:.3g} ms, torch {theirs:.3g} ms, ratio {theirs / ours:.2f}",
        f"us: medians of {repeat} samples, taken in turns; spread: between the quartiles; ratio: torch / ours, above 1 "
        f"ours is faster; match: error against float64 as a fraction of the bound",
    ]
    disturbed = sum(row["spread %"] > _CALM for row in table)
    if disturbed:
        table.notes.append(
            f"{disturbed} of {len(table)} spreads are above {_CALM} %: something else was running, do not quote them"
        )
    return table


def _row(case: Case, repeat: int, device: torch.device) -> tuple[Any, ...]:
    match = case.match()
    ours, theirs = interleaved((case.ours, case.torch), repeat, device)
    return (
        case.count,
        case.shape,
        case.pass_,
        _backend_of(case),
        ours.median * 1e6,
        ours.spread * 100,
        case.work / ours.median * 1e-9,
        theirs.median * 1e6,
        theirs.median / ours.median,
        match,
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        sentence = str(error).partition("\n")[0]
        raise InvalidCall(f"bench: device is {str(device)!r}, which torch cannot use here: {sentence}") from None


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _backend_of(case: Case) -> str:
    """Return the name of the backend that runs the case."""
    return ", ".join({row["backend"]: None for row in explain(case.ours)})
