"""What runs a plan's launches here: the very code of the backend ``emulator``, where its parts are installed.

Right kernels do not depend on the order in which warps and blocks run, and some faults are seen in one order only. So
every plan is run in an order drawn from what it launches: by another test in another, by the same test in the same.
PYCONVX_ORDER=ascending, descending or random runs all of them in that order.
"""

import os
import random
import zlib

import pytest

from pyconvx._problem import DTYPES
from pyconvx.backends import registered

if why := next(backend for backend in registered() if backend.name == "emulator").unavailable():
    pytest.skip(why, allow_module_level=True)

from pyconvx import emulator
from pyconvx.backends.emulator import run as run_in_any_order

__all__ = ["DTYPES", "ORDERS", "emulator", "run"]

ORDERS = ("ascending", "descending", "random")


def run(plan, tensors, **options):
    """The backend's, with ``order`` and ``seed`` drawn where they are not given."""
    launches = b"".join(launch.kernel.encode() + launch.arguments() for launch in plan.launches)
    draw = random.Random(zlib.crc32(launches))
    order, seed = draw.choice(ORDERS), draw.randrange(1 << 31)
    return run_in_any_order(plan, tensors, **{"order": os.environ.get("PYCONVX_ORDER", order), "seed": seed, **options})
