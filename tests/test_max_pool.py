"""Max pooling: the right values from the right places, in every form of index, and gradients that go there."""

import hashlib
import os
import subprocess
import sys
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from checking import (
    DTYPES,
    LAYOUTS,
    array,
    assert_exact,
    assert_same_bits,
    assert_same_values,
    assert_within,
    in_layout,
    integers,
    is_in,
    normal,
    opinfo,
)

import pyconvx
from pyconvx import backends, ops


class Case(NamedTuple):
    n: int
    c: int
    h: int
    w: int
    kernel_size: tuple
    stride: tuple
    padding: tuple = (0, 0, 0, 0)
    dilation: tuple = (1, 1)
    ceil_mode: bool = False

    @property
    def input(self):
        return self.n, self.c, self.h, self.w

    @property
    def geometry(self):
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    @property
    def taps(self):
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def index_dtypes(self):
        return [torch.int64, torch.int32] + ([torch.uint8] if self.taps <= 255 else [])

    @property
    def torch_can(self):
        """torch pads alike on opposite sides, by half of the taps at most."""
        top, bottom, left, right = self.padding
        return top == bottom <= self.kernel_size[0] // 2 and left == right <= self.kernel_size[1] // 2


CASES = {
    "2x2": Case(2, 3, 6, 8, (2, 2), (2, 2)),
    "2x2 on odd sizes": Case(1, 5, 7, 9, (2, 2), (2, 2)),
    "2x2 on odd sizes, ceil": Case(1, 5, 7, 9, (2, 2), (2, 2), ceil_mode=True),
    "3x3 stride 2": Case(2, 4, 9, 11, (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3 stride 2, ceil": Case(1, 3, 8, 10, (3, 3), (2, 2), ceil_mode=True),
    "3x3 stride 1": Case(1, 3, 6, 5, (3, 3), (1, 1), (1, 1, 1, 1)),
    "1x1": Case(2, 3, 4, 5, (1, 1), (1, 1)),
    "1x1 stride 2": Case(2, 3, 5, 6, (1, 1), (2, 2)),
    "1x3": Case(1, 4, 3, 9, (1, 3), (1, 2), (0, 0, 1, 1)),
    "5x1": Case(1, 4, 9, 3, (5, 1), (2, 1), (2, 2, 0, 0)),
    "dilated": Case(1, 3, 9, 10, (3, 2), (1, 2), (1, 1, 1, 1), (2, 3)),
    "dilated, apart": Case(1, 3, 12, 11, (2, 2), (4, 3), (0, 0, 1, 1), (3, 2)),
    "dilated, ceil": Case(1, 3, 8, 9, (2, 3), (3, 2), (1, 1, 1, 1), (3, 2), True),
    "stride beyond the window": Case(1, 3, 11, 13, (2, 2), (3, 5)),
    "stride beyond the window, padded": Case(1, 3, 11, 13, (3, 3), (4, 5), (1, 1, 1, 1)),
    "unequal padding": Case(2, 3, 6, 7, (3, 3), (2, 2), (0, 1, 1, 0)),
    "unequal padding, ceil": Case(1, 3, 6, 7, (3, 4), (2, 3), (1, 0, 0, 2), (1, 1), True),
    "padding of half a dilated window": Case(1, 3, 5, 6, (2, 2), (1, 1), (2, 2, 2, 2), (3, 3)),
    "one pixel": Case(3, 4, 1, 1, (1, 1), (1, 1)),
    "one pixel, padded": Case(1, 2, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1)),
    "the window is the image": Case(2, 3, 5, 6, (5, 6), (1, 1)),
    "the window exceeds the image": Case(1, 3, 2, 3, (4, 5), (1, 1), (1, 1, 1, 1)),
    "windows with no tap inside": Case(1, 2, 2, 5, (2, 2), (1, 1), (1, 1, 1, 1), (3, 3)),
    "windows with no tap inside, beyond the right": Case(1, 2, 4, 1, (2, 2), (1, 1), (0, 0, 1, 1), (1, 2)),
    "windows with no tap inside, apart": Case(1, 2, 3, 1, (1, 2), (1, 4), (0, 0, 1, 1), (1, 2)),
    "1 channel": Case(2, 1, 6, 7, (3, 3), (2, 2), (1, 1, 1, 1)),
    "8 channels": Case(1, 8, 5, 6, (2, 3), (2, 1)),
    "17 channels": Case(2, 17, 5, 4, (3, 3), (2, 2), (1, 1, 1, 1)),
    "64 channels": Case(1, 64, 4, 5, (2, 2), (2, 2)),
    "130 channels": Case(1, 130, 4, 3, (3, 3), (1, 1), (1, 1, 1, 1)),
    "67 columns": Case(1, 2, 4, 67, (3, 3), (1, 1), (1, 1, 1, 1)),
    "71 columns, stride 2": Case(1, 1, 4, 71, (2, 2), (2, 2)),
    "70 columns, stride 3": Case(1, 1, 5, 70, (3, 3), (3, 3), (1, 1, 1, 1)),
    "255 taps": Case(1, 2, 17, 18, (15, 17), (1, 1)),
    "256 taps": Case(1, 2, 17, 18, (16, 16), (1, 1)),
    "289 taps, padded": Case(1, 2, 9, 10, (17, 17), (3, 3), (8, 8, 8, 8)),
}
BY_BACKEND = [
    pytest.param(name, backend, id=f"{name}-{backend}")
    for name, case in CASES.items()
    for backend in ("cpu", "aten")
    if backend == "cpu" or case.torch_can
]


# Of a window without any element inside, torch remembers a place outside the plane, and its backward pass writes there.
TORCHS = [name for name, case in CASES.items() if case.torch_can and "no tap" not in name]


@cache
def contest(name):
    """A case's input, with ties, zeros of both signs, infinities and NaNs, and its maxima, offsets and positions."""
    case, rng = CASES[name], np.random.default_rng(7)
    levels = [-np.inf, -1.0, -0.0, 0.0, 1.0, 2.0, np.inf, np.nan]
    x = rng.choice(levels, size=case.input, p=[0.25, 0.15, 0.2, 0.2, 0.1, 0.05, 0.02, 0.03])
    return x, *reference.max_pool2d(x, *case.geometry)


def image(x, dtype, layout):
    return in_layout(torch.from_numpy(x).to(dtype), layout)


def assert_indices(indices, offsets, positions):
    """Assert that the indices name the winners, and are -1 (255 in a byte) where there is none."""
    expected = torch.from_numpy(positions if indices.dtype == torch.int64 else offsets)
    assert_same_bits(indices, expected.to(indices.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "backend"), BY_BACKEND)
def test_values_and_indices_are_the_references(name, backend, dtype, layout):
    case, (x, values, offsets, positions) = CASES[name], contest(name)
    x = image(x, dtype, layout)
    with pyconvx.backend(backend):
        alone = pyconvx.max_pool2d(x, *case.geometry)
        assert_same_bits(alone, torch.from_numpy(values).to(dtype))
        assert is_in(layout, alone)
        for index_dtype in case.index_dtypes:
            output, indices = pyconvx.max_pool2d(x, *case.geometry, return_indices=True, index_dtype=index_dtype)
            assert_same_bits(output, alone)
            assert indices.dtype == index_dtype
            assert_indices(indices, offsets, positions)
            assert is_in(layout, output)
            assert is_in(layout, indices)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "backend"), BY_BACKEND)
