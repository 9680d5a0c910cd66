"""What a CUDA kernel of ours asks of the chip, counted by running it in the PTX machine: ``pyconvx kernels count``.

Counts say nothing about time: not what ptxas makes of the PTX, no caches, no latencies, no clocks.
"""

from __future__ import annotations

from typing import Any

import torch

from . import _C
from ._problem import ACTIVATIONS, DTYPES, INDEX_TYPES, LAYOUTS, ElementwiseProblem
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


def count_max_pool2d(
    size: tuple[int, int, int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    index: torch.dtype | None = torch.uint8,
    relu: bool = False,
    backward: bool = False,
    dtype: torch.dtype = torch.float16,
    layout: torch.memory_format = torch.channels_last,
) -> Table:
    """Run a max pooling of random numbers of ``size`` (N, C, H, W), or its gradient, in the PTX machine and count.

    The fewest sectors are those of reading every operand once and writing every result once.

    Raises:
        InvalidCall: the geometry makes no sense, no kernel runs it, or the PTX machine is not there; says why.
    """
    n, c, h, w = size
    problem = _C.Pool2dProblem(
        n=n, c=c, h=h, w=w, r=window[0], s=window[1], stride=stride, padding=padding, dilation=dilation,
        dtype=DTYPES[dtype], layout=LAYOUTS[layout], index=INDEX_TYPES[index],
        activation=ACTIVATIONS["relu" if relu else "none"],
    )  # fmt: skip
    if backward and index is None:
        raise InvalidCall("kernels count: a gradient needs to know who won; pass --index uint8, int32 or int64")
    pooled = (n, c, problem.p, problem.q) if not problem.refusal() else (0, 0, 0, 0)
    input, output = _random(size, dtype, layout), _random(pooled, dtype, layout)
    tensors = {"input": input, "output": output}
    if index is not None:
        tensors["indices"] = torch.zeros(pooled, dtype=index).to(memory_format=layout)
    if not backward:
        return _count("max_pool2d", problem, tensors, ("input",))
    if not problem.refusal():
        _run("max_pool2d", problem, tensors)
    tensors = {"grad_output": output.clone(), "indices": tensors["indices"], "grad_input": input}
    if relu:
        tensors["relu_output"] = output
    return _count("max_pool2d_backward", problem, tensors, ("grad_output", "indices", "relu_output"))


def count_max_unpool2d(
    size: tuple[int, int, int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    index: torch.dtype = torch.uint8,
    backward: bool = False,
    dtype: torch.dtype = torch.float16,
    layout: torch.memory_format = torch.channels_last,
) -> Table:
    """Run the max unpooling of what a pooling of random numbers of ``size`` (N, C, H, W) gives, or its gradient, in the
    PTX machine and count; see :func:`count_max_pool2d`."""
    n, c, h, w = size
    geometry = dict(
        n=n, c=c, h=h, w=w, r=window[0], s=window[1], stride=stride, padding=padding, dilation=dilation,
        dtype=DTYPES[dtype], layout=LAYOUTS[layout], index=INDEX_TYPES[index],
    )  # fmt: skip
    pooling = _C.Pool2dProblem(**geometry)
    if refusal := pooling.refusal():
        raise InvalidCall(refusal)
    plane, pooled = _random(size, dtype, layout), _random((n, c, pooling.p, pooling.q), dtype, layout)
    indices = torch.zeros(pooled.shape, dtype=index).to(memory_format=layout)
    _run("max_pool2d", pooling, {"input": plane, "output": pooled, "indices": indices})
    problem = _C.Unpool2dProblem(**geometry, p=pooling.p, q=pooling.q)
    tensors = {"indices": indices, "bad_index": torch.zeros(1, dtype=torch.int64)}
    if backward:
        tensors.update(grad_output=plane, grad_input=pooled)
    else:
        tensors.update(input=pooled, output=plane)
    name = "max_unpool2d_backward" if backward else "max_unpool2d"
    return _count(name, problem, tensors, ("indices", "grad_output", "input"))


def count_residual_add(
    size: tuple[int, ...],
    relu: bool = False,
    mask: bool = False,
    backward: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Table:
    """Run the sum of two random tensors, or the gradient of its ReLU, in the PTX machine and count; with ``mask``, the
    gradient is told by a bit an element and not by the output. See :func:`count_max_pool2d`."""
    if (mask or backward) and not relu:
        raise InvalidCall("kernels count: without a ReLU there is no mask and nothing to compute backward; pass --relu")
    if any(extent < 1 for extent in size):
        raise InvalidCall(f"kernels count: a tensor of {size} has no elements; pass sizes of at least 1")
    activation = ACTIVATIONS["relu" if relu else "none"]
    name = ("relu_backward" if backward else "residual_add") + ("_mask" if mask else "")
    names = ("grad_output", "grad_input") if backward else ("x", "residual", "output")
    if backward and not mask:
        names = (*names, "output")
    tensors = {each: _random(size, dtype, torch.contiguous_format) for each in names}
    if mask:
        tensors["mask"] = torch.zeros((tensors[names[0]].numel() + 7) // 8, dtype=torch.uint8)
    read = ("grad_output", "output", "mask") if backward else ("x", "residual")
    return _count(name, ElementwiseProblem(name, size, DTYPES[dtype], activation), tensors, read)


def _random(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=layout)


def _run(operation: str, problem: Any, tensors: dict[str, torch.Tensor]) -> tuple[Any, list[Any]]:
    """Return the plan and its launches."""
    backend = emulator.Emulator()
    if missing := backend.unavailable():
        raise InvalidCall(f"kernels count: {missing}")
    try:
        plan = backend.plan(operation, problem, torch.device("cpu"))
    except ValueError as refused:
        raise InvalidCall(f"kernels count: {refused}") from None
    return plan, emulator.run(plan, tensors)


def _count(operation: str, problem: Any, tensors: dict[str, torch.Tensor], read: tuple[str, ...]) -> Table:
    """Run an operation that only moves elements: what counts is how many sectors of memory it touches."""
    plan, launches = _run(operation, problem, tensors)
    what = operation if isinstance(problem, ElementwiseProblem) else f"{operation}: {problem}"
    launched = f"{plan.family} {plan.tile}".strip()
    table = Table(f"{what}: {launched}, {len(launches)} launch(es) for the {emulator.DEVICE}", COLUMNS)
    nbytes = {name: tensor.nbytes for name, tensor in tensors.items() if name != "bad_index"}
    in_bytes = sum(size for name, size in nbytes.items() if name in read)
    loaded, stored = _added(launches, "ld.global"), _added(launches, "st.global")
    _row(table, "sectors read", loaded["sectors"], -(-in_bytes // _SECTOR))
    _row(table, "sectors written", stored["sectors"], -(-(sum(nbytes.values()) - in_bytes) // _SECTOR))
    total = _added(launches, "")
    _row(table, "shared wavefronts", total["wavefronts"], total["ideal_wavefronts"])
    table.rows.append(("warp instructions", total["warp_instructions"], None, None))
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
