"""pyconvx among PyTorch's other features: roads of a call, modes, subclasses, hooks, checkpoints, copies, threads."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from operations import FIRST, Recorder, both_layouts, differentiable_results, over, results
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, jvp, vjp, vmap
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

import pyconvx
from pyconvx import backends, ops
from pyconvx.ops import _operator


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def roads(monkeypatch):
    """The stations that calls of conv2d pass, in order: training, op, kernel."""
    passed, operator, backend = [], ops.conv2d, backends.registered()[0]

    class Watched:
        def __init__(self, station, original):
            self.station, self.original = station, original

        def __call__(self, *args):
            passed.append(self.station)
            return self.original(*args)

        def __getattr__(self, name):
            return getattr(self.original, name)

    monkeypatch.setattr(operator, "_train", Watched("training", operator._train))
    monkeypatch.setattr(operator, "op", Watched("op", operator.op))
    monkeypatch.setattr(backend, "conv2d", Watched("kernel", backend.conv2d), raising=False)
    backends.force(backends.forced_name())  # forget choices that hold the kernel itself
    yield passed
    monkeypatch.undo()
    backends.force(backends.forced_name())


def images(**options):
    return torch.ones(2, 3, 4, 4, **options)


def weights(**options):
    return torch.ones(4, 3, 3, 3, **options)


def dual(primal):
    with forward_ad.dual_level():
        return pyconvx.conv2d(forward_ad.make_dual(primal, torch.ones_like(primal)), weights())


def traced():
    return torch.jit.trace(pyconvx.conv2d, (images(), weights()), check_trace=False)


def seen_by_mode():
    with Recorder():
        return pyconvx.conv2d(images(), weights())


def faked():
    with FakeTensorMode():
        return pyconvx.conv2d(images(), weights())


def in_inference_mode():
    with torch.inference_mode():
        return pyconvx.conv2d(images(), weights(requires_grad=True))


def without_grad():
    with torch.no_grad():
        return pyconvx.conv2d(images(), weights(requires_grad=True))


KERNEL, TRAINING, DISPATCHED = ["kernel"], ["training", "kernel"], ["op", "kernel"]
SITUATIONS = {
    "plain": (lambda: pyconvx.conv2d(images(), weights()), KERNEL),
    "no_grad": (without_grad, KERNEL),
    "inference_mode": (in_inference_mode, KERNEL),
    "parameter without gradient": (lambda: pyconvx.nn.Conv2d(3, 4, 3).requires_grad_(False)(images()), KERNEL),
    "weight wants a gradient": (lambda: pyconvx.conv2d(images(), weights(requires_grad=True)), TRAINING),
    "image wants a gradient": (lambda: pyconvx.conv2d(images(requires_grad=True), weights()), TRAINING),
    "func.grad": (lambda: grad(lambda x: pyconvx.conv2d(x, weights()).sum())(images()), DISPATCHED),
    "func.vjp": (lambda: vjp(lambda x: pyconvx.conv2d(x, weights()), images()), DISPATCHED),
    "func.jvp": (lambda: jvp(lambda x: pyconvx.conv2d(x, weights()), (images(),), (images(),)), DISPATCHED),
    "vmap": (lambda: vmap(lambda x: pyconvx.conv2d(x, weights()))(images()[None]), DISPATCHED),
    "forward AD": (lambda: dual(images()), DISPATCHED),
    "dispatch mode": (seen_by_mode, DISPATCHED),
    "dispatch subclass": (lambda: pyconvx.conv2d(TwoTensor(images(), images()), weights()), DISPATCHED),
    "function subclass": (lambda: pyconvx.conv2d(images().as_subclass(Tagged), weights()), DISPATCHED),
    "jit.trace": (traced, DISPATCHED),
    "meta": (lambda: pyconvx.conv2d(images(device="meta"), weights(device="meta")), ["op"]),
    "fake": (faked, ["op"]),
}


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_call_takes_the_cheapest_road_that_is_right(situation, roads):
    call, expected = SITUATIONS[situation]
    call()
    # A transform sends the op through once per level, and a tensor that is two runs two kernels.
    assert list(dict.fromkeys(roads)) == expected


def test_second_call_of_a_signature_asks_no_backend(monkeypatch):
    pyconvx.conv2d(images(), weights())
    monkeypatch.setattr(backends, "choose", lambda *args: pytest.fail("asked again"))
    pyconvx.conv2d(images(), weights())


def test_choices_are_bounded(monkeypatch):
    monkeypatch.setattr(_operator, "_MAX_CHOICES", 3)
    with pyconvx.backend(None):
        for width in range(4, 12):
            pyconvx.conv2d(torch.ones(1, 3, 4, width), weights())
            assert 1 <= len(ops.conv2d._choices) <= 3


def test_only_the_wanted_gradients_are_computed():
    for wanted, expected in ({"input"}, {"conv2d_dgrad"}), ({"weight"}, {"conv2d_wgrad"}), ({"bias"}, set()):
        x, weight = images(requires_grad="input" in wanted), weights(requires_grad="weight" in wanted)
        bias = torch.ones(4, requires_grad="bias" in wanted)
        result = pyconvx.conv2d(x, weight, bias)
        with Recorder() as recorder:
            result.sum().backward()
        assert recorder.operations() == expected


class Tagged(torch.Tensor):
    """A subclass that only has a name."""


@both_layouts
@over(FIRST)
def test_dispatch_mode_sees_the_operation_and_its_backward(sample, layout):
    tensors = sample.tensors(layout, grad=True)
    with Recorder() as recorder:
        result = sample(*tensors)
        ran = "residual_add_mask" if sample.operation == "residual_add" else sample.operation  # as training has it
        assert recorder.operations() == {ran}
        differentiable_results(result)[0].sum().backward()
    assert recorder.operations() > {ran} or ran in ("relu_backward", "relu_backward_mask")  # their own gradients


@both_layouts
@over(FIRST)
def test_dispatch_subclass_passes_through_with_its_gradient(sample, layout):
    plain = sample.tensors(layout, grad=True)
    double = [
        TwoTensor(x.detach(), x.detach().clone()).requires_grad_(x.requires_grad) if x is not None else None
        for x in plain
    ]
    want, got = differentiable_results(sample(*plain))[0], differentiable_results(sample(*double))[0]
    assert type(got) is TwoTensor
    want.sum().backward()
    got.sum().backward()
    torch.testing.assert_close((got.a, got.b), (want, want))
    for one, two in zip(plain, double, strict=True):
        if one is not None and one.requires_grad:
            torch.testing.assert_close((two.grad.a, two.grad.b), (one.grad, one.grad))


@pytest.mark.parametrize("wants_gradient", [False, True])
@over(FIRST)
def test_function_subclass_keeps_its_class_in_every_call(sample, wants_gradient):
    tensors = sample.tensors(torch.contiguous_format)
    tagged = [tensors[0].as_subclass(Tagged).requires_grad_(wants_gradient), *tensors[1:]]
    want = results(sample(*tensors))
    for _ in range(2):
        got = results(sample(*tagged))
        assert all(type(result) is Tagged for result in got)
        torch.testing.assert_close([result.as_subclass(torch.Tensor) for result in got], want)


def test_parameters_and_buffers_are_plain_tensors():
    result = pyconvx.conv2d(torch.nn.Buffer(images()), torch.nn.Parameter(weights()))
    assert type(result) is torch.Tensor


@both_layouts
@over(FIRST)
def test_inference_mode_computes_the_same_and_keeps_no_graph(sample, layout):
    tensors = sample.tensors(layout, grad=True)
    with torch.inference_mode():
        got = results(sample(*tensors))
    assert all(result.is_inference() and not result.requires_grad for result in got)
    torch.testing.assert_close(got, [result.detach() for result in results(sample(*tensors))])


@over(FIRST)
def test_inference_tensors_can_be_operands(sample):
    with torch.inference_mode():
        tensors = sample.tensors(torch.contiguous_format)
    torch.testing.assert_close(results(sample(*tensors)), results(sample(*sample.tensors(torch.contiguous_format))))


@over(FIRST)
def test_no_grad_keeps_no_graph(sample):
    with torch.no_grad():
        got = results(sample(*sample.tensors(torch.contiguous_format, grad=True)))
    assert not any(result.requires_grad for result in got)


@over([sample for sample in FIRST if not sample.operation.startswith("nearest")])  # which keep nothing to be freed
def test_graph_can_be_kept_for_a_second_backward_and_is_freed_after_it(sample):
    loss = differentiable_results(sample(*sample.tensors(torch.contiguous_format, grad=True)))[0].sum()
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("changed", ["weight", "output"])
def test_what_backward_reads_must_not_be_changed_in_place(changed):
    weight = weights(requires_grad=True)
    result = pyconvx.conv2d(images(requires_grad=True), weight, activation="relu")
    with torch.no_grad():
        (weight if changed == "weight" else result).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_results_may_be_changed_in_place():
    result = pyconvx.conv2d(images(), weights(requires_grad=True))
    result.mul_(2).sum().backward()
    pooled, _ = pyconvx.max_pool2d(images(requires_grad=True), 2, return_indices=True)
    pooled.add_(1).sum().backward()


class Block(torch.nn.Module):
    """A network that passes through every operation."""

    def __init__(self):
        super().__init__()
        self.conv = pyconvx.nn.Conv2d(3, 4, 3, padding=1)
        self.pool = pyconvx.nn.MaxPool2d(2, return_indices=True, index_dtype=torch.uint8)
        self.unpool = pyconvx.nn.MaxUnpool2d(2)
        self.add = pyconvx.nn.ResidualAdd()
        self.up = pyconvx.nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, images):
        features = self.conv(images, activation="relu")
        return self.up(self.add(self.unpool(*self.pool(features)), features))


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block()


@pytest.fixture
def batch():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def gradients(block, run, batch):
    block.zero_grad()
    run(batch).square().sum().backward()
    return [parameter.grad.clone() for parameter in block.parameters()]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_recomputes_the_same_gradients(block, batch, reentrant):
    def run(x):
        return checkpoint(block, x.requires_grad_(), use_reentrant=reentrant)

    torch.testing.assert_close(gradients(block, run, batch), gradients(block, block, batch), rtol=0, atol=0)


def test_saved_tensors_can_be_kept_elsewhere(block, batch):
    want = gradients(block, block, batch)
    with torch.autograd.graph.save_on_cpu():
        torch.testing.assert_close(gradients(block, block, batch), want, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected")
def test_anomaly_mode_finds_the_operation_that_made_a_nan(batch):
    weight = weights(requires_grad=True)
    with torch.autograd.detect_anomaly(check_nan=True), pytest.raises(RuntimeError, match="Conv2dTrainingBackward"):
        pyconvx.conv2d(batch, weight).backward(torch.full((2, 4, 4, 4), torch.nan))


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_of_modules_and_tensors_are_called(block, batch):
    heard = []
    block.conv.register_forward_pre_hook(lambda module, args: heard.append("pre"))
    block.conv.register_forward_hook(lambda module, args, output: heard.append("forward"))
    block.conv.register_full_backward_hook(lambda module, grad_in, grad_out: heard.append("backward"))
    block.conv.weight.register_hook(lambda grad: heard.append("weight"))
    block.conv.weight.register_post_accumulate_grad_hook(lambda parameter: heard.append("accumulated"))
    gradients(block, block, batch)
    assert heard[:2] == ["pre", "forward"]
    assert sorted(heard[2:]) == ["accumulated", "backward", "weight"]


def test_hooks_can_change_what_flows(block, batch):
    want = gradients(block, block, batch)
    block.conv.weight.register_hook(lambda grad: grad * 2)
    torch.testing.assert_close(gradients(block, block, batch)[0], want[0] * 2)


LAYERS = {
    "Conv2d": lambda: pyconvx.nn.Conv2d(3, 4, 3, padding=(0, 1, 2, 1)),
    "ConvTranspose2d": lambda: pyconvx.nn.ConvTranspose2d(3, 4, 3, stride=2),
    "MaxPool2d": lambda: pyconvx.nn.MaxPool2d(2, return_indices=True, index_dtype=torch.uint8),
    "ConvBNReLU": lambda: pyconvx.nn.ConvBNReLU(3, 4, 3),
    "FactorizedConv2d": lambda: pyconvx.nn.FactorizedConv2d(3, 4, 3, activation="relu"),
    "Block": Block,
}


def through_torch_save(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "torch.save": through_torch_save,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_copies_of_layers_are_equal_and_apart(make, copied, batch):
    layer = make().eval()
    layer(batch)
    twin = copied(layer)
    assert type(twin) is type(layer) and repr(twin) == repr(layer)
    for got, want in zip(results(twin(batch)), results(layer(batch)), strict=True):
        assert got.equal(want)
    shared = {p.data_ptr() for p in layer.parameters()} & {p.data_ptr() for p in twin.parameters()}
    assert not shared


def test_results_can_be_copied_only_as_torchs(batch):
    """A result that has a graph refuses deepcopy, and one without is copied: as with torch's own functions."""
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(pyconvx.conv2d(batch, weights(requires_grad=True)))
    assert copy.deepcopy(pyconvx.conv2d(batch, weights())).shape == (2, 4, 4, 4)


