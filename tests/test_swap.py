"""swap: what it exchanges, what it leaves and says why, and that it can be undone exactly."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import pyconvx
from pyconvx import nn as ours


class Net(nn.Module):
    """A small network in plain torch.nn: every layer that is exchanged, nested."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, return_indices=True),
        )  # fmt: skip
        self.unpool = nn.MaxUnpool2d(2)
        self.decoder = nn.ModuleDict({
            "up": nn.ConvTranspose2d(4, 4, 2, 2),
            "mix": nn.Conv2d(4, 2, (1, 3), (2, 1), groups=2, padding_mode="circular", padding=(0, 1)),
        })  # fmt: skip
        self.norm = nn.BatchNorm2d(2)

    def forward(self, images):
        features = self.unpool(*self.features(images))
        return self.norm(self.decoder["mix"](self.decoder["up"](features)))


NAMES = ["features.0", "features.2", "unpool", "decoder.up", "decoder.mix"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def twin(model):
    """The model, never swapped."""
    return copy.deepcopy(model)


@pytest.fixture
def images():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def classes(model):
    return {name: type(module) for name, module in model.named_modules()}


def outcomes(handle):
    return {row["name"]: row["outcome"] for row in handle.report()}


def swapped_names(handle):
    return {name for name, outcome in outcomes(handle).items() if outcome == "swapped"}


# What stays


def test_every_layer_that_has_a_counterpart_is_exchanged(model):
    handle = pyconvx.swap(model)
    assert {name: type(model.get_submodule(name)) for name in NAMES} == {
        "features.0": ours.Conv2d, "features.2": ours.MaxPool2d, "unpool": ours.MaxUnpool2d,
        "decoder.up": ours.ConvTranspose2d, "decoder.mix": ours.Conv2d,
    }  # fmt: skip
    assert handle.count == 5
    assert repr(handle) == "<swap: 5 of 5 layers swapped>"


def test_objects_stay_the_same_objects(model):
    before = {name: id(module) for name, module in model.named_modules()}
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
    pyconvx.swap(model)
    assert {name: id(module) for name, module in model.named_modules()} == before
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == buffers


def test_state_training_mode_and_requires_grad_stay(model, twin):
    model.features.eval()
    model.features[0].weight.requires_grad_(False)
    pyconvx.swap(model)
    assert not model.features[0].training and model.decoder["up"].training
    assert not model.features[0].weight.requires_grad
    for (name, value), (other, want) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other and value.equal(want)


def test_hooks_stay_and_can_be_removed_later(model, images):
    heard = []
    layer = model.features[0]
    handles = [
        layer.register_forward_pre_hook(lambda module, args: heard.append("pre")),
        layer.register_forward_hook(lambda module, args, output: heard.append("forward")),
        layer.register_full_backward_hook(lambda module, grads_in, grads_out: heard.append("backward")),
        layer.weight.register_hook(lambda grad: heard.append("weight")),
    ]
    swapped = pyconvx.swap(model)
    model(images.requires_grad_()).sum().backward()
    assert sorted(heard) == ["backward", "forward", "pre", "weight"]
    handles[0].remove()
    swapped.restore()
    heard.clear()
    model(images).sum().backward()
    assert sorted(heard) == ["backward", "forward", "weight"]


def test_results_and_gradients_stay(model, twin, images):
    pyconvx.swap(model)
    got, want = model(images), twin(images)
    torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_optimizer_that_was_made_before_goes_on(model, twin, images):
    def train(network, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
        return network(images)

    options = {"lr": 0.01, "momentum": 0.9}
    optimizer, other = torch.optim.SGD(model.parameters(), **options), torch.optim.SGD(twin.parameters(), **options)
    train(model, optimizer, 2)
    handle = pyconvx.swap(model)
    train(model, optimizer, 2)
    handle.restore()
    torch.testing.assert_close(train(model, optimizer, 2), train(twin, other, 6), rtol=1e-4, atol=1e-4)


def test_parameters_given_by_old_style_hooks_are_kept(images):
    """Pruning and weight_norm's first form recompute a plain attribute in a hook before the call."""
    layer = prune.l1_unstructured(nn.Conv2d(1, 4, 3), "weight", 0.5)
    model = nn.Sequential(layer)
    want = model(images)
    pyconvx.swap(model)
    assert type(layer) is ours.Conv2d
    torch.testing.assert_close(model(images), want)


# What is chosen


SELECTIONS = {
    "name": ({"include": "unpool"}, {"unpool"}),
    "pattern": ({"include": "decoder.*"}, {"decoder.up", "decoder.mix"}),
    "several": ({"include": ["features.?", "unpool"]}, {"features.0", "features.2", "unpool"}),
    "class": ({"include": nn.MaxPool2d}, {"features.2"}),
    "class and name": ({"include": (nn.MaxPool2d, "unpool")}, {"features.2", "unpool"}),
    "without names": ({"exclude": "decoder.*"}, {"features.0", "features.2", "unpool"}),
    "without classes": ({"exclude": [nn.Conv2d, nn.ConvTranspose2d]}, {"features.2", "unpool"}),
    "both": ({"include": "decoder.*", "exclude": nn.ConvTranspose2d}, {"decoder.mix"}),
    "where": ({"where": lambda name, module: getattr(module, "groups", 1) == 2}, {"decoder.mix"}),
    "iterator": ({"include": iter(["unpool"])}, {"unpool"}),
    "nothing unwanted": ({"exclude": ()}, set(NAMES)),
}


@pytest.mark.parametrize("options, expected", SELECTIONS.values(), ids=SELECTIONS)
def test_selection_is_swapped_and_nothing_else(model, options, expected):
    before = classes(model)
    handle = pyconvx.swap(model, **options)
    assert swapped_names(handle) == expected
    changed = {name for name, kind in classes(model).items() if kind is not before[name]}
    assert changed == expected


def test_where_is_asked_for_what_is_left_and_not_swapped_yet(model):
    asked = {}

    def where(name, module):
        asked[name] = type(module)
        return name == "unpool"

    handle = pyconvx.swap(model, exclude="features.*", where=where)
    assert asked == {"unpool": nn.MaxUnpool2d, "decoder.up": nn.ConvTranspose2d, "decoder.mix": nn.Conv2d}
    assert outcomes(handle) == {
        "features.0": "named by exclude", "features.2": "named by exclude", "unpool": "swapped",
        "decoder.up": "where() said no", "decoder.mix": "where() said no",
    }  # fmt: skip
    handle = pyconvx.swap(model, include="decoder.up")
    assert outcomes(handle)["features.0"] == "not named by include"


def test_an_error_in_where_leaves_the_model_as_it_was(model):
    before = classes(model)

    def where(name, module):
        if name == "decoder.up":
            raise RuntimeError("no idea")
        return True

    with pytest.raises(RuntimeError, match="no idea"):
        pyconvx.swap(model, where=where)
    assert classes(model) == before


@pytest.mark.parametrize("bad", [{"include": 3}, {"exclude": ["features.*", 3]}])
def test_pattern_that_is_none_is_refused(model, bad):
    before = classes(model)
    with pytest.raises(
        pyconvx.InvalidCall, match=r"swap: (in|ex)clude .*3.*names like 'features\.\*' or layer classes"
    ):
        pyconvx.swap(model, **bad)
    assert classes(model) == before


def test_model_that_is_none_is_refused():
    with pytest.raises(pyconvx.InvalidCall, match=r"model is a list, expected a torch.nn.Module"):
        pyconvx.swap([nn.Conv2d(1, 1, 1)])


# What is left, and why


class Special(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def with_forward():
    layer = nn.MaxPool2d(2)
    layer.forward = lambda x: x
    return layer


def with_conv_forward():
    layer = nn.Conv2d(1, 1, 1)
    layer._conv_forward = lambda x, weight, bias: x
    return layer


REASONS = {
    "subclass": (lambda: Special(1, 1, 1), "Special", "Special is a subclass of Conv2d, whose own"),
    "lazy": (lambda: nn.LazyConv2d(4, 3), "LazyConv2d", "LazyConv2d is a subclass of Conv2d, whose own behaviour"),
    "parametrized": (lambda: parametrizations.weight_norm(nn.Conv2d(1, 1, 1)), "ParametrizedConv2d",
                     "its parameters are parametrized, which lives in a class of its own"),
    "forward on the instance": (with_forward, "MaxPool2d", "its forward is replaced on the instance, which"),
    "_conv_forward on the instance": (with_conv_forward, "Conv2d", "its forward is replaced on the instance"),
    "complex": (lambda: nn.Conv2d(1, 1, 1, dtype=torch.complex64), "Conv2d",
                "its parameters are complex64, which pyconvx does not compute in"),
    "Conv1d": (lambda: nn.Conv1d(1, 1, 1), "Conv1d", "pyconvx has no Conv1d"),
    "Conv3d": (lambda: nn.Conv3d(1, 1, 1), "Conv3d", "pyconvx has no Conv3d"),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(1, 1, 1), "ConvTranspose1d", "pyconvx has no ConvTranspose1d"),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), "MaxPool1d", "pyconvx has no MaxPool1d"),
    "MaxUnpool3d": (lambda: nn.MaxUnpool3d(2), "MaxUnpool3d", "pyconvx has no MaxUnpool3d"),
    "ours": (lambda: ours.Conv2d(1, 1, 1), "Conv2d", "is a pyconvx layer already"),
}  # fmt: skip


