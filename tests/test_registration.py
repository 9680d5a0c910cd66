"""What the dispatcher knows of every operation: that it passes opcheck, and that shapes and strides are told right
before anything is computed, by fake and by meta tensors."""

from __future__ import annotations

import pytest
import torch
from operations import FIRST, SAMPLES, both_layouts, in_layout, over, results
from torch._subclasses import FakeTensorMode

import pyconvx


def described(values):
    return [(tuple(x.shape), x.stride(), x.dtype) for x in results(values)]


def moved(sample, tensors, move):
    return described(sample(*(None if x is None else move(x) for x in tensors)))


def faked(sample, tensors):
    with FakeTensorMode() as mode:
        return moved(sample, tensors, mode.from_tensor)


def non_contiguous(tensor):
    """Yield the values of a tensor behind the strides of a slice, a transposition and a sliced channels_last image."""
    if tensor is None or tensor.dim() != 4:
        return [tensor] * 3
    sliced = torch.empty(*tensor.shape[:3], 2 * tensor.shape[3], dtype=tensor.dtype)[..., ::2].copy_(tensor)
    transposed = tensor.transpose(2, 3).contiguous().transpose(2, 3)
    wider = in_layout(torch.cat([tensor, tensor], 1), torch.channels_last)[:, : tensor.shape[1]]
    return [sliced, transposed, wider]


def test_every_registered_operation_has_samples():
    registered = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("pyconvx::")}
    assert registered == {f"pyconvx::{sample.operation}" for sample in SAMPLES}


# opcheck takes longest of all tests here; shapes that are odd only in their strides are left to the fakes' tests below.
THOROUGH = [sample for sample in SAMPLES if sample.title not in ("one-pixel", "one-channel", "no-images", "vector")]


@both_layouts
@over(THOROUGH)
def test_operation_passes_opcheck(sample, layout):
    tensors = sample.tensors(layout, grad=True)
    results = torch.library.opcheck(sample.operator.op, (*tensors, *sample.options))
    assert set(results.values()) == {"SUCCESS"}


@over(FIRST)
def test_operation_passes_opcheck_on_non_contiguous_tensors(sample):
    tensors = [non_contiguous(x)[0] for x in sample.tensors(torch.contiguous_format)]
    results = torch.library.opcheck(sample.operator.op, (*tensors, *sample.options))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@both_layouts
@over(SAMPLES)
def test_fake_results_have_the_shapes_and_strides_of_real_ones(sample, layout, dtype):
    tensors = sample.tensors(layout, dtype)
    assert faked(sample, tensors) == described(sample(*tensors))


@both_layouts
@over([sample for sample in SAMPLES if sample.title != "four-sides"])
def test_backend_aten_gives_the_values_shapes_and_strides_of_backend_cpu(sample, layout):
    tensors = sample.tensors(layout, torch.float32)
    with pyconvx.backend("cpu"):
        ours = results(sample(*tensors))
    with pyconvx.backend("aten"):
        torchs = results(sample(*tensors))
    assert described(torchs) == described(ours)
    torch.testing.assert_close(torchs, ours)


@pytest.mark.parametrize("form", range(3), ids=["sliced", "transposed", "wider"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@over(SAMPLES)
def test_fake_results_have_the_strides_of_real_ones_for_non_contiguous_tensors(sample, dtype, form):
    tensors = [non_contiguous(x)[form] for x in sample.tensors(torch.contiguous_format, dtype)]
    assert faked(sample, tensors) == described(sample(*tensors))


@pytest.mark.parametrize("mixed", [0, 1], ids=["first-channels_last", "second-channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@over([sample for sample in SAMPLES if len(sample.operands) > 1])
def test_fake_results_have_the_strides_of_real_ones_for_operands_of_unlike_layouts(sample, dtype, mixed):
    tensors = sample.tensors(torch.contiguous_format, dtype)
    tensors[mixed] = in_layout(tensors[mixed], torch.channels_last)
    assert faked(sample, tensors) == described(sample(*tensors))


@both_layouts
@over(SAMPLES)
def test_fake_cuda_tensors_have_the_same_shapes_and_strides(sample, layout):
    tensors = sample.tensors(layout)
    with FakeTensorMode():
        cuda = moved(sample, tensors, lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda"))
    assert cuda == described(sample(*tensors))


@both_layouts
@over(SAMPLES)
def test_meta_tensors_give_the_shapes_and_strides_without_computing(sample, layout):
    tensors = sample.tensors(layout)
    assert moved(sample, tensors, lambda x: x.to("meta")) == described(sample(*tensors))


def test_meta_tensors_can_be_differentiated():
    input = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    weight = torch.empty(4, 3, 3, 3, device="meta", requires_grad=True)
    pooled = pyconvx.max_pool2d(pyconvx.conv2d(input, weight, activation="relu"), 2)
    pooled.sum().backward()
    assert input.grad.shape == input.shape and weight.grad.is_meta


@both_layouts
@pytest.mark.parametrize("form", range(3), ids=["sliced", "transposed", "wider"])
@over(FIRST)
def test_non_contiguous_tensors_give_the_values_of_dense_ones(sample, form, layout):
    tensors = sample.tensors(layout)
    expected = sample(*tensors)
    for got, want in zip(results(sample(*(non_contiguous(x)[form] for x in tensors))), results(expected), strict=True):
        torch.testing.assert_close(got, want)


@both_layouts
@over(SAMPLES)
def test_results_do_not_share_memory_with_operands(sample, layout):
    tensors = sample.tensors(layout)
    addresses = {x.untyped_storage().data_ptr() for x in tensors if x is not None and x.numel()}
    for result in results(sample(*tensors)):
        assert not result.numel() or result.untyped_storage().data_ptr() not in addresses
