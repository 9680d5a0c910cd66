"""Max unpooling: values back where they stood, the last of several in one place, and gradients that agree."""

from typing import NamedTuple

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from checking import (
    DTYPES,
    array,
    assert_exact,
    assert_same_bits,
    assert_same_values,
    in_layout,
    integers,
    is_in,
    normal,
    opinfo,
)

import pyconvx
from pyconvx import backends, ops


class Case(NamedTuple):
    """A pooling that is undone."""

    n: int
    c: int
    h: int
    w: int
    kernel_size: tuple
    stride: tuple
    padding: tuple = (0, 0, 0, 0)
    dilation: tuple = (1, 1)

    @property
    def input(self):
        return self.n, self.c, self.h, self.w

    @property
    def window(self):
        return self.kernel_size, self.stride, self.padding, self.dilation

    @property
    def index_dtypes(self):
        small = self.kernel_size[0] * self.kernel_size[1] <= 255
        return [torch.int64, torch.int32] + ([torch.uint8] if small else [])


CASES = {
    "2x2": Case(2, 3, 6, 8, (2, 2), (2, 2)),
    "2x2 on odd sizes": Case(1, 5, 7, 9, (2, 2), (2, 2)),
    "3x3 stride 3": Case(1, 4, 9, 6, (3, 3), (3, 3)),
    "3x3 stride 2, overlapping": Case(2, 4, 9, 11, (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3 stride 1, overlapping": Case(1, 3, 6, 5, (3, 3), (1, 1), (1, 1, 1, 1)),
    "1x1": Case(2, 3, 4, 5, (1, 1), (1, 1)),
    "1x1 stride 2": Case(2, 3, 5, 6, (1, 1), (2, 2)),
    "1x3": Case(1, 4, 3, 9, (1, 3), (1, 2), (0, 0, 1, 1)),
    "4x1": Case(1, 4, 9, 3, (4, 1), (4, 1), (1, 1, 0, 0)),
    "dilated, overlapping": Case(1, 3, 9, 10, (3, 2), (1, 2), (1, 1, 1, 1), (2, 3)),
    "dilated, apart": Case(1, 3, 12, 11, (2, 2), (4, 3), (0, 0, 1, 1), (3, 2)),
    "stride beyond the window": Case(1, 3, 11, 13, (2, 2), (3, 5)),
    "unequal padding": Case(2, 3, 6, 7, (3, 3), (2, 2), (0, 1, 1, 0)),
    "unequal padding, apart": Case(2, 3, 6, 7, (2, 3), (2, 3), (0, 1, 1, 0)),
    "one pixel": Case(3, 4, 1, 1, (1, 1), (1, 1)),
    "the window is the image": Case(2, 3, 5, 6, (5, 6), (1, 1)),
    "the window exceeds the image": Case(1, 3, 2, 3, (4, 5), (1, 1), (1, 1, 1, 1)),
    "1 channel": Case(2, 1, 6, 7, (3, 3), (2, 2), (1, 1, 1, 1)),
    "8 channels": Case(1, 8, 4, 6, (2, 3), (2, 3)),
    "17 channels": Case(2, 17, 5, 4, (3, 3), (2, 2), (1, 1, 1, 1)),
    "64 channels": Case(1, 64, 4, 6, (2, 2), (2, 2)),
    "130 channels": Case(1, 130, 4, 3, (3, 3), (1, 1), (1, 1, 1, 1)),
    "71 columns": Case(1, 2, 4, 71, (2, 2), (2, 2)),
    "70 columns, stride 3": Case(1, 1, 6, 70, (3, 3), (3, 3), (1, 1, 1, 1)),
    "289 taps": Case(1, 2, 17, 34, (17, 17), (17, 17)),
    "289 taps, overlapping": Case(1, 2, 9, 20, (17, 17), (3, 3), (8, 8, 8, 8)),
}


def pooled(rng, case, dtype, layout, index_dtype):
    """Values to put back, not those that were pooled, so that a wrong place shows; indices in both forms."""
    image = integers(rng, case.input, layout=layout, most=8)
    geometry = *case.window, False
    _, indices = ops.max_pool2d(image, *geometry, index_dtype, "none")
    _, _, positions = reference.max_pool2d(array(image), *geometry)
    return integers(rng, positions.shape, dtype, layout, most=200), indices, positions


def unpool(x, indices, case):
    return pyconvx.max_unpool2d(x, indices, *case.window[:3], output_size=case.input[2:], dilation=case.dilation)


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_the_references(rng, case, dtype, layout, backend):
    for index_dtype in case.index_dtypes:
        x, indices, positions = pooled(rng, case, dtype, layout, index_dtype)
        x.requires_grad_()
        grad = integers(rng, case.input, dtype, layout, most=200)
        with pyconvx.backend(backend):
            output = unpool(x, indices, case)
            (grad_input,) = torch.autograd.grad(output, x, grad)
        assert_exact(output, reference.max_unpool2d(array(x), positions, case.input[2:]))
        assert_exact(grad_input, reference.max_unpool2d_backward(array(grad), positions))
        for result in (output, grad_input):
            assert result.dtype == dtype
            assert is_in(layout, result)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_backends_agree_bit_for_bit(rng, case, dtype, layout):
    special = torch.tensor([float("inf"), float("nan"), -0.0, -2.5, -float("inf")], dtype=dtype)
    for index_dtype in case.index_dtypes:
        x, indices, _ = pooled(rng, case, dtype, layout, index_dtype)
        x = in_layout(special[torch.arange(x.numel()) % 5].view(x.shape), layout)
        size = case.input[2:]
        grad = in_layout(special[torch.arange(int(np.prod(case.input))) % 5].view(case.input), layout)
        results = {}
        for backend in ("cpu", "aten"):
            with pyconvx.backend(backend):
                results[backend] = [
                    ops.max_unpool2d(x, indices, *case.window, size),
                    ops.max_unpool2d_backward(grad, indices, *case.window, size),
                ]
        for ours, torchs in zip(*results.values(), strict=True):
            assert_same_bits(ours, torchs)
            assert ours.stride() == torchs.stride()


@pytest.mark.parametrize("name", ["2x2", "2x2 on odd sizes", "3x3 stride 3", "17 channels", "64 channels"])
def test_strides_are_torchs_where_the_layout_is_torchs(rng, name, layout):
    # torch gives contiguous results whatever it gets.
    case = CASES[name]
    x, indices, _ = pooled(rng, case, torch.float32, layout, torch.int64)
    torchs = F.max_unpool2d(x, indices, *case.window[:2], case.padding[::2], case.input[2:])
    ours = unpool(x, indices, case)
    assert ours.stride() == in_layout(torchs, layout).stride()


# Where several indices name one place.


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 8, 17, 64, 130])
def test_the_last_of_several_wins_and_alone_receives_the_gradient(rng, dtype, layout, channels, backend):
    positions = torch.randint(0, 6, (2, channels, 3, 4), generator=rng)
    x = normal(rng, positions.shape, dtype, layout).requires_grad_()
    grad = normal(rng, (2, channels, 5, 7), dtype, layout)
    with pyconvx.backend(backend):
        output = pyconvx.max_unpool2d(x, in_layout(positions, layout), 2, output_size=(5, 7))
        (grad_input,) = torch.autograd.grad(output, x, grad)
    assert_exact(output, reference.max_unpool2d(array(x), positions.numpy(), (5, 7)))
    assert_exact(grad_input, reference.max_unpool2d_backward(array(grad), positions.numpy()))


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32])
def test_the_last_of_overlapping_windows_wins(layout, index_dtype, backend):
    # Offsets that all lead to the middle of a 3 x 3 image.
    offsets = torch.tensor([[3, 2], [1, 0]], dtype=index_dtype).view(1, 1, 2, 2).expand(1, 5, 2, 2)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 5, 2, 2).contiguous(memory_format=layout).requires_grad_()
    with pyconvx.backend(backend):
        output = pyconvx.max_unpool2d(x, offsets, 2, 1)
        (grad,) = torch.autograd.grad(output, x, torch.full_like(output, 7))
    assert (output[:, :, 1, 1] == 4).all()
    assert output.count_nonzero() == 5
    assert (grad[:, :, 1, 1] == 7).all()
    assert grad.count_nonzero() == 5


