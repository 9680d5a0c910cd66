"""What a CUDA kernel of ours asks of the chip, counted by running it in the PTX machine: ``pyconvx kernels count``.

Counts say nothing about time: not what ptxas makes of the PTX, no caches, no latencies, no clocks.
"""

from __future__ import annotations

from typing import Any

import torch

from . import _C
from ._problem import DTYPES, LAYOUTS
from .backends import emulator
from .errors import InvalidCall
from .table import Table

COLUMNS = ("what", "counted", "fewest", "counted / fewest")
_SECTOR = 32
_MMA = {torch.float16: 16 * 8 * 16, torch.bfloat16: 16 * 8 * 16}
"""Multiply-adds of one matrix instruction."""


def count_conv2d(
    n: int,
    c: int,
    h: int,
    w: int,
    k: int,
    r: int,
    s: int,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    dtype: torch.dtype = torch.float16,
    layout: torch.memory_format = torch.channels_last,
) -> Table:
    """Run one forward convolution in the PTX machine and count, beside the fewest possible.

    The fewest sectors (32 bytes of global memory) are those of reading input and filters once and writing the output
    once; the fewest multiplications those of N K P Q R S C/groups; the fewest wavefronts of shared memory those
    without bank conflicts. One row each, and one per opcode.

    Raises:
        InvalidCall: the geometry makes no sense, no kernel runs it, or the PTX machine is not there; says why.
    """
    backend = emulator.Emulator()
    if missing := backend.unavailable():
        raise InvalidCall(f"kernels count: {missing}")
    problem = _C.Conv2dProblem(
        n=n, c=c, h=h, w=w, k=k, r=r, s=s, stride=stride, padding=padding, dilation=dilation, groups=groups,
        dtype=DTYPES[dtype], layout=LAYOUTS[layout],
    )  # fmt: skip
    if refusal := problem.refusal():
        raise InvalidCall(refusal)
    try:
        plan = backend.plan("conv2d", problem, torch.device("cpu"))
    except ValueError as refused:
        raise InvalidCall(f"kernels count: {refused}") from None

    shapes = {"input": (n, c, h, w), "filter": (k, c // groups, r, s), "output": (n, k, problem.p, problem.q)}
    tensors = {
        name: torch.zeros(shape, dtype=dtype).to(memory_format=layout).contiguous(memory_format=layout)
        for name, shape in shapes.items()
    }
    launches = emulator.run(plan, tensors)

    table = Table(
        f"{problem}: {plan.family} {plan.tile}, {len(launches)} launch(es) for the {emulator.DEVICE}", COLUMNS
    )
    sectors = {name: -(-tensor.numel() * tensor.element_size() // _SECTOR) for name, tensor in tensors.items()}
    loaded, stored = _added(launches, "ld.global", "cp.async"), _added(launches, "st.global")
    wavefronts = _added(launches, "")
    _row(table, "sectors read", loaded["sectors"], sectors["input"] + sectors["filter"])
    _row(table, "sectors written", stored["sectors"], sectors["output"])
    multiply_adds = int(problem.flops) // 2
    if _added(launches, "mma")["warp_instructions"]:
        used = _added(launches, "mma")["warp_instructions"] * _MMA.get(dtype, 16 * 8 * 8)
    else:
        used = _added(launches, "fma.rn")["thread_instructions"]
    _row(table, "multiply-adds", used, multiply_adds)
    _row(table, "shared wavefronts", wavefronts["wavefronts"], wavefronts["ideal_wavefronts"])
    table.rows.append(("warp instructions", wavefronts["warp_instructions"], None, None))
    for launch in launches:
        for opcode, site in launch.counts.by_opcode().items():
            table.rows.append((f"  {opcode}", site.warp_instructions, None, None))
    table.notes.append("Sectors are counted per request, as if there were no cache; opcodes are warp instructions.")
    return table


def _added(launches: list[Any], *prefixes: str) -> dict[str, int]:
    """Add up the counts of all launches over the opcodes with one of the prefixes."""
    sums: dict[str, int] = {}
    for launch in launches:
        site = launch.counts.where(lambda site: site.opcode.startswith(prefixes))
        for name in ("sectors", "wavefronts", "ideal_wavefronts", "warp_instructions", "thread_instructions"):
            sums[name] = sums.get(name, 0) + getattr(site, name)
    return sums


def _row(table: Table, what: str, counted: int, fewest: int) -> None:
    table.rows.append((what, counted, fewest, round(counted / fewest, 3) if fewest else None))
