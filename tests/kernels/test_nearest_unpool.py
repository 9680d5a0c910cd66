"""The kernels of nearest unpooling and its gradient: what they move, in which vectors, and beyond 2^31 elements."""

from __future__ import annotations

from shutil import copytree

import numpy as np
import pytest
import torch

from kernels.harness import DTYPES, emulator, run
from pyconvx import _C
from pyconvx.backends._compiled import kernels_folder

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


def problem(n, c, p, q, scale, dtype, layout="nhwc"):
    return _C.NearestUnpool2dProblem(
        n=n, c=c, p=p, q=q, scale=scale, dtype=DTYPES[dtype], layout=getattr(_C.Layout, layout)
    )


def unpooled(x, scale):
    """In N H W C."""
    return x.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)


@pytest.mark.parametrize("dtype", [BF16, F32, F64], ids=str)
def test_every_byte_is_moved_once_and_by_16(dtype):
    scale = (2, 2)
    x = torch.randint(-9, 9, (2, 4, 6, 32)).to(dtype)
    output = torch.full((2, 8, 12, 32), torch.nan, dtype=dtype)
    case = problem(2, 32, 4, 6, scale, dtype)
    (forward,) = run(_C.plan_nearest_unpool2d(case, "a100"), {"input": x, "output": output})
    assert torch.equal(output, unpooled(x, scale))
    grad_input = torch.full_like(x, torch.nan)
    plan = _C.plan_nearest_unpool2d_backward(case, "a100")
    (backward,) = run(plan, {"grad_output": output, "grad_input": grad_input})
    assert torch.equal(grad_input, 4 * x)
    small, large = (tensor.numel() * dtype.itemsize for tensor in (x, output))
    for counts, loaded, stored in ((forward.counts, small, large), (backward.counts, large, small)):
        for opcode, fewest in (("ld.global", loaded), ("st.global", stored)):
            site = counts.opcode(opcode)
            assert site.bytes_moved == site.bytes_asked == 16 * site.thread_instructions == fewest


@pytest.mark.parametrize("order", ["descending", "random"])
def test_no_order_of_threads_changes_anything(order):
    grad = torch.randn(1, 9, 8, 24, generator=torch.Generator().manual_seed(0)).half()
    results = []
    for name in ("ascending", order):
        grad_input = torch.full((1, 3, 2, 24), torch.nan, dtype=F16)
        plan = _C.plan_nearest_unpool2d_backward(problem(1, 24, 3, 2, (3, 4), F16), "a100")
        run(plan, {"grad_output": grad, "grad_input": grad_input}, order=name, seed=1)
        results.append(grad_input)
    assert torch.equal(*results)


