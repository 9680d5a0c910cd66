"""Backends: their order, forcing one, the sentences with which they refuse, and what is remembered of a choice."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from checking import LAYOUTS, assert_same_values, integers
from torch._subclasses import FakeTensorMode

import pyconvx
from pyconvx import BackendRefusal, InvalidCall, backends, ops
from pyconvx.backends import Backend
from pyconvx.backends.aten import Aten
from pyconvx.ops._operator import Operator


@pytest.fixture
def heard():
    """What operations chose while the test ran, as (operation, backend, refusals)."""
    calls = []

    def observer(operation, choice, args):
        calls.append((operation, choice.backend.name, choice.refusals))
        return choice.run(*args)

    Operator.observer = observer
    yield calls
    Operator.observer = None


@pytest.fixture
def registry():
    """The registry, as it was before once the test ends."""
    before = dict(backends._registry)
    yield backends._registry
    backends._registry.clear()
    backends._registry.update(before)
    backends.force(None)


class Toy(Backend):
    """A backend that pools by taking the first element of every window, and runs nothing else."""

    name = "toy"
    summary = "for tests"
    devices = frozenset({"cpu"})
    missing = None

    def unavailable(self):
        return self.missing

    def can_run(self, operation, problem, device):
        if operation != "max_pool2d":
            return "a toy runs max_pool2d only"
        return None if problem.r == problem.s else f"a toy takes square windows only, not {problem.r} x {problem.s}"

    def max_pool2d(self, problem, input, kernel_size, stride, padding, dilation, ceil_mode, index_dtype, activation):
        return input[:, :, :: stride[0], :: stride[1]].contiguous(), input.new_empty(0, dtype=torch.uint8)


def put_first(registry, backend):
    others = dict(registry)
    registry.clear()
    registry[backend.name] = backend
    registry.update(others)
    backends.force(None)


def all_operations(layout=torch.contiguous_format, dtype=torch.float32):
    """Call every function once, forward and backward, and return the results."""
    rng = torch.Generator().manual_seed(5)
    x = integers(rng, (2, 4, 6, 7), dtype, layout).requires_grad_()
    weight = integers(rng, (4, 4, 3, 3), dtype).requires_grad_()
    output = pyconvx.conv2d(x, weight, padding=1, activation="relu", residual=x)
    wide = pyconvx.conv_transpose2d(output, weight, padding=1)
    pooled, indices = pyconvx.max_pool2d(wide, 2, return_indices=True, index_dtype=torch.uint8)
    unpooled = pyconvx.max_unpool2d(pooled, indices, 2, output_size=(6, 7))
    result = pyconvx.add_relu(unpooled, wide)
    grads = torch.autograd.grad(result, (x, weight), torch.ones_like(result))
    return [result.detach(), *grads]


# Order.


def test_backends_are_asked_in_a_fixed_order():
    names = [backend.name for backend in backends.registered()]
    assert names[0] == "cpu"
    assert names[-1] == "aten"


def test_every_backend_tells_what_it_is():
    for backend in backends.registered():
        assert backend.summary
        assert backend.unavailable() is None or backend.unavailable().strip()
        assert all(isinstance(text, str) for pair in backend.details().items() for text in pair)


def test_cpu_tensors_go_to_the_cpu_backend(heard):
    all_operations()
    assert {operation for operation, _, _ in heard} >= {
        "conv2d", "conv2d_dgrad", "conv2d_wgrad", "conv_transpose2d", "max_pool2d", "max_pool2d_backward",
        "max_unpool2d", "max_unpool2d_backward", "residual_add_mask", "relu_backward_mask",
        "relu_backward",
    }  # fmt: skip
    assert {(backend, *refusals) for _, backend, refusals in heard} == {("cpu",)}


def test_float64_convolutions_go_to_torch_with_the_reason(heard):
    all_operations(dtype=torch.float64)
    convolutions = [call for call in heard if call[0].startswith("conv")]
    assert convolutions
    for _, backend, refusals in convolutions:
        assert backend == "aten"
        assert refusals == {"cpu": "oneDNN has no float64 convolution"}
    assert {backend for operation, backend, _ in heard if not operation.startswith("conv")} == {"cpu"}


def test_there_is_a_backend_for_unequal_padding(heard):
    x = torch.zeros(1, 1, 4, 4)
    pyconvx.max_pool2d(x, 2, padding=(0, 1, 1, 0))
    pyconvx.conv2d(x, torch.zeros(1, 1, 2, 2), padding=(0, 1, 1, 0))
    assert [(operation, backend) for operation, backend, _ in heard] == [("max_pool2d", "cpu"), ("conv2d", "cpu")]


# Forcing.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forced_aten_runs_everything_and_agrees(heard, dtype, layout):
    expected = all_operations(layout, dtype)
    heard.clear()
    with pyconvx.backend("aten"):
        results = all_operations(layout, dtype)
    assert {backend for _, backend, _ in heard} == {"aten"}
    for result, value in zip(results, expected, strict=True):
        assert_same_values(result, value)
        assert result.stride() == value.stride()


def test_blocks_nest_and_end():
    assert backends.forced_name() is None
    with pyconvx.backend("aten"):
        assert backends.forced_name() == "aten"
        with pyconvx.backend("cpu"):
            assert backends.forced_name() == "cpu"
            with pyconvx.backend(None):
                assert backends.forced_name() is None
            assert backends.forced_name() == "cpu"
        assert backends.forced_name() == "aten"
    assert backends.forced_name() is None


def test_an_exception_ends_a_block():
    with pytest.raises(KeyError), pyconvx.backend("aten"):
        raise KeyError
    assert backends.forced_name() is None


def test_an_unknown_name_is_refused_and_changes_nothing():
    with pyconvx.backend("aten"):
        with pytest.raises(InvalidCall, match=r"^backend: there is no backend 'gpu'; there are 'cpu', .*'aten'$"):
            pyconvx.backend("gpu").__enter__()
        assert backends.forced_name() == "aten"


def test_a_forced_backend_that_cannot_is_an_error_with_its_sentence():
    x, weight = torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    with pyconvx.backend("cpu"), pytest.raises(BackendRefusal) as refusal:
        pyconvx.conv2d(x, weight)
    assert str(refusal.value) == (
        "conv2d: backend 'cpu' is forced and cannot run [conv2d fprop n1 c1 h4 w4 k1 r3 s3 stride 1x1 pad 0,0,0,0 "
        "dilation 1x1 groups 1 float64 nchw]: cpu: oneDNN has no float64 convolution. Lift it with "
        "pyconvx.backend(None), or unset PYCONVX_BACKEND"
    )
    assert pyconvx.conv2d(x, weight).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"kernel_size": 2, "padding": (0, 1, 1, 0)},
            r"torch pools with the same padding on opposite sides only, not \[0, 1, 1, 0\]",
        ),
        (
            {"kernel_size": (2, 3), "stride": 1, "padding": 2, "dilation": 3},
            r"torch pads at most half of a window's 2 x 3 elements, whatever their dilation, not \[2, 2\]",
        ),
    ],
    ids=["unequal", "beyond half"],
)
def test_torch_cannot_pool_with_every_padding(options, reason):
    x = torch.zeros(1, 1, 6, 6)
    with pyconvx.backend("aten"), pytest.raises(BackendRefusal, match=f"aten: {reason}. Lift it with"):
        pyconvx.max_pool2d(x, **options)
    assert pyconvx.max_pool2d(x, **options).dim() == 4


def test_a_backend_that_is_forced_is_so_for_the_backward_pass_too(heard):
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    with pyconvx.backend("aten"):
        pyconvx.max_pool2d(x, 2).sum().backward()
    assert [(operation, backend) for operation, backend, _ in heard] == [
        ("max_pool2d", "aten"),
        ("max_pool2d_backward", "aten"),
    ]


def test_a_gradient_of_another_backend_is_taken(layout):
    x = torch.arange(42.0).view(1, 1, 6, 7).contiguous(memory_format=layout).requires_grad_()
    with pyconvx.backend("aten"):
        output = pyconvx.max_pool2d(x, 3, 2, 1)
    with pyconvx.backend("cpu"):
        (grad,) = torch.autograd.grad(output.sum(), x)
    assert_same_values(grad, torch.autograd.grad(torch.max_pool2d(x, 3, 2, 1).sum(), x)[0])


def test_threads_see_the_backend_that_is_forced():
    seen = []
    with pyconvx.backend("aten"):
        thread = threading.Thread(target=lambda: seen.append(backends.forced_name()))
        thread.start()
        thread.join()
    assert seen == ["aten"]


# By the environment.


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_environment_forces_a_backend_and_an_impossible_call_is_an_error():
    program = (
        "import torch, pyconvx\n"
        "from pyconvx import backends\n"
        "print(backends.forced_name())\n"
        "print(pyconvx.max_pool2d(torch.ones(1, 1, 2, 2), 2).item())\n"
        "try:\n"
        "    pyconvx.max_pool2d(torch.ones(1, 1, 2, 2), 2, padding=(1, 0, 0, 0))\n"
        "except pyconvx.BackendRefusal as refusal:\n"
        "    print(refusal)\n"
        "with pyconvx.backend(None):\n"
        "    print(pyconvx.max_pool2d(torch.ones(1, 1, 2, 2), 2, padding=(1, 0, 0, 0)).item())\n"
        "print(backends.forced_name())\n"
    )
    ran = run(program, PYCONVX_BACKEND="aten")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "aten",
        "1.0",
        "max_pool2d: backend 'aten' is forced and cannot run [max_pool2d n1 c1 h2 w2 r2 s2 stride 2x2 pad 1,0,0,0 "
        "dilation 1x1 float32 nchw]: aten: torch pools with the same padding on opposite sides only, not [1, 0, 0, 0]. "
        "Lift it with pyconvx.backend(None), or unset PYCONVX_BACKEND",
        "1.0",
        "aten",
    ]


def test_an_unknown_backend_in_the_environment_is_an_error_at_import():
    ran = run("import pyconvx", PYCONVX_BACKEND="gpu")
    assert ran.returncode == 1
    assert "InvalidCall: backend: there is no backend 'gpu'; there are 'cpu'" in ran.stderr


# Another backend.


def test_a_new_backend_comes_last(registry, heard):
    backends.register(Toy())
    assert backends.registered()[-1].name == "toy"
    pyconvx.max_pool2d(torch.zeros(1, 1, 4, 4), 2)
    assert heard[0][1:] == ("cpu", {})


def test_a_backend_that_is_first_takes_what_it_can_and_leaves_the_rest(registry, heard):
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert pyconvx.max_pool2d(x, 2).flatten().tolist() == [5, 7, 13, 15]
    put_first(registry, Toy())
    assert pyconvx.max_pool2d(x, 2).flatten().tolist() == [0, 2, 8, 10]
    assert pyconvx.max_pool2d(x, (2, 1)).shape == (1, 1, 2, 4)
    pyconvx.add_relu(x, x)
    assert [call[1:] for call in heard[1:]] == [
        ("toy", {}),
        ("cpu", {"toy": "a toy takes square windows only, not 2 x 1"}),
        ("cpu", {"toy": "a toy runs max_pool2d only"}),
    ]


def test_it_is_gone_when_it_is_removed(registry):
    x = torch.arange(16.0).view(1, 1, 4, 4)
    put_first(registry, Toy())
    assert pyconvx.max_pool2d(x, 2)[0, 0, 0, 0] == 0
    del registry["toy"]
    backends.force(None)
    assert pyconvx.max_pool2d(x, 2)[0, 0, 0, 0] == 5


def test_a_backend_that_is_not_available_is_passed_over_with_the_reason(registry, heard):
    toy = Toy()
    toy.missing = "there is no toy in the box"
    put_first(registry, toy)
    pyconvx.max_pool2d(torch.zeros(1, 1, 4, 4), 2)
    assert heard[0][1:] == ("cpu", {"toy": "there is no toy in the box"})
    with pyconvx.backend("toy"), pytest.raises(BackendRefusal, match="toy: there is no toy in the box"):
        pyconvx.max_pool2d(torch.zeros(1, 1, 4, 4), 2)


def test_a_backend_of_another_device_is_passed_over_with_the_reason(registry, heard):
    toy = Toy()
    toy.devices = frozenset({"cuda", "xpu"})
    put_first(registry, toy)
    pyconvx.max_pool2d(torch.zeros(1, 1, 4, 4), 2)
    assert heard[0][1:] == ("cpu", {"toy": "runs on cuda and xpu tensors, these are on cpu"})


def test_where_no_backend_can_all_reasons_are_told(registry):
    aten = registry["aten"]
    registry.clear()
    registry.update({"toy": Toy(), "aten": aten})
    backends.force(None)
    with pytest.raises(BackendRefusal) as refusal:
        pyconvx.max_pool2d(torch.zeros(1, 1, 4, 4), (2, 1), padding=(1, 0, 0, 0))
    assert str(refusal.value) == (
        "max_pool2d: no backend can run [max_pool2d n1 c1 h4 w4 r2 s1 stride 2x1 pad 1,0,0,0 dilation 1x1 float32 "
        "nchw]: toy: a toy takes square windows only, not 2 x 1; aten: torch pools with the same padding on opposite "
        "sides only, not [1, 0, 0, 0]"
    )


# What operations remember.


def test_a_choice_is_asked_for_once(monkeypatch):
    asked = []
    can_run = Aten.can_run
    monkeypatch.setattr(Aten, "can_run", lambda self, *args: asked.append(args) or can_run(self, *args))
    x = torch.zeros(1, 1, 5, 5)
    with pyconvx.backend("aten"):
        for _ in range(3):
            pyconvx.max_pool2d(x, 2)
        assert len(asked) == 1
        pyconvx.max_pool2d(x, 3)
        pyconvx.max_pool2d(x.contiguous(memory_format=torch.channels_last).double(), 2)
        assert len(asked) == 3


def test_forcing_empties_what_was_chosen():
    pyconvx.max_pool2d(torch.zeros(1, 1, 5, 5), 2)
    assert ops.max_pool2d._choices
    with pyconvx.backend("aten"):
        assert not any(backends.choices)
        pyconvx.max_pool2d(torch.zeros(1, 1, 5, 5), 2)
        assert {choice.backend.name for choice in ops.max_pool2d._choices.values()} == {"aten"}
    assert not any(backends.choices)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("pyconvx.ops._operator._MAX_CHOICES", 4)
    backends.force(None)
    for size in range(2, 20):
        pyconvx.max_pool2d(torch.zeros(1, 1, size, size), 2)
        assert len(ops.max_pool2d._choices) <= 4


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.double(),
        lambda x: x.bfloat16(),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x[:, :, :, 1:],
        lambda x: x[:1],
        lambda x: x.transpose(2, 3),
        lambda x: x.expand(2, -1, -1, -1)[:1],
    ],
)
def test_a_choice_is_not_taken_for_another_signature(change):
    """Each variant of an input right behind the plain one, whose choice is remembered."""
    x = torch.arange(60.0).view(1, 3, 4, 5)
    pyconvx.max_pool2d(x, 2, 1)
    result, expected = pyconvx.max_pool2d(change(x), 2, 1), torch.max_pool2d(change(x), 2, 1)
    assert_same_values(result, expected)
    assert result.stride() == expected.stride()


def test_an_observer_hears_remembered_choices_too(heard):
    x = torch.zeros(1, 1, 4, 4)
    for _ in range(3):
        pyconvx.max_pool2d(x, 2)
    assert [call[0] for call in heard] == ["max_pool2d"] * 3


# CUDA tensors that need no GPU.


def every_operation(make):
    """Call every registered operation once, without gradients, on tensors from ``make(*shape)``; return the results."""
    x, weight, image = make(2, 4, 6, 7), make(4, 4, 3, 3), make(2, 4, 8, 9)
    convolution = (1, 1), (1, 1, 1, 1), (1, 1), 1
    output = pyconvx.conv2d(x, weight, padding=1, activation="relu", residual=x)
    results = [
        output,
        ops.conv2d_dgrad(output, weight, (6, 7), *convolution),
        *ops.conv2d_wgrad(output, x, (3, 3), *convolution, True),
        pyconvx.conv_transpose2d(output, weight, stride=2, padding=(0, 1, 1, 0)),
        pyconvx.max_pool2d(image, 3, 2, ceil_mode=True),
        pyconvx.residual_add(x, output),
        pyconvx.add_relu(x, output),
        ops.relu_backward(x, output),
    ]
    for index_dtype in (torch.uint8, torch.int32, torch.int64):
        pooled, indices = pyconvx.max_pool2d(image, 2, return_indices=True, index_dtype=index_dtype)
        pooling = (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)
        results += [
            pooled,
            indices,
            pyconvx.max_unpool2d(pooled, indices, 2, output_size=(8, 9)),
            ops.max_pool2d_backward(pooled, indices, (8, 9), *pooling, False),
            ops.max_pool2d_gather(image, indices, *pooling, False),
            ops.max_unpool2d_backward(image, indices, *pooling, (8, 9)),
        ]
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_fake_cuda_tensors_have_the_shapes_and_strides_of_cpu_tensors(rng, dtype, layout):
    real = every_operation(lambda *shape: integers(rng, shape, dtype, layout))
    with FakeTensorMode():
        fake = every_operation(lambda *shape: torch.empty(shape, dtype=dtype, device="cuda", memory_format=layout))
    for one, other in zip(fake, real, strict=True):
        assert one.device.type == "cuda"
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())


def test_fake_cuda_tensors_are_refused_what_real_ones_are():
    with FakeTensorMode():
        x = torch.empty((2, 4, 6, 7), device="cuda")
        with pytest.raises(InvalidCall, match="weight is on cpu but the input is on cuda:0"):
            pyconvx.conv2d(x, torch.empty((4, 4, 3, 3)))
        with pytest.raises(InvalidCall, match="stride must be at least 1"):
            pyconvx.max_pool2d(x, 2, 0)


@pytest.mark.parametrize("backend", ["cpu", "aten"])
def test_meta_tensors_are_never_run(heard, backend):
    x = torch.empty((2, 4, 6, 7), device="meta")
    with pyconvx.backend(backend):
        output, indices = pyconvx.max_pool2d(x, 2, return_indices=True, index_dtype=torch.uint8)
        unpooled = pyconvx.max_unpool2d(output, indices, 2)
    assert (output.device.type, unpooled.shape) == ("meta", (2, 4, 6, 6))
    assert heard == []


# Determinism is never refused.


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic_algorithms_are_what_there_is(backend, layout, dtype):
    with pyconvx.backend(backend):
        expected = all_operations(layout, dtype)
        torch.use_deterministic_algorithms(True)
        try:
            results = all_operations(layout, dtype)
        finally:
            torch.use_deterministic_algorithms(False)
    for result, value in zip(results, expected, strict=True):
        assert torch.equal(result, value)
