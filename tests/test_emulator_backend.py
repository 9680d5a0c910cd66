"""The backend ``emulator``: public calls on CPU tensors, run by the CUDA kernels' PTX."""

import pytest
import torch
from checking import LAYOUTS

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