def test_gradients_of_integers_are_exact(rng, name, backend, dtype, layout):
    case, (x, _, _, positions) = CASES[name], contest(name)
    x = image(x, dtype, layout).requires_grad_()
    grad = integers(rng, positions.shape, dtype, layout)
    exact = reference.max_pool2d_backward(array(grad), positions, case.input[2:])
    with pyconvx.backend(backend):
        for index_dtype in (None, *case.index_dtypes):
            if index_dtype is None:
                output = pyconvx.max_pool2d(x, *case.geometry)
            else:
                output, _ = pyconvx.max_pool2d(x, *case.geometry, return_indices=True, index_dtype=index_dtype)
            (grad_input,) = torch.autograd.grad(output, x, grad)
            assert_exact(grad_input, exact)
            assert is_in(layout, grad_input)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["2x2", "3x3 stride 1", "3x3 stride 2", "dilated", "130 channels", "289 taps, padded"])
def test_gradients_are_summed_in_float32_at_least_and_rounded_once(rng, name, dtype, layout):
    case, (x, _, _, positions) = CASES[name], contest(name)
    x = image(x, dtype, layout).requires_grad_()
    grad = normal(rng, positions.shape, dtype, layout)
    (grad_input,) = torch.autograd.grad(pyconvx.max_pool2d(x, *case.geometry), x, grad)
    exact = reference.max_pool2d_backward(array(grad), positions, case.input[2:])
    scale = reference.max_pool2d_backward(np.abs(array(grad)), positions, case.input[2:])
    if dtype in (torch.bfloat16, torch.float16):
        rounded = torch.from_numpy(exact).to(dtype)
        neighbours = torch.nextafter(rounded, rounded * 0), torch.nextafter(rounded, rounded * 2)
        near = (grad_input == rounded) | ((grad_input == neighbours[0]) | (grad_input == neighbours[1]))
        assert near.all()
        assert (grad_input != rounded).sum() <= 0.01 * rounded.numel()
    assert_within(grad_input, exact, scale, case.taps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_gather_reads_the_winners(rng, name, dtype, layout):
    case, (x, _, _, positions) = CASES[name], contest(name)
    other = integers(rng, case.input, dtype, layout)
    planes = array(other).reshape(case.n, case.c, -1)
    exact = np.take_along_axis(planes, np.maximum(positions, 0).reshape(case.n, case.c, -1), 2).reshape(positions.shape)
    exact[positions == reference.NOWHERE] = 0
    for backend in ["cpu"] + ["aten"] * case.torch_can:
        for index_dtype in case.index_dtypes:
            with pyconvx.backend(backend):
                _, indices = ops.max_pool2d(image(x, dtype, layout), *case.geometry, index_dtype, "none")
                gathered = ops.max_pool2d_gather(other, indices, *case.geometry)
            assert_exact(gathered, exact)
            assert is_in(layout, gathered)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.torch_can])
