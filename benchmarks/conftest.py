"""What the benchmarks share: ours and torch's side by side in one group, on operands that are the same in every run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture(params=["pyconvx", "torch"])
def library(request: pytest.FixtureRequest) -> str:
    """Whose operation runs."""
    return request.param


@pytest.fixture(params=["contiguous", "channels_last"])
def layout(request: pytest.FixtureRequest) -> torch.memory_format:
    """Memory format of the operands."""
    return getattr(torch, f"{request.param}_format" if request.param == "contiguous" else request.param)


@pytest.fixture
def compare(benchmark, request: pytest.FixtureRequest, library: str):
    """Time one of two calls, by ``library``, in a group that is named after everything else in the test's name."""

    def run(ours, theirs):
        name = request.node.name.removeprefix("test_")
        benchmark.group = name.replace(f"{library}-", "").replace(f"-{library}", "").replace(f"[{library}]", "")
        call = ours if library == "pyconvx" else theirs
        call()
        return benchmark(call)

    return run


@pytest.fixture
def values():
    """Make normally distributed operands of the given sizes."""
    generator = torch.Generator().manual_seed(0)

    def make(*sizes: int, layout: torch.memory_format = torch.contiguous_format, dtype=torch.float32) -> Tensor:
        return torch.randn(sizes, generator=generator).to(dtype).contiguous(memory_format=layout)

    return make
