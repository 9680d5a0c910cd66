"""Seeded random problems of every pass, exact on integers and without a report, in every order of warps and blocks.

Five hundred of forward convolution, a part of as many of its gradients, none of those that a ReLU masks; all of these,
too, with PYCONVX_SLOW=1. A failure says the seed of its problem, which runs alone by

    PYCONVX_FUZZ=123 pytest tests/kernels/test_fuzz.py

and as many others as there is time for by PYCONVX_FUZZ=500-2000.
"""

from __future__ import annotations

import os

import pytest

from kernels.fuzz import PASSES, draw
from kernels.harness import ORDERS

PART = 25  # of the seeds, a test


def parts():
    """Pass and seeds of each test."""
    first, _, last = os.environ.get("PYCONVX_FUZZ", "").partition("-")
    for pass_ in PASSES:
        all_of_them = pass_ == "fprop" or os.environ.get("PYCONVX_SLOW")
        some = 0 if pass_.endswith("masked") else 2 * PART
        seeds = range(int(first), int(last or first) + 1) if first else range(500 if all_of_them else some)
        for start in seeds[::PART]:
            part = range(start, min(start + PART, seeds.stop))
            yield pytest.param(pass_, part, id=f"{pass_}, {part.start}-{part.stop - 1}")


@pytest.mark.parametrize("pass_, seeds", [*parts()])
def test_random_problems(pass_, seeds):
    for seed in seeds:
        drawn = draw(pass_, seed)
        try:
            drawn.case.check(drawn.plan, **drawn.launch)
        except Exception as error:
            raise AssertionError(f"PYCONVX_FUZZ={seed}, {pass_}: {drawn}\n{error}") from error


@pytest.mark.parametrize("pass_", [pass_ for pass_ in PASSES if "masked" not in pass_])
def test_draws_are_repeatable_and_various(pass_):
    assert [str(draw(pass_, seed)) for seed in range(5)] == [str(draw(pass_, seed)) for seed in range(5)]
    draws = [draw(pass_, seed) for seed in range(500)]
    assert {drawn.launch["order"] for drawn in draws} == set(ORDERS)
    problems = [drawn.case.problem for drawn in draws]
    assert any(problem.groups > 1 for problem in problems) and any(max(problem.dilation) > 1 for problem in problems)


def test_few_kernels_are_drawn():
    """Compiling is what takes time."""
    draws = [draw("fprop", seed) for seed in range(500)]
    assert len({launch.kernel for drawn in draws for launch in drawn.plan.launches}) < 140
