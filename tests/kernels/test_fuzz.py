"""Five hundred seeded random problems a pass, exact on integers and without a report, in every order of warps.

A failure says the seed of its problem, which runs alone by

    PYCONVX_FUZZ=123 pytest tests/kernels/test_fuzz.py

and as many others as there is time for by PYCONVX_FUZZ=500-2000.
"""

from __future__ import annotations

import os

import pytest

from kernels.fuzz import PASSES, draw
from kernels.harness import ORDERS

FIRST, _, LAST = os.environ.get("PYCONVX_FUZZ", "0-499").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)
PART = 25  # of the seeds, a test


@pytest.mark.parametrize("first", SEEDS[::PART])
@pytest.mark.parametrize("pass_", PASSES)
def test_random_problems(pass_, first):
    for seed in range(first, min(first + PART, SEEDS.stop)):
        drawn = draw(pass_, seed)
        try:
            drawn.case.check(drawn.plan, **drawn.launch)
        except Exception as error:
            raise AssertionError(f"PYCONVX_FUZZ={seed}, {pass_}: {drawn}\n{error}") from error


@pytest.mark.parametrize("pass_", PASSES)
def test_draws_are_repeatable_and_various(pass_):
    assert [str(draw(pass_, seed)) for seed in range(5)] == [str(draw(pass_, seed)) for seed in range(5)]
    draws = [draw(pass_, seed) for seed in range(500)]
    assert len({launch.kernel for drawn in draws for launch in drawn.plan.launches}) < 140
    assert {drawn.launch["order"] for drawn in draws} == set(ORDERS)
    problems = [drawn.case.problem for drawn in draws]
    assert any(problem.groups > 1 for problem in problems) and any(max(problem.dilation) > 1 for problem in problems)