@pytest.mark.parametrize("make, layer, reason", REASONS.values(), ids=REASONS)
def test_layer_that_would_change_is_left_and_the_report_says_why(make, layer, reason):
    model = nn.Sequential(make(), nn.MaxPool2d(2))
    before = type(model[0])
    handle = pyconvx.swap(model)
    assert type(model[0]) is before
    row = next(row for row in handle.report() if row["name"] == "0")
    assert row["layer"] == layer and row["outcome"].startswith(reason)
    assert outcomes(handle)["1"] == "swapped"


def test_report_is_a_table_of_every_layer(model):
    model.extra = nn.Conv1d(1, 2, 3)
    table = pyconvx.swap(model, exclude="unpool").report()
    assert table.title == "pyconvx.swap: 4 of 6 layers swapped"
    assert table.columns == ("name", "layer", "shape", "outcome")
    assert table.rows == [
        ("features.0", "Conv2d", "1 -> 4, 3x3", "swapped"),
        ("features.2", "MaxPool2d", "2, stride 2", "swapped"),
        ("unpool", "MaxUnpool2d", "(2, 2), stride (2, 2)", "named by exclude"),
        ("decoder.up", "ConvTranspose2d", "4 -> 4, 2x2, stride 2x2", "swapped"),
        ("decoder.mix", "Conv2d", "4 -> 2, 1x3, stride 2x1, groups 2", "swapped"),
        ("extra", "Conv1d", "1 -> 2, 3", "pyconvx has no Conv1d"),
    ]
    lines = str(table).splitlines()
    assert lines[0] == table.title and len(lines) == 3 + len(table)
    assert all(name in line for name, line in zip([row[0] for row in table.rows], lines[3:], strict=True))


