"""torch.compile, torch.export and torch.jit.trace: one graph, no second one for another batch size, equal results."""

from __future__ import annotations

import pytest
import torch
from operations import FIRST, SAMPLES, both_layouts, differentiable_results, over, results
from torch._dynamo import compiled_autograd
from torch._dynamo.utils import counters
from torch.autograd import forward_ad
from torch.func import grad, jvp, vjp, vmap

import pyconvx

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(function, dynamic=False, backend="aot_eager"):
    return torch.compile(function, fullgraph=True, dynamic=dynamic, backend=backend)


def graphs():
    """Return how many graphs have been compiled in this test."""
    return counters["stats"]["unique_graphs"]


def forward_and_backward(function, tensors):
    """Return the results of a call and the gradients of the sum of their squares."""
    given = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x for x in tensors]
    out = results(function(*given))
    sum(result.pow(2).sum() for result in differentiable_results(out)).backward()
    return [result.detach() for result in out], [x.grad for x in given if x is not None and x.requires_grad]


def described(tensors):
    return [(x.shape, x.stride(), x.dtype) for x in tensors]


def assert_same(one, other):
    for got, want in zip(one, other, strict=True):
        torch.testing.assert_close(got, want)
        assert described(got) == described(want)


@both_layouts
@over([*FIRST, *(sample for sample in SAMPLES if sample.title in ("relu-residual", "none", "int64"))])
def test_compiled_operation_is_one_graph_and_equals_eager(sample, layout):
    tensors = sample.tensors(layout, torch.float32, grad=True)
    function = compiled(sample)
    assert_same(forward_and_backward(function, tensors), forward_and_backward(sample, tensors))
    assert graphs() == 1


def with_batch(tensors, count):
    """Return image operands with ``count`` images, by repeating the first; the others stay."""
    return [
        x.detach()[:1].expand(count, *x.shape[1:]).clone(memory_format=torch.preserve_format).requires_grad_(
            x.requires_grad)
        if x is not None and x.dim() == 4 and x.shape[0] == 2 else x
        for x in tensors
    ]  # fmt: skip


@both_layouts
@over(FIRST)
def test_dynamically_compiled_operation_serves_another_batch_size_without_compiling_again(sample, layout):
    tensors = sample.tensors(layout, torch.float32, grad=True)
    if not any(x is not None and x.dim() == 4 and x.shape[0] == 2 for x in tensors):
        pytest.skip("has no batch")
    function = compiled(sample, dynamic=True)
    for count in (7, 11, 9):  # none of them another size in the call, with which the first would be identified
        batch = with_batch(tensors, count)
        assert_same(forward_and_backward(function, batch), forward_and_backward(sample, batch))
    assert graphs() == 1


def test_dynamically_compiled_network_serves_other_image_sizes_without_compiling_again():
    network = Network().eval()
    function = compiled(network, dynamic=True)
    with torch.no_grad():
        for size in ((2, 3, 16, 12), (1, 3, 8, 20), (3, 3, 24, 24)):
            images = torch.randn(size)
            torch.testing.assert_close(function(images), network(images))
    assert graphs() <= 2  # a batch of one is a case of its own to torch


class Network(torch.nn.Module):
    """Every layer and function there is, once."""

    def __init__(self):
        super().__init__()
        ours = pyconvx.nn
        self.stem = ours.ConvBNReLU(3, 8, 3, padding=1)
        self.pool = ours.MaxPool2d(2, return_indices=True, index_dtype=torch.uint8)
        self.pair = ours.FactorizedConv2d(8, 8, 3, activation="relu")
        self.add = ours.ResidualAdd()
        self.unpool = ours.MaxUnpool2d(2)
        self.up = ours.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = ours.Conv2d(4, 4, 3, padding="same")

    def forward(self, images):
        features, indices = self.pool(self.stem(images))
        features = self.add(self.pair(features), features)
        features = self.unpool(features, indices)
        features = self.head(self.up(features), activation="relu")
        return pyconvx.max_pool2d(features, 2)


def test_network_compiled_by_inductor_trains_like_the_eager_one():
    torch.manual_seed(0)
    network = Network()
    eager = Network()
    eager.load_state_dict(network.state_dict())
    function = compiled(network, dynamic=True, backend="inductor")
    for count in (5, 7):
        images = torch.randn(count, 3, 8, 8).to(memory_format=torch.channels_last)
        got, want = function(images), eager(images)
        torch.testing.assert_close(got, want)
        assert got.is_contiguous(memory_format=torch.channels_last)
        got.square().sum().backward()
        want.square().sum().backward()
    for (name, one), other in zip(network.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: name + text)
    assert graphs() == 1


def test_graph_holds_the_operations_by_their_names():
    called = set()

    def backend(graph, inputs):
        called.update(str(node.target) for node in graph.graph.nodes if "pyconvx" in str(node.target))
        return graph.forward

    compiled(Network(), backend=backend)(torch.randn(1, 3, 8, 8))
    expected = {"conv2d", "conv_transpose2d", "max_pool2d", "max_unpool2d", "residual_add"}
    assert called == {f"pyconvx.{name}.default" for name in expected}