def test_nothing_of_the_place_is_left_when_the_last_value_is_zero():
    x = torch.tensor([5.0, 0.0]).view(1, 1, 1, 2)
    output = pyconvx.max_unpool2d(x, torch.ones(1, 1, 1, 2, dtype=torch.int64), (1, 2))
    assert not output.any()


# Sizes.


@pytest.mark.parametrize("stride", [None, 1, 2, (3, 2)])
@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
def test_the_size_is_torchs_if_none_is_given(rng, stride, padding):
    x = integers(rng, (1, 2, 3, 4))
    indices = torch.arange(12).remainder(9).view(1, 1, 3, 4).expand(1, 2, 3, 4)
    assert_same_bits(
        pyconvx.max_unpool2d(x, indices, (3, 2), stride, padding), F.max_unpool2d(x, indices, (3, 2), stride, padding)
    )


@pytest.mark.parametrize("output_size", [(7, 9), [7, 9], (2, 3, 7, 9), torch.Size([2, 3, 7, 9])])
def test_the_size_is_taken_in_every_form(rng, output_size):
    x, indices = F.max_pool2d(normal(rng, (2, 3, 7, 9)), 2, return_indices=True)
    assert_same_bits(
        pyconvx.max_unpool2d(x, indices, 2, output_size=output_size),
        F.max_unpool2d(x, indices, 2, output_size=list(output_size)),
    )


