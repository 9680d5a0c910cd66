"""The kernels of the residual add and of its ReLU's gradient: to the bit what the CPU's give."""

from __future__ import annotations

from shutil import copytree

import numpy as np
import pytest
import torch
from checking import assert_same_bits

from kernels.harness import emulator, run
from pyconvx import _C, ops
from pyconvx._problem import ACTIVATIONS, DTYPES, ElementwiseProblem
from pyconvx.backends._compiled import kernels_folder

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, float("inf"), -float("inf"), float("nan"), 6e-8, -6e-8, 1e-45]


def problem(count, dtype, activation="relu"):
    return ElementwiseProblem("residual_add", (count,), DTYPES[dtype], ACTIVATIONS[activation])


def operands(count, dtype):
    """Random numbers, and all pairs of special ones as far as they fit."""
    generator = torch.Generator().manual_seed(count)
    x, residual, grad = (torch.randn(count, generator=generator).to(dtype) for _ in range(3))
    special = torch.tensor(SPECIAL).to(dtype)
    fit = min(count // 2, len(SPECIAL) ** 2)
    x[count - fit :] = special.repeat_interleave(len(SPECIAL))[:fit]
    residual[count - fit :] = special.repeat(len(SPECIAL))[:fit]
    return x, residual, grad


def check(count, dtype, alignment=16, **options):
    x, residual, grad = operands(count, dtype)
    nan = torch.full_like(x, torch.nan)
    mask = torch.full(((count + 7) // 8,), 0xA5, dtype=torch.uint8)
    plans = {name: getattr(_C, f"plan_{name}") for name in (
        "residual_add", "residual_add_mask", "relu_backward", "relu_backward_mask",
    )}  # fmt: skip

    def result(name, activation="relu", **buffers):
        plan = plans[name](problem(count, dtype, activation), "a100", alignment=alignment)
        run(plan, buffers, **options)
        return buffers.get("output" if name.startswith("residual") else "grad_input")

    output, expected_mask = ops.residual_add_mask(x, residual)
    expected_grad = ops.relu_backward(grad, output)
    none = result("residual_add", "none", x=x, residual=residual, output=nan.clone())
    assert_same_bits(none, ops.residual_add(x, residual, "none"))
    assert_same_bits(result("residual_add", x=x, residual=residual, output=nan.clone()), output)
    assert_same_bits(result("residual_add_mask", x=x, residual=residual, output=nan.clone(), mask=mask), output)
    assert torch.equal(mask, expected_mask)
    by_output = result("relu_backward", grad_output=grad, output=output, grad_input=nan.clone())
    assert_same_bits(by_output, expected_grad)
    by_mask = result("relu_backward_mask", grad_output=grad, mask=mask, grad_input=nan.clone())
    assert_same_bits(by_mask, expected_grad)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
def test_every_number_of_elements(dtype):
    """Less than a vector, than a mask's byte or word, than a group of lanes, a block; and a little more."""
    for count in (1, 7, 33, 300, 8192 + 129):
        check(count, dtype)


@pytest.mark.parametrize("alignment", [8, 4, 2])
def test_vector_lengths(alignment):
    for dtype in (F16, F32, F64):
        if alignment >= dtype.itemsize:
            check(1027, dtype, alignment)


@pytest.mark.parametrize("order", ["descending", "random"])
def test_no_order_of_threads_changes_anything(order):
    check(20000, BF16, order=order, seed=1)


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_chips_before_sm_80_round_by_hand(dtype):
    """All sums of numbers with ties among them, by the code that compute capability 7.5 gets."""
    check(3000, dtype, target="sm_75")
    eps = torch.finfo(dtype).eps
    x = (1 + eps * torch.arange(64)).to(dtype).repeat_interleave(64)
    residual = (eps / 4 * torch.arange(64)).to(dtype).repeat(64)
    output = torch.full_like(x, torch.nan)
    plan = _C.plan_residual_add(problem(4096, dtype), "t4")
    run(plan, {"x": x, "residual": residual, "output": output}, target="sm_75")
    assert_same_bits(output, (x.double() + residual.double()).to(dtype))


def test_a_tensor_may_be_its_own_residual_and_result():
    x = operands(1000, F32)[0]
    expected = 2 * x
    run(_C.plan_residual_add(problem(1000, F32, "none"), "a100"), {"x": x, "residual": x, "output": x})
    assert_same_bits(x, expected)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
def test_traffic(dtype):
    """Three tensors and a mask forward, two and a mask backward: by 16 bytes, the mask by 128 a warp, and no more."""
    count = 3 * 8192
    x, residual, grad = operands(count, dtype)
    mask, nbytes = torch.zeros(count // 8, dtype=torch.uint8), count * dtype.itemsize
    buffers = {"x": x, "residual": residual, "output": x.clone(), "mask": mask}
    (forward,) = run(_C.plan_residual_add_mask(problem(count, dtype), "a100"), buffers)
    buffers = {"grad_output": grad, "grad_input": grad.clone(), "mask": mask}
    (backward,) = run(_C.plan_relu_backward_mask(problem(count, dtype), "a100"), buffers)
    for counts, tensors in ((forward.counts, 3), (backward.counts, 2)):
        total = counts.total
        assert total.bytes_moved == total.bytes_asked == tensors * nbytes + count // 8
        wide = counts.where(lambda site: "global.v" in site.opcode)
        assert wide.bytes_asked == 16 * wide.thread_instructions == tensors * nbytes
        narrow = counts.where(lambda site: site.opcode in ("ld.global.u32", "st.global.u32"))
        assert narrow.bytes_moved == 128 * narrow.warp_instructions == count // 8
        assert total.wavefronts == total.ideal_wavefronts


class LastLaunch:
    """Of a plan, the launch that is needed because a launch has fewer than 2^31 elements."""

    def __init__(self, plan):
        self.launches, self.workspaces = plan.launches[-1:], {}


def test_beyond_31_bits():
    first, last = 2**31 - 2 * 8192, 8192 + 77
    count = first + last
    plan = _C.plan_relu_backward_mask(problem(count, F16), "a100")
    assert len(plan.launches) == 2
    grad, grad_input = (emulator.sparse((count,), np.int16) for _ in range(2))
    mask = emulator.sparse(((count + 7) // 8,), np.uint8)
    generator = np.random.default_rng(0)
    grad[first:] = generator.integers(1, 30000, last)
    mask[first // 8 :] = generator.integers(0, 256, len(mask) - first // 8)
    grad_input[first - 4 :] = -1
    run(LastLaunch(plan), {"grad_output": grad, "grad_input": grad_input, "mask": mask})
    bits = np.unpackbits(mask[first // 8 :], bitorder="little")[:last]
    assert (grad_input[first:] == grad[first:] * bits).all()
    assert (grad_input[first - 4 : first] == -1).all()


def test_an_empty_tensor_launches_nothing():
    assert not _C.plan_residual_add(problem(0, F32), "a100").launches


def test_an_alignment_less_than_an_elements_is_refused():
    with pytest.raises(ValueError, match="relu_backward: the alignment must be a power of two and at least"):
        _C.plan_relu_backward(problem(8, F32), "a100", alignment=2)


# The checks are checked: kernels that are wrong in one place.

FAULTS = {
    "a mask of the next element": ("strip.cuh", "threadIdx.x % K * V;", "(threadIdx.x % K * V + 1);"),
    "lanes that add nothing of their partner's": ("strip.cuh", "__shfl_xor_sync(~0u, given, half)", "given"),
    "a last vector left out": ("strip.cuh", "if (at + v < args_.count) {", "if (at + V <= args_.count) {"),
    "a relu that swallows NaN": ("residual_add.cuh", "one[v] <= 0 ? Number(0)", "!(one[v] > 0) ? Number(0)"),
    "a gradient where the output is zero": ("residual_add.cuh", "bits |= y[v] <= 0", "bits |= y[v] < 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("PYCONVX_CACHE_DIR", str(tmp_path / "cache"))
    file, right, wrong = FAULTS[fault]
    headers = copytree(kernels_folder(), tmp_path / "cuda")
    text = (headers / "residual" / file).read_text()
    assert right in text
    (headers / "residual" / file).write_text(text.replace(right, wrong))
    with pytest.raises((AssertionError, emulator.EmulatorError)):
        check(1027, BF16, headers=headers)
