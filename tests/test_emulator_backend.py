"""The backend ``emulator``: public calls on CPU tensors, run by the CUDA kernels' PTX."""

import os

import pytest
import torch
import torch.nn.functional as F
from checking import LAYOUTS, assert_same_values, opinfo

import pyconvx
from pyconvx import backends

EMULATOR = next(backend for backend in backends.registered() if backend.name == "emulator")

pytestmark = pytest.mark.skipif(EMULATOR.unavailable() is not None, reason=str(EMULATOR.unavailable()))

CALLS = {
    "3x3": dict(c=16, k=24, r=3, padding=1),
    "3x3 stride 2": dict(c=8, k=16, r=3, stride=2, padding=1),
    "1x1": dict(c=24, k=40, r=1),
    "stem": dict(c=3, k=16, r=7, stride=2, padding=3),
    "depthwise": dict(c=16, k=16, r=3, padding=1, groups=16),
    "groups": dict(c=16, k=8, r=3, groups=2),
    "four sides": dict(c=8, k=8, r=3, padding=(0, 1, 2, 0)),
    "dilated, odd channels": dict(c=5, k=7, r=3, padding=2, dilation=2),
}


@pytest.fixture(autouse=True)
def drawn_orders(monkeypatch):
    """Warps and blocks run as in the kernels' own tests: in an order that depends on the launch."""
    from kernels.harness import run

    monkeypatch.setattr("pyconvx.backends.emulator.run", run)


def integers(rng, *size):
    return torch.randint(-3, 4, size, generator=rng).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("call", CALLS)
def test_convolution_is_exact_and_keeps_its_layout(call, layout, dtype, rng):
    geometry = dict(CALLS[call])
    c, k, r = (geometry.pop(size) for size in "ckr")
    x = integers(rng, 2, c, 10, 9).to(memory_format=layout)
    w = integers(rng, k, c // geometry.get("groups", 1), r, r).to(memory_format=layout)
    b = integers(rng, k)
    plain = pyconvx.conv2d(x, w, b, **geometry)
    residual = integers(rng, *plain.shape).to(memory_format=layout)
    expected = torch.relu(plain + residual)
    with torch.no_grad(), pyconvx.backend("emulator"):
        arguments = (t.to(dtype) for t in (x, w, b))
        result = pyconvx.conv2d(*arguments, **geometry, activation="relu", residual=residual.to(dtype))
    assert torch.equal(result.double(), expected)
    assert result.stride() == expected.stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("first", [0, 1, 2, 4, 8])
def test_operands_may_begin_anywhere_in_their_storage(first, layout, dtype, rng):
    """Part of a batch, and images behind ``first`` elements of something else: less alignment than a new tensor has."""
    batch = torch.zeros(first + 3 * 16 * 30, dtype=dtype)[first:]
    shape = (3, 5, 6, 16) if layout == torch.channels_last else (3, 16, 5, 6)
    x = batch.view(shape).permute(0, 3, 1, 2) if layout == torch.channels_last else batch.view(shape)
    x.copy_(integers(rng, 3, 16, 5, 6))
    w = integers(rng, 8, 16, 3, 3).to(memory_format=layout)
    with torch.no_grad(), pyconvx.backend("emulator"):
        result = pyconvx.conv2d(x[1:], w.to(dtype))
    assert torch.equal(result.double(), pyconvx.conv2d(x.double(), w)[1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_torchs_own_samples(dtype, rng):
    """The geometry of OpInfo's, filled with integers."""
    count = 0
    for sample in opinfo("nn.functional.conv2d").sample_inputs("cpu", torch.float32):
        tensors = [arg if arg is None else integers(rng, *arg.shape) for arg in (sample.input, *sample.args)]
        expected = F.conv2d(*tensors, **sample.kwargs)
        with torch.no_grad(), pyconvx.backend("emulator"):
            result = pyconvx.conv2d(*(t if t is None else t.to(dtype) for t in tensors), **sample.kwargs)
        assert torch.equal(result, expected.to(dtype)), sample
        count += 1
    assert count >= 30


def test_empty_batch_launches_nothing():
    with torch.no_grad(), pyconvx.backend("emulator"):
        assert pyconvx.conv2d(torch.empty(0, 4, 8, 8), torch.ones(2, 4, 3, 3)).shape == (0, 2, 6, 6)


def test_operation_without_a_kernel_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.delattr("pyconvx._C.plan_max_pool2d")
    with pyconvx.backend("emulator"), pytest.raises(pyconvx.BackendRefusal, match="no CUDA kernel of max_pool2d yet"):
        pyconvx.max_pool2d(torch.ones(1, 1, 4, 4), 2)


def test_nothing_runs_on_it_unless_it_is_asked_for():
    assert EMULATOR.by_request
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(EMULATOR), "conv2d", lambda *_: pytest.fail("the emulator ran"))
        pyconvx.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3))