def test_profiler_lists_the_calls(block, batch):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        gradients(block, block, batch)
    names = {event.key for event in profile.key_averages()}
    assert any("Conv2dTrainingBackward" in name for name in names)


def test_threads_get_the_results_of_one(block, batch):
    def work(seed):
        x = batch + seed
        weight = block.conv.weight.detach().clone().requires_grad_()
        features = pyconvx.max_pool2d(pyconvx.conv2d(x, weight, activation="relu"), 2)
        features.square().sum().backward()
        return features.detach(), weight.grad

    def one_thread():
        torch.set_num_threads(1)

    alone = [work(seed) for seed in range(8)]
    with pyconvx.backend(None), ThreadPoolExecutor(8, initializer=one_thread) as pool:  # without choices to start with
        for _ in range(20):
            for got, want in zip(pool.map(work, range(8)), alone, strict=True):
                assert all(one.equal(other) for one, other in zip(got, want, strict=True))


def test_threads_may_force_backends_while_others_run(batch):
    """Choices are emptied under the feet of running calls; every result is right and none fails."""
    want = pyconvx.conv2d(batch, weights())

    def work(index):
        for _ in range(50):
            if index == 0:
                with pyconvx.backend("aten"):
                    pass
            torch.testing.assert_close(pyconvx.conv2d(batch, weights()), want)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert backends.forced_name() is None


@over(FIRST)
def test_default_dtype_and_device_do_not_matter(sample):
    tensors = sample.tensors(torch.contiguous_format, torch.float32)
    want = results(sample(*tensors))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = results(sample(*tensors))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(one.device.type == "cpu" and one.equal(other) for one, other in zip(got, want, strict=True))
