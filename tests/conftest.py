"""What the tests share as fixtures: seeded numbers, the two layouts, and kernels that are made wrong on purpose."""

import pytest
import torch
from checking import LAYOUTS

from pyconvx import backends


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The tests' tensors are small, and threads would only wait for each other; a test of threads says how many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(20151210)


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.fixture
def with_threads():
    """A function that calls another with so many threads."""

    def call(threads, function, *args):
        torch.set_num_threads(threads)
        try:
            return function(*args)
        finally:
            torch.set_num_threads(1)

    return call


@pytest.fixture
def wrong_kernel(monkeypatch):
    """A function that puts ``spoil(result)`` in the place of what a kernel returns, until the test ends."""

    def forget_choices():
        backends.force(backends.forced_name())

    def spoil_kernel(backend, operation, spoil):
        kernel = getattr(type(backend), operation)
        monkeypatch.setattr(type(backend), operation, lambda self, *args: spoil(kernel(self, *args)))
        forget_choices()

    yield spoil_kernel
    monkeypatch.undo()
    forget_choices()
