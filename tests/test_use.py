"""use: torch's functional calls, caught wherever they are made, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from operations import Recorder
from torch import nn

import pyconvx

torch.manual_seed(0)
IMAGE, WEIGHT, BIAS = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.randn(4)
POOLED, INDICES = F.max_pool2d(IMAGE, 2, return_indices=True)

CAUGHT = {
    "F.conv2d": ("conv2d", lambda: F.conv2d(IMAGE, WEIGHT, BIAS, 2, 1)),
    "F.conv2d by name": ("conv2d", lambda: F.conv2d(input=IMAGE, weight=WEIGHT, padding="same", dilation=(2, 1))),
    "F.conv2d by position": ("conv2d", lambda: F.conv2d(IMAGE, WEIGHT, None, [2, 1], [0, 1], [1, 1], 1)),
    "torch.conv2d": ("conv2d", lambda: torch.conv2d(IMAGE, WEIGHT, stride=2)),
    "F.conv_transpose2d": ("conv_transpose2d", lambda: F.conv_transpose2d(POOLED, WEIGHT[:3], None, 2, 1, 1, 1, 1)),
    "torch.conv_transpose2d": ("conv_transpose2d", lambda: torch.conv_transpose2d(POOLED, WEIGHT[:3], stride=2)),
    "F.max_pool2d": ("max_pool2d", lambda: F.max_pool2d(IMAGE, 3, 2, 1, 1, True)),
    "F.max_pool2d by name": ("max_pool2d", lambda: F.max_pool2d(IMAGE, kernel_size=(2, 3), ceil_mode=True)),
    "F.max_pool2d with indices": ("max_pool2d", lambda: F.max_pool2d(IMAGE, 2, return_indices=True)),
    "F.max_pool2d_with_indices": ("max_pool2d", lambda: F.max_pool2d_with_indices(IMAGE, 2, 1)),
    "torch.max_pool2d": ("max_pool2d", lambda: torch.max_pool2d(IMAGE, 2)),
    "torch.max_pool2d by name": ("max_pool2d", lambda: torch.max_pool2d(IMAGE, kernel_size=[2, 2], stride=[1, 1])),
    "F.max_unpool2d": ("max_unpool2d", lambda: F.max_unpool2d(POOLED, INDICES, 2)),
    "F.max_unpool2d by name": (
        "max_unpool2d", lambda: F.max_unpool2d(POOLED, indices=INDICES, kernel_size=2, output_size=(9, 9))),
    "unbatched": ("conv2d", lambda: F.conv2d(IMAGE[0], WEIGHT)),
    "nn.Conv2d": ("conv2d", lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")(IMAGE)),
    "nn.MaxPool2d": ("max_pool2d", lambda: nn.MaxPool2d(2, return_indices=True)(IMAGE)),
    "nn.MaxUnpool2d": ("max_unpool2d", lambda: nn.MaxUnpool2d(2)(POOLED, INDICES)),
    "nn.ConvTranspose2d": ("conv_transpose2d", lambda: nn.ConvTranspose2d(3, 4, 2, 2)(POOLED)),
    "channels_last": ("conv2d", lambda: F.conv2d(IMAGE.to(memory_format=torch.channels_last), WEIGHT)),
    "float64": ("conv2d", lambda: F.conv2d(IMAGE.double(), WEIGHT.double())),
    "bfloat16": ("max_pool2d", lambda: F.max_pool2d(IMAGE.bfloat16(), 2)),
}  # fmt: skip

PASSED_ON = {
    "complex": lambda: F.conv2d(IMAGE.to(torch.complex64), WEIGHT.to(torch.complex64)),
    "integer": lambda: F.conv2d(IMAGE.int(), WEIGHT.int()),
    "integer pooling": lambda: F.max_pool2d(IMAGE.long(), 2),
    "conv1d": lambda: F.conv1d(IMAGE[0], torch.ones(2, 8, 3)),
    "avg_pool2d": lambda: F.avg_pool2d(IMAGE, 2),
    "relu": lambda: F.relu(IMAGE) + IMAGE,
}


def results(value):
    return list(value) if isinstance(value, tuple) else [value]


def recorded(call, *modes):
    """Return the results of a call and which of our operations it reached."""
    torch.manual_seed(1)  # for the parameters of layers that are made in the call
    with Recorder() as recorder:
        if not modes:
            return results(call()), recorder.operations()
        with modes[0]:
            return results(call()), recorder.operations()


@pytest.mark.parametrize("operation, call", CAUGHT.values(), ids=CAUGHT)
def test_call_is_caught_and_gives_torchs_result(operation, call):
    want, none = recorded(call)
    got, ours = recorded(call, pyconvx.use())
    assert (none, ours) == (set(), {operation})
    torch.testing.assert_close(got, want)
    assert [x.stride() for x in got] == [x.stride() for x in want]


@pytest.mark.parametrize("call", PASSED_ON.values(), ids=PASSED_ON)
def test_other_calls_go_on_to_torch(call):
    want, _ = recorded(call)
    got, ours = recorded(call, pyconvx.use())
    assert ours == set()
    assert all(one.equal(other) for one, other in zip(got, want, strict=True))


def test_gradients_go_through_ours():
    def gradients():
        weight = WEIGHT.clone().requires_grad_()
        F.max_pool2d(F.conv2d(IMAGE, weight), 2).square().sum().backward()
        return weight.grad

    with Recorder() as recorder, pyconvx.use():
        got = gradients()
    assert recorder.operations() == {"conv2d", "max_pool2d", "conv2d_wgrad", "max_pool2d_backward"}
    torch.testing.assert_close(got, gradients(), rtol=1e-4, atol=1e-4)


def test_errors_are_ours():
    with pyconvx.use(), pytest.raises(pyconvx.InvalidCall, match="conv2d: input has 3 channels"):
        F.conv2d(IMAGE, WEIGHT[:, :2])
    with pytest.raises(RuntimeError):  # what callers of torch catch
        pyconvx.conv2d(IMAGE, WEIGHT[:, :2])


def assert_catches(expected):
    _, ours = recorded(lambda: F.conv2d(IMAGE, WEIGHT))
    assert ours == ({"conv2d"} if expected else set())


def test_block_ends_and_may_be_nested_and_entered_again():
    again = pyconvx.use()
    for _ in range(2):
        with again:
            assert_catches(True)
            with pyconvx.use():
                assert_catches(True)
            assert_catches(True)
        assert_catches(False)


def test_block_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), pyconvx.use():
        raise ZeroDivisionError
    assert_catches(False)


def test_block_is_of_its_thread_alone():
    with pyconvx.use(), ThreadPoolExecutor(1) as pool:
        pool.submit(assert_catches, False).result()
        assert_catches(True)

    def inside():
        with pyconvx.use():
            assert_catches(True)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(inside) for _ in range(8)]:
            future.result()
    assert_catches(False)


def test_autocast_and_no_grad_work_inside():
    weight = WEIGHT.clone().requires_grad_()
    with pyconvx.use(), torch.autocast("cpu"):
        assert F.conv2d(IMAGE, weight).dtype is torch.bfloat16
        with torch.no_grad():
            assert not F.conv2d(IMAGE, weight).requires_grad


class Functional(nn.Module):
    """A network that calls functions where it could have layers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, images):
        pooled, indices = F.max_pool2d(F.conv2d(images, self.weight, padding=1).relu(), 2, return_indices=True)
        return F.conv_transpose2d(F.max_unpool2d(pooled, indices, 2), self.weight)