# Max pooling.


def test_pooling_of_torchs_samples():
    """Distinct problems among OpInfo's samples, some of them: values, indices and gradients are csrc/cpu's."""
    problems = {}
    for sample in opinfo("nn.functional.max_pool2d").sample_inputs("cpu", torch.float32):
        problems.setdefault((tuple(sample.input.shape), str(sample.args), str(sample.kwargs)), sample)
    chosen = list(problems.values())[:: 1 if os.environ.get("PYCONVX_SLOW") else 40]
    assert len(chosen) > 5
    for i, sample in enumerate(chosen):
        dtype = (torch.float32, torch.bfloat16)[i % 2]
        results = []
        for backend in ("cpu", "emulator"):
            x = sample.input.detach().to(dtype).requires_grad_()
            with pyconvx.backend(backend):
                result = pyconvx.max_pool2d(x, *sample.args, **sample.kwargs)
                output, *indices = result if isinstance(result, tuple) else (result,)
                grad = torch.arange(output.numel()).remainder(8).view(output.shape).to(dtype)
                results.append([output.detach(), *indices, *torch.autograd.grad(output, x, grad)])
        for expected, actual in zip(*results, strict=True):
            assert_same_values(actual, expected)
            assert actual.stride() == expected.stride(), sample


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_derivatives_of_pooling(layout, rng):
    """The first, the second and the forward derivative."""
    x = torch.randn(1, 2, 4, 3, generator=rng, dtype=torch.float64).to(memory_format=layout).requires_grad_()

    def pool(x):
        return pyconvx.max_pool2d(x, 3, 2, 1, return_indices=True, index_dtype=torch.uint8)[0]

    with pyconvx.backend("emulator"):
        assert torch.autograd.gradcheck(pool, x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(pool, x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_gradient_of_a_pooling_with_its_relu_is_torchs(layout, rng):
    """In one operation; a NaN that has won passes the gradient on, and a window of nothing above 0 stops it."""
    x = torch.randint(-3, 3, (2, 16, 9, 8), generator=rng).float().to(memory_format=layout)
    x[0, 0, 2, 3], x[1, 5], x[1, 6] = torch.nan, torch.nan, -1
    gradients = []
    grad = torch.randint(-9, 9, (2, 16, 5, 4), generator=rng).float()
    for pool in (
        lambda x: pyconvx.max_pool2d(x, 3, 2, 1, activation="relu"),
        lambda x: torch.nn.functional.max_pool2d(torch.relu(x), 3, 2, 1),
    ):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        with pyconvx.backend("emulator"):
            pool(leaf).backward(grad)
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    assert not gradients[0][1, 6].any() and gradients[0][1, 5].any()


@pytest.mark.parametrize("index", [False, True])
def test_relu_is_fused_to_a_pooling(index, rng):
    x = torch.randn(2, 16, 9, 8, generator=rng).to(memory_format=torch.channels_last)
    with torch.no_grad(), pyconvx.backend("emulator"):
        fused = pyconvx.max_pool2d(x, 3, 2, 1, return_indices=index, activation="relu")
    separate = pyconvx.max_pool2d(torch.relu(x), 3, 2, 1, return_indices=index)
    for ours, expected in zip(*((r if index else (r,)) for r in (fused, separate)), strict=True):
        assert_same_values(ours, expected)
