"""Bugs planted in the kernels' headers, each of which the checker or the numbers must notice.

A bug is a change of one header, made in a copy of kernels/cuda from which the launches of a plan are compiled; the
kernels as they are, run on the same problem, must be right and free of reports and of bank conflicts.
"""

from __future__ import annotations

import functools
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from kernels import gradient_bugs, seeded_bugs
from kernels.backward import Dgrad, FarCornersWgrad, Wgrad
from kernels.convolution import Case, FarCorners, FarEnd
from kernels.harness import run
from pyconvx.backends._compiled import kernels_folder

HEADERS = kernels_folder()
PROBLEMS = seeded_bugs.PROBLEMS | gradient_bugs.PROBLEMS
BUGS = seeded_bugs.BUGS | gradient_bugs.BUGS
BARRIERS = seeded_bugs.BARRIERS | gradient_bugs.BARRIERS
FAR = {"fprop": FarCorners, "wgrad": FarCornersWgrad}
CASES = {"fprop": Case, "dgrad": Dgrad, "wgrad": Wgrad}
BARRIER = re.compile(r"__sync(threads|warp)\([^)]*\);")


class Problem:
    """One of PROBLEMS, which runs with whatever headers it is given."""

    def __init__(self, name):
        sizes = dict(PROBLEMS[name])
        family, tile, blocks = sizes.pop("family"), sizes.pop("tile", ""), sizes.pop("blocks", None)
        nan = sizes.pop("nan", False)
        pass_ = sizes.pop("pass_", "fprop")
        self.options = {name: sizes.pop(name) for name in ("last_blocks",) if name in sizes}
        far = sizes.pop("far", False)
        self.case = FarEnd(**sizes) if self.options else FAR[pass_]() if far else CASES[pass_](**sizes)
        if nan:
            self.case.input[0, 1, 4, 3] = torch.nan
        self.plan = self.case.plan(tile=tile)
        assert self.plan.family == family, f"{name} is run by {self.plan.family} instead of {family}: adapt PROBLEMS"
        if blocks:
            launches = [with_blocks(launch, blocks) for launch in self.plan.launches]
            self.plan = SimpleNamespace(launches=launches, workspaces=self.plan.workspaces)

    def noticed(self, headers):
        """What is wrong with a run: the kinds of the checker's reports, else "numbers", else "bank conflicts"."""
        tensors = self.case.buffers()
        options = dict(on_report="return", order="ascending", workers=1, max_steps=500_000, **self.options)
        launches = run(self.plan, tensors, headers=headers, **options)
        if kinds := {report.kind for launch in launches for report in launch.reports}:
            return kinds
        if not all(map(same_numbers, as_list(self.case.result(tensors)), as_list(self.case.expected()))):
            return {"numbers"}
        totals = [launch.counts.total for launch in launches]
        return {"bank conflicts"} if any(total.wavefronts > total.ideal_wavefronts for total in totals) else set()


def as_list(results):
    return results if isinstance(results, list) else [results]


def same_numbers(result, expected):
    return torch.equal(*(torch.nan_to_num(x, nan=12345) for x in (result, expected.to(result.dtype))))


def with_blocks(launch, blocks):
    fields = {name: getattr(launch, name) for name in ("kernel", "header", "block", "shared_bytes", "pointers")}
    return SimpleNamespace(**fields, arguments=launch.arguments, grid=(blocks, 1, 1))


@functools.cache
def problem(name):
    """The problem, after a run of the kernels as they are; some accesses of narrow vectors have bank conflicts."""
    found = Problem(name)
    found.noticed_before = found.noticed(HEADERS)
    assert found.noticed_before <= {"bank conflicts"}, f"{name}: the kernels as they are have {found.noticed_before}"
    return found


def spoil(headers, bug):
    """Write the bug into the header that it is for."""
    where = re.compile(r"\s+".join(map(re.escape, bug.text.split())))
    path = headers / bug.header
    right = path.read_text()
    times = len(where.findall(right))
    if times != 1:
        raise LookupError(f"{bug.header} has the text {bug.text!r} {times} times, expected once: adapt the bug's entry")
    path.write_text(where.sub(lambda _: bug.wrong, right))


@pytest.fixture
def headers(tmp_path, monkeypatch):
    """A copy of the headers to spoil, the PTX of which is not kept."""
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path / "cache"))
    return shutil.copytree(HEADERS, tmp_path / "cuda")


@pytest.mark.parametrize("name", BUGS)
def test_bug_is_noticed(name, headers):
    bug = BUGS[name]
    spoil(headers, bug)
    clean = problem(bug.problem)
    noticed = clean.noticed(headers) - clean.noticed_before
    assert bug.noticed in noticed, f"{name}: expected {bug.noticed}, got {noticed or 'nothing'}"


BARRIERS_OF_HEADERS = [
    pytest.param(path.relative_to(HEADERS).as_posix(), index, id=f"{path.name}, {index}")
    for path in sorted(HEADERS.glob("conv/*.cuh"))
    for index in range(len(BARRIER.findall(path.read_text())))
]


@pytest.mark.parametrize("header, index", BARRIERS_OF_HEADERS)
def test_no_barrier_can_be_left_out(header, index, headers):
    """Each of those in the text, one at a time."""
    assert header in BARRIERS, f"{header} has a barrier: enter into BARRIERS the problems that need it"
    path = headers / header
    right = path.read_text()
    barrier = list(BARRIER.finditer(right))[index]
    path.write_text(right[: barrier.start()] + right[barrier.end() :])
    kinds = set().union(*(problem(name).noticed(headers) for name in BARRIERS[header]))
    assert kinds & {"shared-race", "warp-race"}, f"{kinds or 'nothing'} without the barrier in {header}"


def test_a_text_that_is_gone_is_said(headers):
    gone = BUGS["no swizzle"]._replace(text="chunk ^ nothing")
    with pytest.raises(LookupError, match=r"has the text 'chunk . nothing' 0 times, expected once: adapt"):
        spoil(headers, gone)


def test_every_bug_is_another_one():
    assert len({(bug.header, bug.text, bug.wrong) for bug in BUGS.values()}) == len(BUGS) >= 30