@pytest.mark.parametrize("alignment, layout", [(8, "nhwc"), (2, "nhwc"), (16, "nchw"), (4, "nchw")])
def test_vector_lengths(alignment, layout):
    shape = (2, 3, 4, 8) if layout == "nhwc" else (2, 8, 3, 4)
    x = torch.randint(-9, 9, shape).half()
    case = problem(2, 8, 3, 4, (2, 2), F16, layout)
    output = torch.full((2, 6, 8, 8) if layout == "nhwc" else (2, 8, 6, 8), torch.nan, dtype=F16)
    run(_C.plan_nearest_unpool2d(case, "a100", alignment=alignment), {"input": x, "output": output})
    down, across = (1, 2) if layout == "nhwc" else (2, 3)
    assert torch.equal(output, x.repeat_interleave(2, down).repeat_interleave(2, across))


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
@pytest.mark.parametrize("sizes", [(2, 5, 6, 8, (2, 2)), (3, 33, 5, 7, (3, 1)), (1, 2, 3, 11, (1, 4))], ids=str)
def test_gradients_of_planes(sizes, dtype):
    """From rows in shared memory, in every tile; summed in the order of channels last."""
    n, c, p, q, scale = sizes
    grad = torch.randn(n, c, p * scale[0], q * scale[1], generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = torch.full((n, p, q, c), torch.nan, dtype=dtype)
    buffers = {"grad_output": grad.permute(0, 2, 3, 1).contiguous(), "grad_input": expected}
    run(_C.plan_nearest_unpool2d_backward(problem(n, c, p, q, scale, dtype), "a100"), buffers)
    case = problem(n, c, p, q, scale, dtype, "nchw")
    for candidate in _C.plan_nearest_unpool2d_backward(case, "a100").candidates:
        plan = _C.plan_nearest_unpool2d_backward(case, "a100", tile=candidate.tile)
        result = torch.full((n, c, p, q), torch.nan, dtype=dtype)
        (launch,) = run(plan, {"grad_output": grad, "grad_input": result})
        assert "nearest_unpool_rows_backward" in plan.launches[0].kernel
        assert torch.equal(result, expected.permute(0, 3, 1, 2))
    moved, fewest = launch.counts.total.bytes_moved, (grad.numel() + result.numel()) * dtype.itemsize
    assert moved <= 1.02 * fewest + 128
    with pytest.raises(ValueError, match="there is no tile 3x3x3"):
        _C.plan_nearest_unpool2d_backward(case, "a100", tile="3x3x3")


def test_gradients_of_planes_whose_rows_do_not_fit_shared_memory():
    grad = torch.randint(-9, 9, (1, 1, 2, 26000)).to(BF16)
    result = torch.full((1, 1, 1, 13000), torch.nan, dtype=BF16)
    plan = _C.plan_nearest_unpool2d_backward(problem(1, 1, 1, 13000, (2, 2), BF16, "nchw"), "a100")
    run(plan, {"grad_output": grad, "grad_input": result})
    assert torch.equal(result, grad.view(1, 1, 2, 13000, 2).float().sum((2, 4))[:, :, None].to(BF16))


class LastLaunch:
    """Of a plan, the launch that is needed because a launch has fewer than 2^31 threads."""

    def __init__(self, plan):
        self.launches, self.workspaces = plan.launches[-1:], {}


def test_beyond_31_bits():
    q = 2**18
    p = (2**31 - 1024) // q + 1
    plan = _C.plan_nearest_unpool2d(problem(1, 1, p, q, (2, 1), F16), "a100")
    assert len(plan.launches) == 2
    input, output = emulator.sparse((p, q), np.int16), emulator.sparse((2 * p, q), np.int16)
    input[-1] = np.random.default_rng(0).integers(1, 30000, q)
    output[-3:] = -1
    run(LastLaunch(plan), {"input": input, "output": output})
    assert (output[-2:] == input[-1]).all()
    assert (output[-3] == -1).all()


@pytest.mark.parametrize("changes, sentence", [({"q": 2**31 - 1, "c": 1}, "in 31 bits"), ({"p": 2**30}, "in 31 bits")])
def test_what_has_no_plan_is_refused_in_a_sentence(changes, sentence):
    case = problem(**{**dict(n=1, c=8, p=4, q=4, scale=(2, 2), dtype=F16), **changes})
    for plan in (_C.plan_nearest_unpool2d, _C.plan_nearest_unpool2d_backward):
        with pytest.raises(ValueError, match=sentence):
            plan(case, "a100")


# The checks are checked: kernels that are wrong in one place.

FAULTS = {
    "read before it is there": ("  __syncthreads();\n  const int count", "  const int count"),
    "stored before it is there": ("  __syncthreads();\n  output", "  output"),
    "a row of the cell left out": ("corner + dh * args.w + dw", "corner + dw"),
    "a first term a row": (
        "dh + dw ? sum[v] + term[v] : term[v]",
        "dh ? sum[v] + term[v] : term[v]",
    ),
    "cells that overlap": ("const int w = at.column * args.scale_w", "const int w = at.column"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path / "cache"))
    right, wrong = FAULTS[fault]
    headers = copytree(kernels_folder(), tmp_path / "cuda")
    names = ["nearest_unpool.cuh", "nearest_unpool_rows.cuh"]
    (file,) = (headers / "pool" / name for name in names if right in (headers / "pool" / name).read_text())
    file.write_text(file.read_text().replace(right, wrong))
    if "rows" in file.name:
        grad = torch.arange(2 * 9 * 30 * 32).view(2, 9, 30, 32).double()
        result = torch.full((2, 9, 15, 16), torch.nan, dtype=F64)
        buffers, plan = {"grad_output": grad, "grad_input": result}, problem(2, 9, 15, 16, (2, 2), F64, "nchw")
        with pytest.raises((AssertionError, emulator.EmulatorError)):
            run(_C.plan_nearest_unpool2d_backward(plan, "a100"), buffers, headers=headers)
            assert torch.equal(result, grad.view(2, 9, 15, 2, 16, 2).sum((3, 5)))
        return
    x = torch.arange(1 * 4 * 6 * 8).view(1, 4, 6, 8).double()
    output, grad_input = torch.full((1, 8, 12, 8), torch.nan, dtype=F64), torch.full_like(x, torch.nan)
    case = problem(1, 8, 4, 6, (2, 2), F64)
    try:
        run(_C.plan_nearest_unpool2d(case, "a100"), {"input": x, "output": output}, headers=headers)
        buffers = {"grad_output": unpooled(x, (2, 2)), "grad_input": grad_input}
        run(_C.plan_nearest_unpool2d_backward(case, "a100"), buffers, headers=headers)
    except emulator.EmulatorError:
        return  # two blocks at one place
    assert not (torch.equal(output, unpooled(x, (2, 2))) and torch.equal(grad_input, 4 * x))
