"""Unpooling and residual adds by public calls on the backend ``emulator``, with their gradients."""

import types

import pytest
import torch
import torch.nn.functional as F
from checking import DTYPES, assert_same_bits, in_layout, integers, is_in, normal, opinfo

import pyconvx
from pyconvx import backends, ops
from pyconvx.backends._bad_index import BadIndices

EMULATOR = next(backend for backend in backends.registered() if backend.name == "emulator")

pytestmark = pytest.mark.skipif(EMULATOR.unavailable() is not None, reason=str(EMULATOR.unavailable()))


def on(backend, function, *tensors):
    """The results of a function and the gradients of those tensors that have one, on a backend."""
    tensors = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
    with pyconvx.backend(backend):
        output = function(*tensors)
        wanted = [tensor for tensor in tensors if tensor.requires_grad]
        grad = torch.arange(output.numel(), dtype=torch.float32).remainder(251).view(output.shape).to(output)
        return [output.detach(), *torch.autograd.grad(output, wanted, grad)]


def assert_agree(function, *tensors):
    for ours, cpus in zip(on("emulator", function, *tensors), on("cpu", function, *tensors), strict=True):
        assert_same_bits(ours, cpus)
        assert ours.stride() == cpus.stride()


def unpool_to(indices, *args, **kwargs):
    return lambda x: pyconvx.max_unpool2d(x, indices, *args, **kwargs)


def distinct_samples():
    """OpInfo's geometries, each once, with planes of at most a few hundred elements."""
    seen = set()
    for sample in opinfo("nn.functional.max_unpool2d").sample_inputs("cpu", torch.float32):
        indices, *args = sample.args
        key = str((sample.input.shape, args, sorted(sample.kwargs.items(), key=str)))
        if key not in seen:
            seen.add(key)
            yield sample.input, indices, args, sample.kwargs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_own_samples(dtype):
    count = 0
    for x, indices, args, kwargs in distinct_samples():
        x, indices = x.detach()[..., :3, :, :], indices[..., :3, :, :]
        if count % 4 and dtype == torch.bfloat16:  # a part of them
            count += 1
            continue
        x = x.to(dtype).requires_grad_()
        assert_agree(unpool_to(indices, *args, **kwargs), x)
        count += 1
    assert count >= 20


@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("window", [(2, 2), (3, 2), (3, 1)], ids=str)
def test_unpooling_agrees_with_the_cpu(rng, layout, window, index_dtype):
    image = normal(rng, (2, 16, 9, 8), torch.float32, layout)
    values, indices = pyconvx.max_pool2d(image, *window, return_indices=True, index_dtype=index_dtype)
    values.requires_grad_()
    assert_agree(lambda x: pyconvx.max_unpool2d(x, indices, *window, output_size=(9, 8)), values)


@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int64], ids=str)
def test_views_are_taken_as_they_are(rng, layout, index_dtype):
    batch = in_layout(torch.randint(-9, 9, (3, 7, 4, 5), generator=rng).float(), layout)
    indices = in_layout(torch.randint(0, 4, (3, 7, 4, 5), generator=rng).to(index_dtype), layout)
    assert_agree(lambda x: pyconvx.max_unpool2d(x[1:], indices[1:], 2), batch.requires_grad_())


def test_a_bad_index_is_refused_in_the_cpus_sentence(layout):
    values = in_layout(torch.ones(2, 3, 4, 4), layout)
    indices = in_layout(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), layout)
    indices[1, 2, 3, 0], indices[1, 1, 3, 0] = 4, 200
    sentences = []
    for backend in ("cpu", "emulator"):
        for operation, tensor in ((ops.max_unpool2d, values), (ops.max_unpool2d_backward, torch.ones(2, 3, 8, 8))):
            tensor = in_layout(tensor, layout)
            with pyconvx.backend(backend), pytest.raises(pyconvx.InvalidCall) as raised:
                operation(tensor, indices, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (8, 8))
            sentences.append(str(raised.value))
    assert sentences[:2] == sentences[2:]
    first = (200, [1, 1, 3, 0])
    assert f"max_unpool2d: index {first[0]} at [n, c, p, q] = {first[1]} lies outside the 8 x 8" in sentences[0]


# A GPU's flags, which are read later.


