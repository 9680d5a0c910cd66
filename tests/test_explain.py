"""explain: what ran where and why, and a model that is as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as module_state

import pyconvx
from pyconvx import nn as ours
from pyconvx.ops._operator import Operator


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return F.max_pool2d(self.conv(x), 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.inner = Inner()

    def forward(self, x, scale=1.0):
        return self.inner(self.stem(x)) * scale


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def images():
    return torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(1))


PAST = "called past pyconvx: swap the layer, or run under `with pyconvx.use():`"


def test_unswapped_model_is_all_torchs(model, images):
    table = pyconvx.explain(model, images)
    assert table.columns == ("module", "operation", "problem", "backend", "why not another")
    assert table.title == "pyconvx.explain: 3 calls: torch took 3"
    assert [(row["module"], row["operation"], row["backend"]) for row in table] == [
        ("stem.0", "conv2d", "torch"), ("inner.conv", "conv2d", "torch"), ("inner", "max_pool2d", "torch"),
    ]  # fmt: skip
    assert all(row["why not another"] == PAST for row in table)
    assert table.rows[0][2] == "2x1x10x10 4x1x3x3 4"


def test_swapped_model_is_ours_but_for_functional_calls(model, images):
    pyconvx.swap(model)
    table = pyconvx.explain(model, images)
    assert [(row["module"], row["operation"], row["backend"], row["why not another"]) for row in table] == [
        ("stem.0", "conv2d", "cpu", ""), ("inner.conv", "conv2d", "cpu", ""), ("inner", "max_pool2d", "torch", PAST),
    ]  # fmt: skip
    assert table.title == "pyconvx.explain: 3 calls: cpu took 2, torch took 1"


@pytest.mark.parametrize("swapped", [False, True])
def test_model_under_use_is_all_ours(model, images, swapped):
    if swapped:
        pyconvx.swap(model)
    with pyconvx.use():
        table = pyconvx.explain(model, images)
    assert [(row["module"], row["operation"], row["backend"]) for row in table] == [
        ("stem.0", "conv2d", "cpu"), ("inner.conv", "conv2d", "cpu"), ("inner", "max_pool2d", "cpu"),
    ]  # fmt: skip


def test_use_inside_the_model_is_seen_too(images):
    class Using(nn.Module):
        def forward(self, x):
            with pyconvx.use():
                return F.max_pool2d(x, 2)

    (row,) = pyconvx.explain(Using(), images)
    assert (row["operation"], row["backend"]) == ("max_pool2d", "cpu")


def test_problem_says_sizes_geometry_dtype_and_layout(images):
    layer = ours.Conv2d(1, 6, (3, 1), (2, 1), (1, 0), bias=False).to(memory_format=torch.channels_last)
    (row,) = pyconvx.explain(layer, images.repeat(1, 1, 1, 2))
    facts = row["problem"].split()
    assert {"n2", "c1", "h10", "w20", "k6", "r3", "s1", "float32", "nhwc"} <= set(facts)
    assert "stride 2x1" in row["problem"] and "pad 1,1,0,0" in row["problem"]
    (other,) = pyconvx.explain(layer.double(), images.double())
    assert "float64" in other["problem"]


def test_float64_says_why_onednn_did_not_take_it(model, images):
    pyconvx.swap(model.double())
    table = pyconvx.explain(model, images.double())
    row = next(iter(table))
    assert row["backend"] == "aten"
    assert row["why not another"] == "cpu: oneDNN has no float64 convolution"


def test_forced_backend_is_the_one_that_is_listed(model, images):
    pyconvx.swap(model)
    with pyconvx.backend("aten"):
        assert {row["backend"] for row in pyconvx.explain(model, images) if row["module"] != "inner"} == {"aten"}
    assert {row["backend"] for row in pyconvx.explain(model, images) if row["module"] != "inner"} == {"cpu"}


def test_every_operation_of_ours_is_listed(images):
    class All(nn.Module):
        def forward(self, x):
            pooled, indices = pyconvx.max_pool2d(x, 2, return_indices=True)
            x = pyconvx.add_relu(pyconvx.max_unpool2d(pooled, indices, 2), x)
            return pyconvx.conv_transpose2d(x, torch.ones(1, 1, 2, 2))

    assert [row["operation"] for row in pyconvx.explain(All(), images)] == [
        "max_pool2d", "max_unpool2d", "residual_add", "conv_transpose2d",
    ]  # fmt: skip


def test_function_and_keywords_are_explained(model, images):
    (row,) = pyconvx.explain(lambda x: pyconvx.conv2d(x, torch.ones(2, 1, 3, 3)), images)
    assert (row["module"], row["backend"]) == ("", "cpu")
    assert len(pyconvx.explain(model, x=images, scale=2.0)) == 3


def test_module_that_is_no_part_of_the_model_is_a_question_mark(images):
    stray = ours.Conv2d(1, 1, 3)

    class Borrowing(nn.Module):
        def forward(self, x):
            return stray(x)

    assert [row["module"] for row in pyconvx.explain(Borrowing(), images)] == ["?"]


def hooks():
    state = vars(module_state)
    return {name: dict(value) for name, value in state.items() if name.startswith("_global") and hasattr(value, "keys")}


def snapshot(model):
    return (
        {name: module.training for name, module in model.named_modules()},
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: parameter.grad for name, parameter in model.named_parameters()},
        hooks(),
    )


def assert_unchanged(before, after):
    assert before[0] == after[0] and before[2:] == after[2:]
    assert all(value.equal(after[1][name]) for name, value in before[1].items())
    assert Operator.observer is None


@pytest.mark.parametrize("swapped", [False, True])
def test_model_is_as_it_was(model, images, swapped):
    model.inner.eval()  # a mixture of modes, which comes back as it was
    if swapped:
        pyconvx.swap(model)
    before = snapshot(model)
    pyconvx.explain(model, images)
    assert_unchanged(before, snapshot(model))


def test_model_is_as_it_was_after_an_exception(model, images):
    pyconvx.swap(model)
    before = snapshot(model)
    with pytest.raises(pyconvx.InvalidCall):
        pyconvx.explain(model, images.expand(2, 3, 10, 10))
    assert_unchanged(before, snapshot(model))
    assert len(pyconvx.explain(model, images)) == 3


def test_exception_inside_is_caught_by_the_model_and_names_stay_right(images):
    class Failing(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    class Catching(nn.Module):
        def __init__(self):
            super().__init__()
            self.failing, self.conv = Failing(), ours.Conv2d(1, 1, 3)

        def forward(self, x):
            try:
                self.failing(x)
            except ZeroDivisionError:
                pyconvx.max_pool2d(x, 2)
            return self.conv(x)

    assert [row["module"] for row in pyconvx.explain(Catching(), images)] == ["", "conv"]


def test_no_gradient_is_recorded(model, images):
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    pyconvx.explain(model, images)
    assert seen == [False]


def test_calls_outside_are_not_heard(model, images):
    pyconvx.swap(model)
    table = pyconvx.explain(model, images)
    model(images)
    assert len(table) == 3


def test_table_is_printed_and_dumped(model, images, capsys):
    table = pyconvx.explain(model, images)
    table.show()
    assert capsys.readouterr().out.strip() == str(table).strip()
    assert [row["module"] for row in table.as_dict()["rows"]] == ["stem.0", "inner.conv", "inner"]


def test_model_without_calls_says_so():
    table = pyconvx.explain(nn.Linear(2, 2), torch.randn(1, 2))
    assert len(table) == 0 and table.title == "pyconvx.explain: 0 calls: none that pyconvx knows"
