"""Pooling, unpooling and the residual add of more than 2^31 elements, of which memory holds the few pages that are
touched: the last blocks are run, and what they write is compared with the same images alone."""

from __future__ import annotations

from shutil import copytree

import numpy as np
import pytest
import torch

from kernels.harness import DTYPES, emulator, run
from kernels.pooling import Case
from kernels.unpooling import Unpooling
from pyconvx import _C
from pyconvx._problem import ACTIVATIONS, ElementwiseProblem
from pyconvx.backends._compiled import kernels_folder

BF16, U8 = torch.bfloat16, torch.uint8
BITS = {torch.uint8: np.uint8, torch.bfloat16: np.int16, torch.float16: np.int16, torch.int64: np.int64}
WINDOW = dict(h=16, w=16, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1))
LAYOUTS = pytest.mark.parametrize("layout, c", [("nchw", 1), ("nchw", 5), ("nhwc", 16)])


def bits(tensor):
    return tensor.view(torch.int16).numpy() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor.numpy()


def far(small, count):
    """So many images, of which the last are these."""
    there = emulator.sparse((count, *small.shape[1:]), BITS[small.dtype])
    there[-small.shape[0] :] = bits(small)
    return there


def images(elements):
    """As many as have more than 2^31 elements."""
    return 2**31 // elements + 3


def fields(problem, names):
    return {name: getattr(problem, name) for name in ["c", "r", "s", "stride", "padding", "dtype", "layout", *names]}


@LAYOUTS
def test_max_pool(layout, c):
    small = Case(n=3, c=c, dtype=BF16, layout=layout, **WINDOW)
    count = images(256 * c)
    x = _C.Pool2dProblem(n=count, **fields(small.problem, ["h", "w", "index"]))
    output, indices = small.expected()
    plan = _C.plan_max_pool2d(x, "a100")
    assert ("rows" in plan.family) == (layout == "nchw")
    buffers = {
        "input": far(small.input, count), "output": far(small.pooled(), count), "indices": far(small.pooled(U8), count)
    }  # fmt: skip
    run(plan, buffers, last_blocks=8)
    assert (buffers["output"][-1] == bits(output)[-1]).all()
    assert (buffers["indices"][-1] == bits(indices)[-1]).all()


@LAYOUTS
@pytest.mark.parametrize("relu", [False, True])
def test_its_gradient(layout, c, relu):
    small = Case(n=3, c=c, dtype=BF16, layout=layout, relu=relu, **WINDOW)
    count = images(256 * c)
    x = _C.Pool2dProblem(n=count, **fields(small.problem, ["h", "w", "index", "activation"]))
    (output, indices), gradient = small.expected(), small.gradient()
    expected = small.backward(gradient, indices, output=output)
    buffers = {
        "grad_output": far(gradient, count), "indices": far(indices, count), "grad_input": far(small.image(), count)
    }  # fmt: skip
    if relu:
        buffers["relu_output"] = far(output, count)
    run(_C.plan_max_pool2d_backward(x, "a100"), buffers, last_blocks=16)
    assert (buffers["grad_input"][-1] == bits(expected)[-1]).all()


