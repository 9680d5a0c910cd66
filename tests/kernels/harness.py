"""What runs a plan's launches here: the very code of the backend ``emulator``, where its parts are installed."""

import pytest

from pyconvx._problem import DTYPES
from pyconvx.backends import registered

if why := next(backend for backend in registered() if backend.name == "emulator").unavailable():
    pytest.skip(why, allow_module_level=True)

from pyconvx import emulator
from pyconvx.backends.emulator import run

__all__ = ["DTYPES", "emulator", "run"]