def through_all(weight):
    """Return what every function makes of an image with this (4, 2, 3, 3) weight."""
    images = torch.linspace(-1, 1, 144).view(2, 2, 6, 6).cos()
    features = pyconvx.conv2d(images, weight, padding=1, activation="relu")
    pooled, indices = pyconvx.max_pool2d(features, 2, return_indices=True, index_dtype=torch.uint8)
    features = pyconvx.add_relu(pyconvx.max_unpool2d(pooled, indices, 2), features)
    return pyconvx.conv_transpose2d(features, weight, stride=2).sum()


def dual_tangent(weight):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(through_all(forward_ad.make_dual(weight, weight.sin()))).tangent


@pytest.mark.parametrize(
    "transformed",
    [
        grad(through_all),
        lambda weight: vjp(through_all, weight)[1](torch.ones(())),
        lambda weight: jvp(through_all, (weight,), (weight.sin(),))[1],
        lambda weight: vmap(through_all)(torch.stack([weight, weight.sin()])),
        lambda weight: vmap(grad(through_all))(torch.stack([weight, weight.sin()])),
        dual_tangent,
    ],
    ids=["grad", "vjp", "jvp", "vmap", "vmap-grad", "dual"],
)
def test_transforms_are_compiled(transformed):
    weight = torch.linspace(-1, 1, 72).view(4, 2, 3, 3)
    torch.testing.assert_close(compiled(transformed)(weight), transformed(weight))


@pytest.mark.parametrize("through", ["function", "operation"])
def test_backward_is_compiled_by_compiled_autograd(through):
    images, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3, requires_grad=True)
    sample = (images, weight, None, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, "relu")

    def loss():
        features = pyconvx.ops.conv2d.op(*sample) if through == "operation" else pyconvx.ops.conv2d(*sample)
        return pyconvx.max_pool2d(features, 2).square().sum()

    (want,) = torch.autograd.grad(loss(), weight)
    with compiled_autograd._enable(lambda graph: torch.compile(graph, backend="eager")):
        loss().backward()
    torch.testing.assert_close(weight.grad, want)


def test_compiled_function_under_autocast_equals_eager():
    images, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3, requires_grad=True)

    def function(images, weight):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return pyconvx.max_pool2d(pyconvx.conv2d(images, weight, activation="relu"), 2)

    got = compiled(function)(images, weight)
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got, function(images, weight))
    got.sum().backward()
    assert weight.grad.dtype is torch.float32


def test_compiled_function_refuses_bad_arguments_with_its_sentence():
    function = torch.compile(pyconvx.conv2d, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="input has 3 channels, but weight"):
        function(torch.randn(1, 3, 8, 8), torch.randn(4, 2, 3, 3))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])
def test_exported_network_equals_the_network(strict, training):
    torch.manual_seed(0)
    network = Network().train(training)
    twin = Network().train(training)
    twin.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 8, 8)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},), strict=strict)
    exported = program.module()
    for count in (2, 5):
        images = torch.randn(count, 3, 8, 8)
        torch.testing.assert_close(exported(images), twin(images))
    assert set(exported.state_dict()) <= set(network.state_dict())


def test_exported_program_survives_saving_and_decompositions(tmp_path):
    network = Network().eval()
    images = torch.randn(2, 3, 8, 8)
    program = torch.export.export(network, (images,))
    torch.export.save(program.run_decompositions(), tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2")
    torch.testing.assert_close(loaded.module()(images), network(images))


@both_layouts
@over(SAMPLES)
def test_traced_operation_equals_the_operation(sample, layout):
    tensors = sample.tensors(layout, torch.float32)
    there = [position for position, x in enumerate(tensors) if x is not None]

    def function(*operands):
        given = list(tensors)
        for position, operand in zip(there, operands, strict=True):
            given[position] = operand
        return sample(*given)

    examples = tuple(tensors[position] for position in there)
    traced = torch.jit.trace(function, examples, check_trace=False)
    assert any("pyconvx" in node.kind() for node in traced.graph.nodes())
    others = tuple(x.flip(0) for x in examples)
    torch.testing.assert_close(results(traced(*others)), results(function(*others)))


def test_traced_sizes_can_be_given_as_output_size():
    def function(images):
        pooled, indices = pyconvx.max_pool2d(images, 2, return_indices=True)
        return pyconvx.max_unpool2d(pooled, indices, 2, output_size=images.size())

    images = torch.randn(1, 2, 5, 5)
    assert torch.jit.trace(function, images)(images).equal(function(images))


def test_traced_network_trains():
    torch.manual_seed(0)
    network = Network()
    images = torch.randn(2, 3, 8, 8)
    traced = torch.jit.trace(network, images, check_trace=False)
    traced(images).square().sum().backward()
    got = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    network(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-4, atol=1e-4)