def test_backends_agree_bit_for_bit(name, dtype, layout):
    case, (x, *_) = CASES[name], contest(name)
    x = image(x, dtype, layout)
    special = torch.tensor([float("inf"), float("nan"), -0.0, -2.5, 1.0], dtype=dtype)
    for index_dtype in (None, *case.index_dtypes):
        results = {}
        for backend in ("cpu", "aten"):
            with pyconvx.backend(backend):
                output, indices = ops.max_pool2d(x, *case.geometry, index_dtype, "none")
                results[backend] = [output, indices]
                if index_dtype is not None:
                    grad = in_layout(special[torch.arange(output.numel()) % 5].view(output.shape), layout)
                    results[backend] += [
                        ops.max_pool2d_backward(grad, indices, case.input[2:], *case.geometry),
                        ops.max_pool2d_gather(-x, indices, *case.geometry),
                    ]
        for i, (ours, torchs) in enumerate(zip(*results.values(), strict=True)):
            # torch adds gradients to +0, which makes a -0 one as well; ours puts a single gradient where it goes.
            (assert_same_values if i == 2 else assert_same_bits)(ours, torchs)
            assert ours.stride() == torchs.stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", TORCHS)
def test_sums_of_gradients_are_torchs_bit_for_bit(rng, name, dtype, layout):
    case, (x, *_) = CASES[name], contest(name)
    x = image(x, dtype, layout).requires_grad_()
    torchs = F.max_pool2d(x, case.kernel_size, case.stride, case.padding[::2], *case.geometry[3:])
    grad = normal(rng, torchs.shape, dtype, layout)
    for backend in ("cpu", "aten"):
        with pyconvx.backend(backend):
            ours = torch.autograd.grad(pyconvx.max_pool2d(x, *case.geometry), x, grad)[0]
        assert_same_bits(ours, torch.autograd.grad(torchs, x, grad, retain_graph=True)[0])


@pytest.mark.parametrize("name", TORCHS)
def test_strides_are_torchs(rng, name, layout):
    case = CASES[name]
    x = normal(rng, case.input, layout=layout).requires_grad_()
    ours = pyconvx.max_pool2d(x, *case.geometry, return_indices=True)
    torchs = F.max_pool2d(x, case.kernel_size, case.stride, case.padding[::2], *case.geometry[3:], True)
    assert [result.stride() for result in ours] == [result.stride() for result in torchs]
    grads = [torch.autograd.grad(result[0].sum(), x)[0] for result in (ours, torchs)]
    assert grads[0].stride() == grads[1].stride()


