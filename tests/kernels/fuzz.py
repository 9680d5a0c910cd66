"""Seeded random problems. Anything may meet anything, but few kernels are compiled: KERNELS bounds what decides which
kernel runs, and of a kernel's tiles two are drawn.

"""

from __future__ import annotations

import math
import random
import zlib
from functools import partial
from typing import Any, NamedTuple

import torch

from kernels.backward import Dgrad, Wgrad
from kernels.convolution import Case
from kernels.harness import ORDERS

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

# What decides which kernel is compiled: dtype, windows R x S and strides, and the channels of a group; tf32 is F32 on
# tensor cores. The more often a line stands here, the more often it is drawn.
BY_16_BYTES, BY_8, BY_4, ODD, FEW = (8, 16, 24, 40, 72), (4, 12, 20, 36), (6, 10, 22), (5, 7, 13, 21), (1, 2, 3, 4)
MANY = (32, 56, 64, 96)
ANY = (*BY_16_BYTES, *BY_8, *BY_4, *ODD, *FEW)
STEPS = ((1, 1), (1, 1), (2, 2), (1, 2), (3, 1))
KERNELS = [
    (F16, ((1, 1), (3, 3), (2, 4)), STEPS, BY_16_BYTES),
    (F16, ((3, 3), (1, 5)), ((1, 1),), MANY),
    (BF16, ((3, 3), (7, 1)), ((1, 1),), (31, 62)),
    ("tf32", ((3, 3),), ((1, 1),), (16, 32, 48)),
    (F16, ((3, 3), (2, 4)), STEPS, BY_8),
    (F16, ((3, 3), (6, 1)), STEPS, BY_4),
    (F16, ((1, 1), (2, 4)), STEPS, ODD),
    (F16, ((3, 3), (2, 4)), STEPS, FEW),
    (BF16, ((3, 3),), STEPS, BY_16_BYTES),
    (BF16, ((7, 7),), ((2, 2),), FEW),
    ("tf32", ((1, 1), (3, 3)), STEPS, BY_16_BYTES),
    ("tf32", ((2, 4), (3, 3)), STEPS, ODD),
    (F32, ((1, 1), (3, 3), (2, 4), (1, 5)), STEPS, ANY),
    (F32, ((1, 1), (3, 3), (2, 4), (6, 1)), STEPS, ANY),
    (F64, ((1, 1), (3, 3), (2, 4), (1, 5)), STEPS, ANY),
    (F16, ((3, 3),), ((1, 1), (2, 2)), "depthwise"),
    (BF16, ((2, 4),), STEPS, "depthwise"),
    (F32, ((3, 3),), ((1, 1), (2, 2), (1, 2)), "depthwise"),
]
LARGEST_TILE = 64 * 64  # outputs
MOST_PRODUCTS = 3_000_000  # of a problem


class Draw(NamedTuple):
    case: Case
    plan: Any
    launch: dict[str, Any]  # the order of warps and blocks

    def __str__(self) -> str:
        case = self.case
        options = [name for name in ("tf32", "relu") if getattr(case, name)] + ["scale"] * (case.scale is not None)
        return (
            f"{case.problem} {' '.join(options)}\n    by {self.plan.family} {self.plan.tile} at "
            f"{case.alignment} bytes, {self.launch}: {self.plan.launches[-1].kernel}"
        )


def draw(pass_: str, seed: int) -> Draw:
    """The problem of that number."""
    case_of, fused = PASSES[pass_]
    random_ = random.Random(seed)
    dtype, windows, steps, channels = random_.choice(KERNELS)
    (r, s), stride = random_.choice(windows), random_.choice(steps)
    if channels == "depthwise":
        groups, multiplier = random_.choice([8, 24, 40, 5, 11]), random_.choice([1, 1, 1, 2, 3])
        c, k = groups, groups * multiplier
    else:
        groups = random_.choice([1, 1, 1, 2, 3])
        c, k = groups * random_.choice(channels), groups * random_.choice([1, 7, 8, 16, 20, 24, 40, 64, 65, 72, 136])
    dilation = random_.choice([(1, 1), (1, 1), (1, 1), (2, 1), (1, 3), (2, 2)])
    padding = [random_.randrange(4) for _ in range(4)] if random_.random() < 0.7 else [0] * 4
    pixels = random_.choice([1, 3, 6, 9, 14, 20])
    h, w = (
        max(1, random_.randint(1, pixels) * step + dilated * (taps - 1) - random_.choice([0, before + after]))
        for step, dilated, taps, before, after in (
            (stride[0], dilation[0], r, *padding[:2]),
            (stride[1], dilation[1], s, *padding[2:]),
        )
    )
    h = max(h, dilation[0] * (r - 1) + 1 - padding[0] - padding[1])
    w = max(w, dilation[1] * (s - 1) + 1 - padding[2] - padding[3])
    products_of_an_image = h * w * k * c // groups * r * s // (stride[0] * stride[1])
    n = max(1, min(random_.choice([1, 2, 3, 5]), MOST_PRODUCTS // products_of_an_image))
    case = case_of(
        **dict(n=n, c=c, h=h, w=w, k=k, r=r, s=s, groups=groups, stride=stride, dilation=dilation, padding=padding),
        **{option: random_.random() < 0.4 for option in fused},
        dtype=F32 if dtype == "tf32" else dtype,
        tf32=dtype == "tf32",
        layout=random_.choice(["nhwc", "nhwc", "nhwc", "nchw"]),
        alignment=random_.choice([16, 16, 16, 16, 8]),
        seed=random_.randrange(1 << 30),
    )
    order = {"order": random_.choice(ORDERS), "seed": random_.randrange(1 << 31)}
    return Draw(case, with_tile(case, random_), order)


def with_tile(case: Case, random_: random.Random) -> Any:
    """The plan with a tile that is one of the two which all problems of this kernel take. Large tiles' kernels take a
    second or two to compile, and are the same code."""
    # The classes of a strided dgrad have windows of all kinds: by kernels for any, as those compiled ahead of time are.
    options = dict(ahead_of_time=isinstance(case, Dgrad) and max(case.problem.stride) > 1 and not case.problem.masked)
    plan = case.plan(**options)
    if not plan.candidates:
        return plan
    tiles = [candidate.tile for candidate in plan.candidates]
    tiles = [tile for tile in tiles if math.prod(map(int, tile.split("x")[:2])) <= LARGEST_TILE] or tiles
    # dgrad's are forward convolution's, compiled already.
    family = plan.family.removeprefix("dgrad by ")
    first = zlib.crc32(f"{family} {case.dtype} {case.problem.r}x{case.problem.s}".encode())
    return case.plan(tile=tiles[(first + random_.randrange(2) * 5) % len(tiles)], **options)


# The case of each pass, and what may be fused to it.
PASSES = {
    "fprop": (Case, ("bias", "scale", "residual", "relu")),
    "dgrad": (Dgrad, ("bias",)),  # with bias: conv_transpose2d
    "wgrad": (Wgrad, ("bias",)),
    "dgrad, masked": (partial(Dgrad, masked=True), ()),
    "wgrad, masked": (partial(Wgrad, masked=True), ("bias",)),
}
