"""Every public operation on every device and backend there is, forward and backward, against float64 on the CPU.

The same test runs on the CPU, so that it is known to be right where there is no GPU; `make gpu-check` runs it on one.
"""

import pytest
import torch
from checking import LAYOUTS

import pyconvx
from pyconvx import backends

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_GPU = [pytest.mark.gpu, needs_gpu]
# A device, and the backend that is forced there.
PLACES = [
    ("cpu", None),
    ("cpu", "emulator"),
    *(pytest.param("cuda", name, marks=ON_GPU) for name in (None, "cuda", "cupy")),
]


def unpooled(x):
    pooled, where = pyconvx.max_pool2d(x, 3, 2, 1, return_indices=True, index_dtype=torch.uint8)
    return pyconvx.max_unpool2d(pooled, where, 3, 2, 1, output_size=x.shape[-2:])


CALLS = {
    "conv2d": lambda x, w: pyconvx.conv2d(x, w, stride=2, padding=(1, 0, 2, 1), activation="relu"),
    "conv_transpose2d": lambda x, w: pyconvx.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
    "max_pool2d": lambda x, w: pyconvx.max_pool2d(x, 3, 2, 1),
    "max_unpool2d": lambda x, w: unpooled(x),
    "add_relu": lambda x, w: pyconvx.add_relu(x, 2 * x - 1),
}


@pytest.mark.parametrize("device, name", PLACES)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("call", CALLS)
def test_result_and_gradients_are_exact_on_integers(call, layout, device, name, rng):
    def run(dtype, on):
        x, w = (t.to(dtype).to(on).to(memory_format=layout).requires_grad_() for t in (image, filters))
        output = CALLS[call](x, w)
        inputs = (x, w) if call.startswith("conv") else (x,)
        return output, *torch.autograd.grad(output.sum(), inputs)

    image = torch.randint(-4, 5, (2, 6, 9, 8), generator=rng)
    filters = torch.randint(-3, 4, (6, 6, 3, 3), generator=rng)
    expected = run(torch.float64, "cpu")
    if name is not None and (missing := backends._registry[name].unavailable()):
        pytest.skip(missing)
    with pyconvx.backend(name):
        try:
            results = run(torch.float32, device)
        except pyconvx.BackendRefusal as refusal:
            if "there is no CUDA kernel of" not in str(refusal):
                raise
            pytest.skip(str(refusal))
    for got, exact in zip(results, expected, strict=True):
        assert got.device.type == device
        assert torch.equal(got.cpu().double(), exact)
        assert got.stride() == exact.stride()
