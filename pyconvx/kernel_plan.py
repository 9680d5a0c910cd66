"""What a convolution would launch on a chip, and why: ``pyconvx kernels plan``.

The model behind it is of the parts of a chip, each as fast as its data sheet says. It ranks tiles;
it does not tell how long a kernel takes.
"""

from __future__ import annotations

from typing import Any

import torch

from . import _C
from .errors import InvalidCall
from .kernel_report import problem_of
from .table import Table

PARTS = {"tensor": "math pipes", "issue": "issue slots", "shared": "shared memory", "l2": "L2", "dram": "DRAM"}
"""The terms of the model, each the clocks that one part of the chip alone would need."""

_LATENCY = 1.25
"""More clocks than its busiest part needs, by this factor, are latencies and gaps between blocks."""


def plan(shape: str, device: str = "a100", dtype: torch.dtype = torch.float16, *, tf32: bool = False,
         layout: torch.memory_format = torch.channels_last, tile: str = "") -> Table:  # fmt: skip
    """One row for each tile that could run the convolution of a shape, the best first; the launches stand below.

    Raises:
        InvalidCall: the shape makes no sense, there is no such device, or no kernel runs it there; says why.
    """
    problem = problem_of(shape, dtype, layout)
    try:
        made = _C.plan_conv2d(problem, device, tf32=tf32, tile=tile)
    except ValueError as refused:
        raise InvalidCall(f"kernels plan: {refused}") from None
    table = Table(f"{problem} on {device}: {made.family} {made.tile}".rstrip(),
                  ("tile", "blocks per SM", "waves", "clocks", *PARTS.values(), "bound by"))  # fmt: skip
    ranked = sorted(made.candidates, key=lambda candidate: candidate.clocks)
    for candidate in ranked:
        terms = (round(getattr(candidate, part)) for part in PARTS)
        clocks = round(candidate.clocks)
        table.rows.append(
            (candidate.tile, candidate.blocks_per_sm, round(candidate.waves, 3), clocks, *terms, bound_by(candidate))
        )
    table.notes += [why(made.family, made.tile, ranked, bool(tile)), *map(_launch, made.launches)]
    table.notes += [f"workspace {name}: {nbytes} bytes" for name, nbytes in made.workspaces.items()]
    if ranked:
        table.notes.append("Clocks of the device, by the model; each part's as if it were alone. Nothing was timed.")
    return table


def bound_by(candidate: Any) -> str:
    """The busiest part of the chip, or "latency" if that is idle for much of the time."""
    busiest = max(PARTS, key=lambda part: getattr(candidate, part))
    if candidate.clocks > _LATENCY * getattr(candidate, busiest):
        return "latency"
    return PARTS[busiest]


def why(family: str, tile: str, ranked: list[Any], asked_for: bool) -> str:
    """One sentence on the choice among candidates, the best first."""
    if not ranked:
        return f"{family} has no tiles to choose from."
    chosen = next(candidate for candidate in ranked if candidate.tile == tile)
    if asked_for:
        return (
            f"{tile} was asked for; the model gives it {chosen.clocks / ranked[0].clocks:.2f} x the clocks of the best."
        )
    said = f"{tile} wins with {round(chosen.clocks)} clocks, bound by {bound_by(chosen)}"
    others = [candidate for candidate in ranked if candidate.tile != tile]
    if not others:
        return f"{said}; there is no other."
    second = others[0]
    return f"{said}; {second.tile} needs {second.clocks / chosen.clocks:.2f} x as many, bound by {bound_by(second)}."


def _launch(launch: Any) -> str:
    blocks = " x ".join(str(extent) for extent in launch.grid if extent > 1) or "1"
    return f"launches {launch.kernel}: {blocks} blocks of {launch.block} threads, {launch.shared_bytes} bytes shared"