class Flags(BadIndices):
    """Those of a device that is done when the test says so."""

    def __init__(self):
        super().__init__()
        self.done = False

    def event(self, device):
        return types.SimpleNamespace(query=lambda: self.done)

    def capturing(self):
        return False


class Far:
    """A flag that is not on the CPU."""

    device = torch.device("cuda", 0)

    def __init__(self, place):
        self.value, self.read = ~place, 0

    def item(self):
        self.read += 1
        return self.value


def problem():
    return pyconvx._C.Unpool2dProblem(n=2, c=3, p=4, q=4, h=8, w=8, r=2, s=2, stride=(2, 2))


@pytest.mark.parametrize("wait", [False, True])
def test_a_flag_on_a_gpu_is_read_when_its_kernels_are_done(wait):
    flags, good, bad = Flags(), Far(-1), Far((1 * 3 + 2) * 16 + 3 * 4 + 1)
    flags.watch("max_unpool2d", problem(), None, good)
    flags.watch("max_unpool2d", problem(), None, bad)
    flags.raise_unread()
    assert good.read == bad.read == 0
    flags.done = not wait
    sentence = r"an index of an earlier call \[max_unpool2d n2 .*\] lies outside the output plane, at \[n, c, p, q\] = "
    with pytest.raises(pyconvx.InvalidCall, match=sentence + r"\[1, 2, 3, 1\]; set PYCONVX_CHECK=1"):
        flags.raise_unread(wait)
    flags.raise_unread(wait)
    assert good.read == bad.read == 1


def test_with_pyconvx_check_each_call_waits(monkeypatch):
    monkeypatch.setenv("PYCONVX_CHECK", "1")
    indices = torch.full((2, 3, 4, 4), 9, dtype=torch.int64)
    with pytest.raises(pyconvx.InvalidCall, match=r"max_unpool2d: index 9 at \[n, c, p, q\] = \[0, 1, 0, 2\] lies"):
        Flags().watch("max_unpool2d", problem(), indices, Far(16 + 2))


def test_checking_all_flags_needs_no_gpu():
    backends.check_indices()


# Residual adds.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_residual_adds_agree_with_the_cpu(rng, dtype, activation, layout):
    x, residual = (integers(rng, (2, 9, 5, 7), dtype, layout).requires_grad_() for _ in range(2))
    assert_agree(lambda x, residual: pyconvx.residual_add(x, residual, activation), x, residual)


def test_operands_in_other_layouts_and_of_odd_places(rng):
    x = integers(rng, (4, 9, 5, 7), layout=torch.channels_last).requires_grad_()
    residual = integers(rng, (4, 9, 7, 5)).transpose(2, 3).requires_grad_()
    assert_agree(lambda x, residual: pyconvx.add_relu(x[1:], residual[:3]), x, residual)
    with pyconvx.backend("emulator"):
        assert is_in(torch.channels_last, pyconvx.add_relu(x.detach(), residual.detach()))
        assert pyconvx.add_relu(torch.empty(0, 3), torch.empty(0, 3)).shape == (0, 3)
        assert pyconvx.add_relu(torch.tensor(-2.0), torch.tensor(3.0)) == 1


def test_training_on_the_emulator_keeps_a_mask(rng):
    x, residual = (normal(rng, (4, 33)).requires_grad_() for _ in range(2))
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    )
    with pyconvx.backend("emulator"), hooks:
        output = pyconvx.add_relu(x, residual)
        (grad,) = torch.autograd.grad(output.sum(), x)
    assert [tensor.shape for tensor in kept] == [(17,)]
    assert_same_bits(grad, torch.where(x + residual <= 0, 0.0, 1.0))


def test_a_network_unpools_on_the_emulator(rng):
    """Pool, unpool and add, forward and backward, of torch's numbers."""
    x = integers(rng, (1, 16, 6, 8), layout=torch.channels_last).requires_grad_()

    def ours(x):
        values, indices = pyconvx.max_pool2d(x, 2, return_indices=True, index_dtype=torch.uint8)
        return pyconvx.add_relu(pyconvx.max_unpool2d(values, indices, 2), x)

    (grad,) = torch.autograd.grad(ours(x).sum(), x)
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    (torchs,) = torch.autograd.grad(torch.relu(F.max_unpool2d(values, indices, 2) + x).sum(), x)
    assert_same_bits(grad, torchs)