FUNCTIONS = {"conv2d", "max_pool2d", "max_unpool2d", "conv_transpose2d"}


def test_network_of_functions_runs_on_ours():
    model = Functional()
    want, _ = recorded(lambda: model(IMAGE))
    got, ours = recorded(lambda: model(IMAGE), pyconvx.use())
    assert ours == FUNCTIONS
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", [None, "aten"])
def test_a_layer_of_ours_is_not_caught_again_on_its_way(dtype, backend):
    """Backends that compute by torch's functions do so past the block."""
    model = nn.Sequential(
        pyconvx.nn.Conv2d(3, 4, 3, padding=(0, 1, 1, 0)), pyconvx.nn.Conv2d(4, 4, 3), pyconvx.nn.MaxPool2d(2),
        pyconvx.nn.ConvTranspose2d(4, 4, 2),
    ).to(dtype)  # fmt: skip
    heard = []
    with pyconvx.backend(backend), torch.no_grad(), pyconvx.use(), Recorder() as recorder:
        model(IMAGE.to(dtype))
        heard = [name for name in recorder.called if name.startswith("pyconvx.")]
    assert heard == [f"pyconvx.{name}.default" for name in ("conv2d", "conv2d", "max_pool2d", "conv_transpose2d")]


@pytest.mark.parametrize("where", ["inside", "around"])
def test_compiled_network_runs_on_ours(where):
    model, graphs = Functional(), []

    def backend(graph, inputs):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward

    def function(images):
        if where == "around":
            return model(images)
        with pyconvx.use():
            return model(images)

    torch._dynamo.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    if where == "inside":
        got = compiled(IMAGE)
    else:
        with pyconvx.use():
            got = compiled(IMAGE)
    torch.testing.assert_close(got, model(IMAGE))
    assert {f"pyconvx.{name}.default" for name in FUNCTIONS} <= graphs[0]
    if where == "around":  # outside of the block it is torch's again
        compiled(IMAGE)
        assert len(graphs) == 2 and not any("pyconvx" in target for target in graphs[1])
    torch._dynamo.reset()


def test_transforms_work_inside():
    with pyconvx.use():
        got = torch.func.vmap(torch.func.grad(lambda x: F.conv2d(x[None], WEIGHT).sum()))(IMAGE)
    want = torch.func.vmap(torch.func.grad(lambda x: F.conv2d(x[None], WEIGHT).sum()))(IMAGE)
    torch.testing.assert_close(got, want)