@pytest.mark.parametrize("padding", [1, (0, 1, 1, 0)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_unpooling_then_pooling_gives_the_maxima_back(rng, layout, padding, dilation):
    image = normal(rng, (2, 5, 12, 13), layout=layout).abs()
    window = {"kernel_size": 3, "stride": 5, "padding": padding, "dilation": dilation}
    for index_dtype in (torch.uint8, torch.int32, torch.int64):
        values, indices = pyconvx.max_pool2d(image, **window, return_indices=True, index_dtype=index_dtype)
        back = pyconvx.max_unpool2d(values, indices, **window, output_size=(12, 13))
        assert torch.equal(pyconvx.max_pool2d(back, **window), values)
        assert torch.equal(back[back != 0], image[back != 0])


# Inputs of every kind.


@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32, torch.int64])
def test_an_unbatched_image_is_a_batch_of_one(rng, index_dtype):
    image = normal(rng, (3, 6, 8))
    x, indices = pyconvx.max_pool2d(image, 2, return_indices=True, index_dtype=index_dtype)
    x.requires_grad_()
    torchs = F.max_unpool2d(*F.max_pool2d(image, 2, return_indices=True), 2)
    output = pyconvx.max_unpool2d(x, indices, 2)
    assert_same_bits(output.detach(), torchs)
    assert torch.autograd.grad(output.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32, torch.int64])