# What wins.


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_of_equals_wins_and_zeros_are_equal(dtype, layout):
    x = image(np.array([[-0.0, 0.0, 1.0], [0.0, -0.0, 1.0]]).reshape(1, 1, 2, 3), dtype, layout)
    output, offsets = pyconvx.max_pool2d(x, 2, 1, return_indices=True, index_dtype=torch.uint8)
    assert offsets.flatten().tolist() == [0, 1]
    assert torch.signbit(output).flatten().tolist() == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_window_of_minus_infinity_gives_its_first_element_inside(dtype, layout):
    x = in_layout(torch.full((1, 9, 2, 2), -torch.inf, dtype=dtype), layout)
    output, positions = pyconvx.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert (output == -torch.inf).all()
    assert not positions.any()
    _, offsets = pyconvx.max_pool2d(x, 3, 2, 1, return_indices=True, index_dtype=torch.uint8)
    assert (offsets == 4).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", range(9))
def test_nan_wins_wherever_it_stands(dtype, layout, place):
    x = torch.full((9,), torch.inf, dtype=dtype)
    x[place] = torch.nan
    x = in_layout(x.view(1, 1, 3, 3).expand(1, 33, 3, 3), layout)
    output, positions = pyconvx.max_pool2d(x, 3, return_indices=True)
    assert output.isnan().all()
    assert (positions == place).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_are_told_apart(dtype, layout):
    tiny = torch.finfo(dtype).smallest_normal / 4
    x = image(np.array([0.0, tiny, 2 * tiny, -tiny]).reshape(1, 1, 2, 2), dtype, layout)
    output, positions = pyconvx.max_pool2d(x, 2, return_indices=True)
    assert output.item() == 2 * tiny
    assert positions.item() == 2


def test_positions_beyond_16_bits_are_right(layout):
    # Half a million columns times rows: no vector lane of a 16-bit element holds such a position.
    x = torch.arange(4 * 12000).remainder(251).view(1, 1, 4, 12000)
    for dtype in (torch.bfloat16, torch.float16):
        ours = pyconvx.max_pool2d(in_layout(x.to(dtype), layout), 3, (1, 7), return_indices=True)
        torchs = F.max_pool2d(x.to(dtype), 3, (1, 7), return_indices=True)
        for mine, other in zip(ours, torchs, strict=True):
            assert_same_bits(mine, other)


def test_a_window_of_more_than_255_elements_has_offsets_of_32_bits(rng):
    x = integers(rng, (1, 2, 20, 20)).requires_grad_()
    with pytest.raises(pyconvx.InvalidCall, match=r"torch\.uint8 indices tell at most 255 elements"):
        pyconvx.max_pool2d(x, 16, return_indices=True, index_dtype=torch.uint8)
    assert ops.offset_dtype((15, 17)) == torch.uint8
    assert ops.offset_dtype((16, 16)) == torch.int32
    (grad,) = torch.autograd.grad(pyconvx.max_pool2d(x, 16).sum(), x)
    assert grad.sum() == 2


# Inputs of every kind.


def test_the_stride_is_the_kernel_size_if_none_is_given(rng):
    x = integers(rng, (1, 2, 6, 9))
    for none_given in (None, [], ()):
        assert_same_bits(pyconvx.max_pool2d(x, (2, 3), none_given), F.max_pool2d(x, (2, 3)))


def test_an_unbatched_image_is_a_batch_of_one(rng):
    x = integers(rng, (3, 6, 9)).requires_grad_()
    ours, torchs = (f(x, 3, 2, 1, return_indices=True) for f in (pyconvx.max_pool2d, F.max_pool2d))
    assert_same_bits(ours[0].detach(), torchs[0].detach())
    assert_same_bits(ours[1], torchs[1])
    grads = [torch.autograd.grad(result[0].sum(), x)[0] for result in (ours, torchs)]
    assert_same_bits(*grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32, torch.int64])