@LAYOUTS
@pytest.mark.parametrize("window", [(2, 2), (3, 3)], ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_max_unpool(layout, c, window, backward):
    """Windows apart, and windows that overlap."""
    small = Unpooling((3, c, 16, 16), window, (2, 2), dtype=BF16, layout=layout)
    count = images(256 * c)
    names = ["h", "w", "p", "q", "index"]
    x = _C.Unpool2dProblem(n=count, **fields(small.problem, names))
    here = small.buffers(backward)
    there = {name: tensor if name == "bad_index" else far(tensor, count) for name, tensor in here.items()}
    run(small.plan(backward), here)
    run((_C.plan_max_unpool2d_backward if backward else _C.plan_max_unpool2d)(x, "a100"), there, last_blocks=32)
    result = "grad_input" if backward else "output"
    assert (there[result][-1] == bits(here[result])[-1]).all()
    assert there["bad_index"].item() == 0


def test_the_place_of_a_bad_index():
    small = Unpooling((3, 2, 16, 16), (2, 2), (2, 2), dtype=BF16, layout="nchw")
    small.indices[2, 1, 7, 6] = 9
    count = images(128)
    x = _C.Unpool2dProblem(n=count, **fields(small.problem, ["h", "w", "p", "q", "index"]))
    for backward, plan in ((False, _C.plan_max_unpool2d), (True, _C.plan_max_unpool2d_backward)):
        here = small.buffers(backward)
        there = {name: tensor if name == "bad_index" else far(tensor, count) for name, tensor in here.items()}
        run(plan(x, "a100"), there, last_blocks=4)
        assert ~there["bad_index"].item() == 128 * count - 2 > 2**31


@LAYOUTS
@pytest.mark.parametrize("backward", [False, True])
def test_nearest_unpool(layout, c, backward):
    shape, large = ((3, 8, 8, c), (3, 16, 16, c)) if layout == "nhwc" else ((3, c, 8, 8), (3, c, 16, 16))
    count = images(256 * c)
    problems = (
        _C.NearestUnpool2dProblem(
            n=n, c=c, p=8, q=8, scale=(2, 2), dtype=DTYPES[BF16], layout=getattr(_C.Layout, layout)
        )
        for n in (3, count)
    )
    given, result = torch.randint(-9, 9, large if backward else shape), torch.zeros(shape if backward else large)
    names = ("grad_output", "grad_input") if backward else ("input", "output")
    here = dict(zip(names, (given.to(BF16), result.to(BF16)), strict=True))
    there = {name: far(tensor, count) for name, tensor in here.items()}
    plan = _C.plan_nearest_unpool2d_backward if backward else _C.plan_nearest_unpool2d
    run(plan(next(problems), "a100"), here)
    run(plan(next(problems), "a100"), there, last_blocks=16)
    assert (there[names[1]][-1] == bits(here[names[1]])[-1]).all()


def test_planes_of_more_than_31_bits_of_rows():
    """Several launches; the last rows of each."""
    count = 2**31 + 5
    x = _C.Pool2dProblem(
        n=count, c=1, h=2, w=1, r=2, s=1, dtype=DTYPES[BF16], layout=_C.Layout.nchw, index=_C.IndexType.uint8
    )
    plan = _C.plan_max_pool2d(x, "a100")
    assert len(plan.launches) == 2
    end = 2**31 - 1024  # of the first launch's rows
    input, output = emulator.sparse((count, 2), np.int16), emulator.sparse((count,), np.int16)
    indices = emulator.sparse((count,), np.uint8)
    places = np.r_[end - 3 : end, count - 3 : count]
    input[places, 1] = 0x3F80
    run(plan, {"input": input, "output": output, "indices": indices}, last_blocks=1)
    assert (output[places] == 0x3F80).all() and (indices[places] == 1).all()


def test_residual_add():
    count = 2**31 + 100_003
    names = {"x": 1, "residual": 2, "output": 0}
    tensors = {name: emulator.sparse((count,), np.int16) for name in names}
    small = {name: torch.randn(5000, generator=torch.Generator().manual_seed(seed)).to(BF16)
             for name, seed in names.items()}  # fmt: skip
    for name, tensor in small.items():
        tensors[name][-5000:] = bits(tensor)
    mask = emulator.sparse(((count + 7) // 8,), np.uint8)
    problem = ElementwiseProblem("residual_add_mask", (count,), DTYPES[BF16], ACTIVATIONS["relu"])
    run(_C.plan_residual_add_mask(problem, "a100"), {**tensors, "mask": mask}, last_blocks=2)
    expected = torch.relu(small["x"].float() + small["residual"].float()).to(BF16)
    assert (tensors["output"][-5000:] == bits(expected)).all()
    flags = np.unpackbits(mask[-(5000 // 8) :], bitorder="little")[: 5000 // 8 * 8 - (-count % 8)]
    assert (flags == (expected > 0).numpy()[-len(flags) :]).all()


def test_a_run_that_begins_in_31_bits_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path / "cache"))
    headers = copytree(kernels_folder(), tmp_path / "cuda")
    bands = headers / "pool" / "bands.cuh"
    assert "  long long first;\n" in bands.read_text()
    bands.write_text(bands.read_text().replace("  long long first;\n", "  int first;\n"))
    small = Case(n=3, c=1, dtype=BF16, layout="nchw", **WINDOW)
    count = images(256)
    x = _C.Pool2dProblem(n=count, **fields(small.problem, ["h", "w", "index"]))
    buffers = {"input": far(small.input, count), "output": far(small.pooled(), count)}
    with pytest.raises(emulator.EmulatorError):
        run(_C.plan_max_pool2d(x, "a100"), {**buffers, "indices": far(small.pooled(U8), count)}, last_blocks=1,
            headers=headers)  # fmt: skip