def test_an_empty_batch_gives_an_empty_image(dtype, layout, index_dtype):
    x = torch.empty((0, 4, 3, 5), dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    output = pyconvx.max_unpool2d(x, torch.empty((0, 4, 3, 5), dtype=index_dtype), 2)
    assert output.shape == (0, 4, 6, 10)
    assert torch.autograd.grad(output.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("x_view", ["columns", "channels", "expanded", "transposed"])
@pytest.mark.parametrize("index_view", ["columns", "channels", "expanded", "transposed"])
def test_inputs_that_are_not_dense_give_the_same(rng, x_view, index_view, backend):
    views = {
        "columns": lambda make: make((2, 17, 3, 8))[..., ::2],
        "channels": lambda make: in_layout(make((2, 40, 3, 4)), torch.channels_last)[:, 5:22],
        "expanded": lambda make: make((1, 17, 3, 1)).expand(2, -1, -1, 4),
        "transposed": lambda make: make((2, 17, 4, 3)).transpose(2, 3),
    }
    x = views[x_view](lambda shape: integers(rng, shape)).detach().requires_grad_()
    indices = views[index_view](lambda shape: torch.randint(0, 48, shape, generator=rng))
    grad = integers(rng, (2, 17, 8, 6)).transpose(2, 3)
    with pyconvx.backend(backend):
        output = pyconvx.max_unpool2d(x, indices, 2)
        (grad_input,) = torch.autograd.grad(output, x, grad)
    assert_exact(output, reference.max_unpool2d(array(x), indices.numpy(), (6, 8)))
    assert_exact(grad_input, reference.max_unpool2d_backward(array(grad), indices.numpy()))


# The same in every run.


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int64])
def test_threads_runs_and_determinism_change_nothing(rng, with_threads, dtype, layout, backend, index_dtype):
    image = normal(rng, (2, 20, 42, 44), layout=layout)
    grad = normal(rng, image.shape, dtype, layout)

    def run():
        results = []
        for stride in (2, 1):  # side by side, and overlapping, with several indices for one place
            window = (2, 2), (stride, stride), (0, 0, 0, 0), (1, 1)
            values, indices = ops.max_pool2d(image, *window, False, index_dtype, "none")
            results.append(ops.max_unpool2d(values.to(dtype), indices, *window, (42, 44)))
            results.append(ops.max_unpool2d_backward(grad, indices, *window, (42, 44)))
        return results

    def run_with_determinism():
        torch.use_deterministic_algorithms(True)  # and memory that a kernel forgot to write shows as NaN
        try:
            return run()
        finally:
            torch.use_deterministic_algorithms(False)

    with pyconvx.backend(backend):
        first = run()
        for again in (with_threads(2, run), with_threads(2, run_with_determinism)):
            for one, other in zip(first, again, strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_images_results_do_not_depend_on_its_batch(rng, dtype, layout):
    image = normal(rng, (4, 9, 20, 21), dtype, layout)
    values, indices = pyconvx.max_pool2d(image, 3, 2, return_indices=True, index_dtype=torch.uint8)
    whole = pyconvx.max_unpool2d(values, indices, 3, 2, output_size=(20, 21))
    for n in range(4):
        one = pyconvx.max_unpool2d(values[n : n + 1], indices[n : n + 1], 3, 2, output_size=(20, 21))
        assert torch.equal(one[0], whole[n])


# torch's own samples, and the errors that torch raises.


@pytest.mark.parametrize("variant", ["", "grad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_own_samples(dtype, variant):
    count = duplicates = 0
    for sample in opinfo("nn.functional.max_unpool2d", variant).sample_inputs("cpu", dtype, requires_grad=True):
        count += 1
        if dtype == torch.bfloat16 and count % 5 and not variant:  # a subset
            continue
        x, (indices, *args) = sample.input, sample.args
        torchs = F.max_unpool2d(x, indices, *args, **sample.kwargs)
        grad = torch.arange(torchs.numel(), dtype=torch.float32).remainder(251).view(torchs.shape).to(dtype)
        output = pyconvx.max_unpool2d(x, indices, *args, **sample.kwargs)
        (grad_input,) = torch.autograd.grad(output, x, grad)
        assert_same_bits(output.detach(), torchs.detach())
        if any(plane.unique().numel() < plane.numel() for plane in indices.flatten(0, -3).flatten(1)):
            # torch gives the gradient of a place to all that were put there, though only one of them stayed.
            duplicates += 1
            batched = (indices, grad) if x.dim() == 4 else (indices[None], grad[None])
            exact = reference.max_unpool2d_backward(array(batched[1]), batched[0].numpy())
            assert_exact(grad_input, exact if x.dim() == 4 else exact[0])
        else:
            assert_same_bits(grad_input, torch.autograd.grad(torchs, x, grad)[0])
    assert count >= (28 if variant else 288)
    assert (duplicates == 0) == bool(variant)


def test_what_torch_refuses_is_refused():
    count = 0
    for error in opinfo("nn.functional.max_unpool2d").error_inputs("cpu"):
        with pytest.raises(pyconvx.InvalidCall):
            pyconvx.max_unpool2d(error.sample_input.input, *error.sample_input.args, **error.sample_input.kwargs)
        count += 1
    assert count


# The checks are checked.


def test_the_checks_see_a_first_that_wins(wrong_kernel):
    x = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    positions = torch.ones(1, 1, 1, 2, dtype=torch.int64)
    exact = reference.max_unpool2d(array(x), positions.numpy(), (1, 4))
    assert_exact(pyconvx.max_unpool2d(x, positions, (1, 2)), exact)
    wrong_kernel(backends.registered()[0], "max_unpool2d", lambda output: output.clamp(max=1))
    with pytest.raises(AssertionError, match="1 of 4 differ"):
        assert_exact(pyconvx.max_unpool2d(x, positions, (1, 2)), exact)


def test_the_checks_see_a_gradient_for_a_value_that_did_not_stay(wrong_kernel):
    x = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2).requires_grad_()
    positions = torch.ones(1, 1, 1, 2, dtype=torch.int64)
    wrong_kernel(backends.registered()[0], "max_unpool2d_backward", torch.ones_like)
    (grad,) = torch.autograd.grad(pyconvx.max_unpool2d(x, positions, (1, 2)).sum(), x)
    with pytest.raises(AssertionError, match="1 of 2 differ"):
        assert_exact(grad, reference.max_unpool2d_backward(np.ones((1, 1, 1, 4)), positions.numpy()))


def test_values_are_moved_and_not_computed(layout):
    # A NaN keeps its payload, an infinity its sign.
    bits = torch.tensor([0x7FC12345, -0x3EDCBB, -0x800000, 0x7F800000], dtype=torch.int32)
    x = in_layout(bits.view(torch.float32).view(1, 4, 1, 1), layout)
    output = pyconvx.max_unpool2d(x, torch.zeros(1, 4, 1, 1, dtype=torch.uint8), 1)
    assert torch.equal(output.contiguous().view(torch.int32).flatten(), bits)
    assert_same_values(output, x)