def test_an_empty_batch_gives_empty_results(dtype, layout, index_dtype):
    x = torch.empty((0, 4, 7, 8), dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    output, indices = pyconvx.max_pool2d(x, 3, 2, 1, return_indices=True, index_dtype=index_dtype)
    assert output.shape == indices.shape == (0, 4, 4, 4)
    assert indices.dtype == index_dtype
    (grad,) = torch.autograd.grad(output.sum(), x)
    assert grad.shape == x.shape


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize(
    "view",
    [
        lambda rng: integers(rng, (2, 17, 6, 14))[..., ::2],
        lambda rng: integers(rng, (2, 17, 9, 7))[:, :, 1:7],
        lambda rng: integers(rng, (2, 40, 6, 7), layout=torch.channels_last)[:, 5:22],
        lambda rng: integers(rng, (2, 1, 6, 1)).expand(-1, 17, -1, 7),
        lambda rng: integers(rng, (2, 17, 7, 6)).transpose(2, 3),
        lambda rng: integers(rng, (17, 2, 6, 7)).transpose(0, 1),
    ],
    ids=["columns", "rows", "channels", "expanded", "transposed", "images and channels exchanged"],
)
def test_inputs_that_are_not_dense_give_the_same(rng, view, backend):
    x = view(rng).detach().requires_grad_()
    grad = integers(rng, (2, 17, 4, 3)).transpose(2, 3)
    with pyconvx.backend(backend):
        output, indices = pyconvx.max_pool2d(x, 3, 2, 1, return_indices=True)
        (grad_input,) = torch.autograd.grad(output, x, grad)
    torchs, positions = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert_same_bits(output.detach(), torchs.detach())
    assert_same_bits(indices, positions)
    assert_same_bits(grad_input, torch.autograd.grad(torchs, x, grad)[0])
    assert output.stride() == torchs.stride()


# The same in every run.


def pooled(x, grad):
    """All that pooling computes of one input, as a list."""
    results = []
    for index_dtype in (torch.uint8, torch.int64):
        for stride in (1, 3):
            geometry = (3, 3), (stride, stride), (1, 1, 1, 1), (1, 1), False
            output, indices = ops.max_pool2d(x, *geometry, index_dtype, "none")
            part = grad[:, :, : output.shape[2], : output.shape[3]]
            grad_input = ops.max_pool2d_backward(part, indices, x.shape[2:], *geometry)
            results += [output, indices, grad_input, ops.max_pool2d_gather(x, indices, *geometry)]
    return results


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_runs_and_determinism_change_nothing(rng, with_threads, dtype, layout, backend):
    x, grad = normal(rng, (2, 17, 33, 35), dtype, layout), normal(rng, (2, 17, 33, 35), dtype, layout)
    with pyconvx.backend(backend):
        first = pooled(x, grad)
        for again in (with_threads(2, pooled, x, grad), with_threads(2, with_determinism, pooled, x, grad)):
            for one, other in zip(first, again, strict=True):
                assert torch.equal(one, other)


def with_determinism(function, *args):
    """Run with torch's switch on, under which memory that a kernel forgot to write shows as NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        return function(*args)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_images_results_do_not_depend_on_its_batch(rng, with_threads, dtype, layout):
    x, grad = normal(rng, (5, 9, 21, 22), dtype, layout), normal(rng, (5, 9, 21, 22), dtype, layout)
    whole = with_threads(2, pooled, x, grad)
    for n in range(5):
        for one, all_of_them in zip(pooled(x[n : n + 1], grad[n : n + 1]), whole, strict=True):
            assert torch.equal(one[0], all_of_them[n])


def digest():
    """What pooling gives for random numbers of all dtypes, in both layouts, in a few bytes."""
    rng, state = torch.Generator().manual_seed(3), hashlib.sha256()
    for dtype in DTYPES:
        for layout in LAYOUTS.values():
            x, grad = normal(rng, (2, 37, 13, 29), dtype, layout), normal(rng, (2, 37, 13, 29), dtype, layout)
            for result in pooled(x, grad):
                state.update(result.contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


@pytest.mark.parametrize("instruction_set", ["baseline", "avx2"])
def test_instruction_sets_agree_bit_for_bit(instruction_set):
    program = "import pyconvx, test_max_pool; print(pyconvx._C.cpu.instruction_set(), test_max_pool.digest())"
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYCONVX_CPU_INSTRUCTION_SET": instruction_set, "PYTHONPATH": path}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    used, digest_there = ran.stdout.split()
    assert used in (instruction_set, "baseline")  # the machine may lack it
    assert digest_there == digest()


# torch's own samples, and the errors that torch raises.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_own_samples(dtype):
    count = 0
    for sample in opinfo("nn.functional.max_pool2d").sample_inputs("cpu", dtype, requires_grad=True):
        count += 1
        if dtype == torch.bfloat16 and count % 7:  # a subset
            continue
        results = []
        for function in (pyconvx.max_pool2d, F.max_pool2d):
            result = function(sample.input, *sample.args, **sample.kwargs)
            output, *indices = result if isinstance(result, tuple) else (result,)
            grad = torch.arange(output.numel(), dtype=torch.float32).remainder(8).view(output.shape).to(dtype)
            (grad_input,) = torch.autograd.grad(output, sample.input, grad)
            results.append([output.detach(), *indices, grad_input])
        for ours, torchs in zip(*results, strict=True):
            try:
                assert_same_bits(ours, torchs)
                assert ours.stride() == torchs.stride()
            except AssertionError as difference:
                raise AssertionError(f"{sample}") from difference
    assert count >= 1440


def test_what_torch_refuses_is_refused():
    count = 0
    for error in opinfo("nn.functional.max_pool2d").error_inputs("cpu"):
        with pytest.raises(pyconvx.InvalidCall):
            pyconvx.max_pool2d(error.sample_input.input, *error.sample_input.args, **error.sample_input.kwargs)
        count += 1
    assert count >= 7


# The activation.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "backend"), BY_BACKEND)
def test_relu_is_of_the_input(rng, name, backend, dtype, layout):
    """Values, indices and gradients are those of a ReLU and a pooling behind it."""
    case, (x, *_) = CASES[name], contest(name)
    x = image(x, dtype, layout).requires_grad_()
    with pyconvx.backend(backend):
        for index_dtype in case.index_dtypes:
            results = []
            for input, activation in ((x, "relu"), (torch.relu(x), None)):
                output, indices = pyconvx.max_pool2d(
                    input, *case.geometry, return_indices=True, index_dtype=index_dtype, activation=activation
                )
                grad = integers(rng.manual_seed(5), output.shape, dtype, layout)
                results.append((output.detach(), indices, *torch.autograd.grad(output, x, grad)))
            for fused, separate in zip(*results, strict=True):
                assert_same_values(fused, separate)
        alone = pyconvx.max_pool2d(x, *case.geometry, activation="relu")
        assert_same_values(alone.detach(), results[0][0])
        assert_same_values(*(torch.autograd.grad(alone, x, grad)[0], results[0][2]))
        layer = pyconvx.nn.MaxPool2d(*case.geometry[:4], ceil_mode=case.ceil_mode)
        assert_same_values(layer(x.detach(), activation="relu"), results[0][0])


def test_another_activation_is_refused():
    with pytest.raises(pyconvx.InvalidCall, match="max_pool2d: activation is 'elu', expected one of None, 'relu'"):
        pyconvx.max_pool2d(torch.ones(1, 1, 4, 4), 2, activation="elu")


# Padding 'same' and 'valid'.


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, (5, 4)])
@pytest.mark.parametrize("size", [(7, 8), (8, 8), (9, 5), (2, 6)])
def test_same_padding(size, kernel_size, stride, dilation, layout, rng):
    """ceil(H / stride) windows, the first of which begin at half of what they reach beyond the image, rounded down."""
    x = normal(rng, (2, 3, *size), layout=layout)
    output, indices = pyconvx.max_pool2d(
        x, kernel_size, stride, "same", dilation, return_indices=True, index_dtype=torch.uint8
    )
    kernel, step = (value if isinstance(value, tuple) else (value, value) for value in (kernel_size, stride))
    outputs = [-(-size[axis] // step[axis]) for axis in (0, 1)]
    assert output.shape == indices.shape == (2, 3, *outputs) and is_in(layout, output)
    reach = [(outputs[a] - 1) * step[a] + dilation * (kernel[a] - 1) + 1 for a in (0, 1)]
    before = [max(reach[axis] - size[axis], 0) // 2 for axis in (0, 1)]
    for p in range(outputs[0]):
        for q in range(outputs[1]):
            rows = [h for r in range(kernel[0]) if 0 <= (h := p * step[0] - before[0] + r * dilation) < size[0]]
            columns = [w for s in range(kernel[1]) if 0 <= (w := q * step[1] - before[1] + s * dilation) < size[1]]
            assert torch.equal(output[:, :, p, q], x[:, :, rows][..., columns].amax((2, 3)))
    assert torch.equal(pyconvx.nn.MaxPool2d(kernel_size, stride, "same", dilation)(x[0]), output[0])
    restored = pyconvx.max_unpool2d(output, indices, kernel_size, stride, "same", size, dilation=dilation)
    assert restored.shape == x.shape
    winners = restored != 0
    assert torch.equal(restored[winners], x[winners])
    assert set(restored[winners].tolist()) == set(output.flatten().tolist())


def test_valid_padding_is_none(rng):
    x = normal(rng, (1, 2, 7, 6))
    output, indices = pyconvx.max_pool2d(x, 3, 2, "valid", return_indices=True)
    expected, where = pyconvx.max_pool2d(x, 3, 2, return_indices=True)
    assert torch.equal(output, expected) and torch.equal(indices, where)
    restored = pyconvx.max_unpool2d(output, indices, 3, 2, "valid", (7, 6))
    assert torch.equal(restored, pyconvx.max_unpool2d(output, indices, 3, 2, output_size=(7, 6)))


def test_same_padding_has_its_gradient_and_compiles(rng):
    x = normal(rng, (1, 2, 7, 6), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pyconvx.max_pool2d(x, 3, 2, "same"), x)
    graph = torch.compile(lambda x: pyconvx.max_pool2d(x, 3, 2, "same"), fullgraph=True, backend="eager", dynamic=True)
    for height in (7, 8, 9):
        image = normal(rng, (1, 2, height, 6))
        assert torch.equal(graph(image), pyconvx.max_pool2d(image, 3, 2, "same"))


# The checks are checked.


def test_the_checks_see_a_kernel_that_is_a_little_wrong(wrong_kernel):
    name = "3x3 stride 2"
    x, values, offsets, positions = contest(name)
    x = image(x, torch.float32, torch.contiguous_format)

    def spoil(result):
        result[1][0, 1, 2, 2] += 1
        return result

    wrong_kernel(backends.registered()[0], "max_pool2d", spoil)
    output, indices = pyconvx.max_pool2d(x, *CASES[name].geometry, return_indices=True)
    assert_same_bits(output, torch.from_numpy(values).float())
    with pytest.raises(AssertionError, match=r"1 of 240 differ; first at \(0, 1, 2, 2\)"):
        assert_indices(indices, offsets, positions)


def test_the_checks_see_a_zero_of_the_wrong_sign(wrong_kernel):
    x = torch.zeros(1, 1, 2, 2)
    wrong_kernel(backends.registered()[0], "max_pool2d", lambda result: (-result[0], result[1]))
    output = pyconvx.max_pool2d(x, 2)
    assert_same_values(output, torch.zeros(1, 1, 1, 1))
    with pytest.raises(AssertionError, match="1 of 1 differ"):
        assert_same_bits(output, torch.zeros(1, 1, 1, 1))


def test_the_checks_see_a_gradient_that_is_one_bit_off(rng, wrong_kernel):
    x = integers(rng, (1, 1, 6, 6), torch.bfloat16).requires_grad_()

    def spoil(grad):
        return grad * (1 + torch.finfo(grad.dtype).eps)

    wrong_kernel(backends.registered()[0], "max_pool2d_backward", spoil)
    output = pyconvx.max_pool2d(x, 3, 1)
    _, _, positions = reference.max_pool2d(array(x), (3, 3), (1, 1))
    (grad_input,) = torch.autograd.grad(output, x, torch.ones_like(output))
    with pytest.raises(AssertionError, match="differ"):
        assert_exact(grad_input, reference.max_pool2d_backward(np.ones(output.shape), positions, (6, 6)))
