"""What runs a plan's launches here: the very code of the backend ``emulator``, where its parts are installed.

Right kernels do not depend on the order in which warps and blocks run, and some faults are seen in one order only. So
every plan is run in an order drawn from what it launches: by another test in another, by the same test in the same.
PYCONVX_ORDER=ascending, descending or random runs all of them in that order.

PYCONVX_KERNELS_ON=cupy launches on the GPU instead, through the backend of that name (`make gpu-check`); tests that
look at what only the emulator has are skipped there.
"""

import os
import random
import zlib

import pytest
import torch

from pyconvx._problem import DTYPES
from pyconvx.backends import registered

if why := next(backend for backend in registered() if backend.name == "emulator").unavailable():
    pytest.skip(why, allow_module_level=True)

from pyconvx import emulator
from pyconvx.backends.emulator import run as run_in_any_order

__all__ = ["DTYPES", "ORDERS", "emulator", "run"]

ON = next(x for x in registered() if x.name == os.environ.get("PYCONVX_KERNELS_ON", "emulator"))
ORDERS = ("ascending", "descending", "random")


def run(plan, tensors, **options):
    """The backend's, with ``order`` and ``seed`` drawn where they are not given."""
    if ON.name != "emulator":
        return run_on_gpu(plan, tensors, **options)
    launches = b"".join(launch.kernel.encode() + launch.arguments() for launch in plan.launches)
    draw = random.Random(zlib.crc32(launches))
    order, seed = draw.choice(ORDERS), draw.randrange(1 << 31)
    return run_in_any_order(plan, tensors, **{"order": os.environ.get("PYCONVX_ORDER", order), "seed": seed, **options})


def run_on_gpu(plan, tensors, **options):
    """Launch on the GPU: on copies of the tensors, from which the results come back."""
    if why := ON.unavailable():
        pytest.skip(why)
    if only := options.keys() - {"order", "seed", "workers", "check"}:
        pytest.skip(f"the emulator alone has {', '.join(sorted(only))}")
    here = {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}
    there = {name: tensor.cuda() for name, tensor in here.items()}
    ON.run(plan, dict(there))
    for name, tensor in here.items():
        tensor.copy_(there[name])
    return OnlyInTheEmulator()


class OnlyInTheEmulator:
    """What launches leave behind on a GPU: nothing to look at."""

    def __iter__(self):
        pytest.skip("only the emulator counts")

    def __getitem__(self, index):
        pytest.skip("only the emulator counts")