def test_report_is_a_copy(model):
    handle = pyconvx.swap(model)
    handle.report().rows.clear()
    assert len(handle.report()) == 5


# Nothing to do


def test_nothing_swapped_is_a_warning_that_says_why():
    with pytest.warns(UserWarning) as caught:
        handle = pyconvx.swap(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert handle.count == 0 and len(handle.report()) == 0
    assert str(caught[0].message) == (
        "swap: nothing was swapped in this Sequential: it holds no convolution, max pooling or unpooling layer; "
        "`with pyconvx.use():` catches functional calls"
    )
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="2 x pyconvx has no Conv1d; 1 x pyconvx has no MaxPool1d"):
        pyconvx.swap(nn.Sequential(nn.Conv1d(1, 1, 1), nn.MaxPool1d(2), nn.Conv1d(1, 1, 1)))


def test_nothing_swapped_is_an_error_when_strict(model):
    with pytest.raises(pyconvx.InvalidCall, match="nothing was swapped in this Net: 5 x not named by include"):
        pyconvx.swap(model, include="head", strict=True)
    assert pyconvx.swap(model, strict=True).count == 5


def test_twice_is_once(model, twin, images):
    first = pyconvx.swap(model)
    with pytest.warns(UserWarning, match="5 x is a pyconvx layer already"):
        second = pyconvx.swap(model)
    second.restore()
    assert type(model.features[0]) is ours.Conv2d
    first.restore()
    assert classes(model) == classes(twin)
    assert model(images).equal(twin(images))


# The way back


def assert_is_the_twin(model, twin, images):
    assert classes(model) == classes(twin)
    assert [vars(m).keys() for m in model.modules()] == [vars(m).keys() for m in twin.modules()]
    for (name, value), (other, want) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other and value.equal(want)
    got, want = model(images), twin(images)
    assert got.equal(want)
    model.zero_grad()
    twin.zero_grad()
    got.square().sum().backward()
    want.square().sum().backward()
    assert all(one.grad.equal(other.grad) for one, other in zip(model.parameters(), twin.parameters(), strict=True))


def test_restoring_brings_back_the_very_same_model(model, twin, images):
    handle = pyconvx.swap(model)
    with torch.no_grad():
        model.eval()(images)
    handle.restore()
    model.train()
    assert handle.count == 0
    assert_is_the_twin(model, twin, images)
    handle.restore()
    assert_is_the_twin(model, twin, images)


def test_with_block_restores_at_its_end(model, twin, images):
    with pyconvx.swap(model) as handle:
        assert type(model.features[0]) is ours.Conv2d
        assert isinstance(handle.report().rows, list)
    assert_is_the_twin(model, twin, images)


def test_with_block_restores_after_an_exception(model, twin, images):
    with pytest.raises(ZeroDivisionError), pyconvx.swap(model):
        raise ZeroDivisionError
    assert_is_the_twin(model, twin, images)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nested_handles_can_be_restored_in_any_order(model, twin, images, order):
    handles = [pyconvx.swap(model, include="features.*"), pyconvx.swap(model)]
    assert [handle.count for handle in handles] == [2, 3]
    handles[order[0]].restore()
    assert type(model.features[0]) is (nn.Conv2d if order[0] == 0 else ours.Conv2d)
    handles[order[1]].restore()
    assert_is_the_twin(model, twin, images)


def test_layer_that_something_else_changed_since_is_left_alone(model):
    handle = pyconvx.swap(model)
    model.features[0].__class__ = Special
    handle.restore()
    assert type(model.features[0]) is Special and type(model.unpool) is nn.MaxUnpool2d


def test_swapping_again_after_restoring_works(model, twin, images):
    for _ in range(3):
        with pyconvx.swap(model) as handle:
            assert handle.count == 5
    assert_is_the_twin(model, twin, images)


# Models of other kinds


def test_shared_layer_is_swapped_once(images):
    layer = nn.Conv2d(1, 1, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    want = model(images)
    with pyconvx.swap(model) as handle:
        assert outcomes(handle) == {"0": "swapped"}
        assert model[2] is layer and type(layer) is ours.Conv2d
        torch.testing.assert_close(model(images), want)
    assert type(layer) is nn.Conv2d


def test_layer_that_is_the_whole_model_is_swapped(images):
    layer = nn.Conv2d(1, 2, 3)
    want = layer(images)
    with pyconvx.swap(layer) as handle:
        assert outcomes(handle) == {"": "swapped"}
        assert type(layer) is ours.Conv2d
        torch.testing.assert_close(layer(images), want)
    assert layer(images).equal(want)


def test_two_models_that_share_layers_are_both_swapped(model, images):
    other = nn.Sequential(model.features[0])
    pyconvx.swap(model)
    with pytest.warns(UserWarning, match="1 x is a pyconvx layer already"):
        pyconvx.swap(other)
    assert type(other[0]) is ours.Conv2d


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "torch.save": through_torch_save,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_of_a_swapped_model_are_swapped_and_apart(model, twin, images, copied):
    handle = pyconvx.swap(model)
    duplicate = copied(model)
    assert classes(duplicate) == classes(model)
    handle.restore()
    assert type(duplicate.features[0]) is ours.Conv2d and type(model.features[0]) is nn.Conv2d
    torch.testing.assert_close(duplicate(images), twin(images))


def test_state_dict_of_a_swapped_model_loads_into_torchs(model, twin, images):
    pyconvx.swap(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    nn.init.zeros_(twin.features[0].weight)
    twin.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    torch.testing.assert_close(twin(images), model(images))


def test_swapped_model_compiles_to_one_graph(model, twin, images):
    pyconvx.swap(model)
    torch._dynamo.reset()
    got = torch.compile(model, backend="aot_eager", fullgraph=True)(images)
    torch.testing.assert_close(got, twin(images))
    torch._dynamo.reset()


def test_model_compiled_before_the_swap_notices_it(model, twin, images):
    graphs = []

    def backend(graph, inputs):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    torch.testing.assert_close(compiled(images), twin(images))
    assert "pyconvx.conv2d.default" not in graphs[-1]
    with pyconvx.swap(model):
        torch.testing.assert_close(compiled(images), twin(images))
        assert "pyconvx.conv2d.default" in graphs[-1]
    called = len(graphs)
    torch.testing.assert_close(compiled(images), twin(images))
    assert len(graphs) == called  # the first graph is still there
    torch._dynamo.reset()


def test_swapped_model_under_use_runs_as_it_does_without(model, twin, images):
    pyconvx.swap(model)
    twin.load_state_dict(model.state_dict())
    with pyconvx.use():
        torch.testing.assert_close(model(images), twin(images), rtol=0, atol=0)


def test_swapped_model_moves_to_another_dtype_and_layout(model, images):
    handle = pyconvx.swap(model.double().to(memory_format=torch.channels_last))
    output = model(images.double().to(memory_format=torch.channels_last))
    assert output.dtype is torch.float64 and output.is_contiguous(memory_format=torch.channels_last)
    model.to(torch.bfloat16)
    assert model(images.bfloat16()).dtype is torch.bfloat16
    handle.restore()


def test_swapping_warns_of_nothing_else(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyconvx.swap(model).restore()
