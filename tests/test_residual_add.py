"""Residual add and the backward pass of its activation: torch's numbers, for tensors of any rank and layout."""

import pytest
import torch
from checking import DTYPES, assert_same_bits, assert_same_values, in_layout, integers, is_in, normal

import pyconvx
from pyconvx import backends, ops

BACKENDS = ["cpu", "aten"]
SHAPES = [
    (),
    (1,),
    (7,),
    (3, 5),
    (2, 3, 4),
    (2, 17, 5, 6),
    (1, 1, 1, 1),
    (2, 3, 4, 5, 6),
    (0,),
    (2, 0, 3),
    (0, 3, 4, 5),
]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, float("inf"), -float("inf"), float("nan"), 1e-3, -1e-3, 3.0]


def relu(x):
    return torch.where(x <= 0, torch.zeros_like(x), x)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_torchs_bit_for_bit(rng, shape, dtype, activation, backend):
    x, residual = normal(rng, shape, dtype), normal(rng, shape, dtype)
    with pyconvx.backend(backend):
        output = pyconvx.residual_add(x, residual, activation)
    expected = x + residual
    assert_same_bits(output, relu(expected) if activation else expected)
    assert output.stride() == expected.stride()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_special_numbers_are_torchs(dtype, activation, backend):
    """Every pair of zeros, infinities, NaN and numbers around them; more of them than a vector holds."""
    x = torch.tensor(SPECIAL, dtype=dtype).repeat_interleave(len(SPECIAL)).repeat(4)
    residual = torch.tensor(SPECIAL, dtype=dtype).repeat(4 * len(SPECIAL))
    with pyconvx.backend(backend):
        output = pyconvx.residual_add(x, residual, activation)
    expected = x + residual
    if activation is None:
        assert_same_bits(output, expected)
    else:
        assert_same_values(output, torch.relu(expected))
        assert output.isnan().equal(expected.isnan())


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_16_bit_sums_are_rounded_once_to_the_nearest_even(dtype):
    """All pairs of a number and halves of its last place, whose ties go either way."""
    eps = torch.finfo(dtype).eps
    x = (1 + eps * torch.arange(64)).to(dtype)[:, None].expand(64, 64).contiguous()
    residual = (eps / 4 * torch.arange(64)).to(dtype)[None].expand(64, 64).contiguous()
    assert_same_bits(pyconvx.residual_add(x, residual), (x.double() + residual.double()).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_every_16_bit_number_passes(dtype):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    assert_same_bits(pyconvx.residual_add(x, torch.zeros_like(x)), x + torch.zeros_like(x))
    assert_same_values(pyconvx.add_relu(x, torch.zeros_like(x)), torch.relu(x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_backends_agree_bit_for_bit(rng, layout, dtype, backend):
    x, residual = normal(rng, (2, 9, 5, 7), dtype, layout), normal(rng, (2, 9, 5, 7), dtype, layout)
    results = []
    for name in BACKENDS:
        with pyconvx.backend(name):
            output = pyconvx.add_relu(x, residual)
            results.append([output, ops.relu_backward(residual, output)])
    for ours, torchs in zip(*results, strict=True):
        assert_same_bits(ours, torchs)
        assert ours.stride() == torchs.stride()
        assert is_in(layout, ours)


def test_add_relu_is_residual_add_with_relu(rng):
    x, residual = normal(rng, (3, 4)), normal(rng, (3, 4))
    assert_same_bits(pyconvx.add_relu(x, residual), pyconvx.residual_add(x, residual, "relu"))


# Layouts.


def views(rng, dtype=torch.float32):
    """Tensors of 2 x 6 x 4 x 8 in memory of every kind, by name."""
    return {
        "contiguous": normal(rng, (2, 6, 4, 8), dtype),
        "channels_last": normal(rng, (2, 6, 4, 8), dtype, torch.channels_last),
        "columns": normal(rng, (2, 6, 4, 16), dtype)[..., ::2],
        "channels": normal(rng, (2, 9, 4, 8), dtype, torch.channels_last)[:, 2:8],
        "expanded": normal(rng, (1, 6, 1, 8), dtype).expand(2, 6, 4, 8),
        "transposed": normal(rng, (2, 6, 8, 4), dtype).transpose(2, 3),
        "an offset into memory": normal(rng, (2 * 6 * 4 * 8 + 1,), dtype)[1:].view(2, 6, 4, 8),
    }


VIEWS = list(views(torch.Generator()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("x_view", VIEWS)
@pytest.mark.parametrize("residual_view", VIEWS)
def test_the_result_has_the_layout_of_x(rng, x_view, residual_view, backend):
    x, residual = views(rng)[x_view], views(rng)[residual_view]
    before = x.clone(), residual.clone()
    with pyconvx.backend(backend):
        output = pyconvx.add_relu(x, residual)
        grad_input = ops.relu_backward(residual, x)
    assert_same_bits(output, relu(x + residual))
    assert_same_bits(grad_input, torch.where(x <= 0, 0, residual))
    assert output.stride() == grad_input.stride() == torch.empty_like(x).stride()
    assert_same_bits(x, before[0])
    assert_same_bits(residual, before[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tensor_may_be_its_own_residual(rng, layout, backend):
    x = normal(rng, (2, 3, 4, 5), layout=layout)
    with pyconvx.backend(backend):
        assert_same_bits(pyconvx.residual_add(x, x), 2 * x)


# Gradients.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradients_equal_torchs_autograd(rng, layout, dtype, activation, backend):
    x, residual = (integers(rng, (2, 9, 5, 7), dtype, layout).requires_grad_() for _ in range(2))
    grad = normal(rng, (2, 9, 5, 7), dtype, layout)
    torchs = torch.relu(x + residual) if activation else x + residual
    with pyconvx.backend(backend):
        output = pyconvx.residual_add(x, residual, activation)
        grads = torch.autograd.grad(output, (x, residual), grad)
    for ours, other in zip(grads, torch.autograd.grad(torchs, (x, residual), grad), strict=True):
        assert_same_bits(ours, other)
        assert is_in(layout, ours)


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_the_gradient_that_is_wanted_is_computed(rng, wanted):
    tensors = [integers(rng, (3, 4)), integers(rng, (3, 4))]
    tensors[wanted].requires_grad_()
    pyconvx.add_relu(*tensors).sum().backward()
    assert tensors[wanted].grad is not None
    assert tensors[1 - wanted].grad is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_passes_gradients_on(dtype, backend):
    output = torch.tensor([-1.0, -0.0, 0.0, 1.0, float("nan"), -float("nan"), float("inf"), -float("inf")], dtype=dtype)
    with pyconvx.backend(backend):
        grad_input = ops.relu_backward(torch.full_like(output, 3), output)
    assert grad_input.tolist() == [0, 0, 0, 3, 3, 3, 3, 0]


# The mask that training keeps in the output's place.


def bits_in_memory(mask, output):
    """The mask's bits with the shape of the output."""
    bits = (mask[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()
    assert not bits[output.numel() :].any()
    return torch.empty_like(output, dtype=torch.uint8).as_strided_(output.shape, output.stride()).copy_(
        bits[: output.numel()].clone().as_strided(output.shape, output.stride())
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 5, 67, 9)], ids=str)
def test_the_mask_has_the_bits_of_what_passes_gradients(rng, shape, dtype, layout, backend):
    x, residual, grad = (in_layout(integers(rng, shape, dtype), layout) for _ in range(3))
    if x.numel() > 20:
        x.as_strided((x.numel(),), (1,))[3:19:5] = float("nan")
    with pyconvx.backend(backend):
        output, mask = ops.residual_add_mask(x, residual)
        grad_input = ops.relu_backward_mask(grad, mask, output.stride())
        assert_same_bits(output, ops.residual_add(x, residual, "relu"))
        assert_same_bits(grad_input, ops.relu_backward(grad, output))
    assert mask.dtype == torch.uint8
    assert mask.shape == ((x.numel() + 7) // 8,)
    assert output.stride() == grad_input.stride() == torch.empty_like(x).stride()
    assert torch.equal(bits_in_memory(mask, output) == 1, ~(output <= 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_in_another_layout_meets_the_right_bits(rng, backend):
    x, residual = (integers(rng, (2, 17, 5, 6), layout=torch.channels_last) for _ in range(2))
    grad = normal(rng, (2, 17, 5, 6))
    with pyconvx.backend(backend):
        output, mask = ops.residual_add_mask(x, residual)
        grad_input = ops.relu_backward_mask(grad, mask, output.stride())
    assert_same_bits(grad_input, torch.where(output <= 0, 0, grad))
    assert grad_input.stride() == output.stride()


def test_training_keeps_a_bit_an_element(rng):
    x, residual = (normal(rng, (4, 64, 9, 9)).requires_grad_() for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = pyconvx.add_relu(x, residual)
        with pyconvx.backend("aten"):  # torch would need many kernels to make a mask
            pyconvx.add_relu(x, residual)
    assert [(tensor.dtype, tensor.numel()) for tensor in kept] == [
        (torch.uint8, output.numel() // 8),
        (torch.float32, output.numel()),
    ]


@pytest.mark.parametrize("road", ["no_grad", "func", "forward_ad"])
def test_only_training_makes_a_mask(rng, monkeypatch, road):
    monkeypatch.setattr(type(ops.residual_add_mask), "_forward", lambda *_: pytest.fail("a mask was made"))
    x, residual = normal(rng, (3, 4)), normal(rng, (3, 4))
    if road == "no_grad":
        pyconvx.add_relu(x.requires_grad_(False), residual)
    elif road == "func":
        torch.func.grad(lambda x: pyconvx.add_relu(x, residual).sum())(x)
    else:
        torch.func.jvp(lambda x: pyconvx.add_relu(x, residual), (x,), (x,))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"mask": torch.zeros(3, dtype=torch.uint8)}, r"mask has shape \(3,\), expected \(2,\): one bit for each"),
        ({"mask": torch.zeros(2)}, "mask has dtype float32, expected uint8, eight elements a byte"),
        ({"stride": (1,)}, r"stride is \(1,\), expected that of a dense tensor of shape \(3, 4\)"),
        ({"stride": (0, 1)}, r"stride is \(0, 1\), expected that of a dense tensor"),
        ({"stride": (4, 2)}, "pass the stride of the output"),
    ],
    ids=str,
)
def test_a_mask_that_does_not_fit_is_refused(change, sentence):
    arguments = {"grad_output": torch.ones(3, 4), "mask": torch.zeros(2, dtype=torch.uint8), "stride": (4, 1), **change}
    with pytest.raises(pyconvx.InvalidCall, match=sentence):
        ops.relu_backward_mask(*arguments.values())


# The same in every run.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_runs_and_determinism_change_nothing(rng, with_threads, dtype, backend):
    x, residual = normal(rng, (100_003,), dtype), normal(rng, (100_003,), dtype)

    def run():
        output, mask = ops.residual_add_mask(x, residual)
        return output, mask, ops.relu_backward(residual, output), ops.relu_backward_mask(residual, mask, (1,))

    def run_with_determinism():
        torch.use_deterministic_algorithms(True)
        try:
            return run()
        finally:
            torch.use_deterministic_algorithms(False)

    with pyconvx.backend(backend):
        first = run()
        for again in (with_threads(2, run), with_threads(2, run_with_determinism)):
            for one, other in zip(first, again, strict=True):
                assert torch.equal(one, other)


# The checks are checked.


def test_the_checks_see_a_sum_that_is_one_bit_off(rng, wrong_kernel):
    x, residual = normal(rng, (5, 6)), normal(rng, (5, 6))

    def spoil(output):
        output.view(torch.int32)[2, 3] ^= 1
        return output

    wrong_kernel(backends.registered()[0], "residual_add", spoil)
    with pytest.raises(AssertionError, match=r"1 of 30 differ; first at \(2, 3\)"):
        assert_same_bits(pyconvx.residual_add(x, residual), x + residual)


def test_the_checks_see_a_relu_that_swallows_nan(wrong_kernel):
    x = torch.tensor([1.0, float("nan")])
    wrong_kernel(backends.registered()[0], "residual_add", lambda output: torch.nan_to_num(output))
    with pytest.raises(AssertionError, match="1 of 2 differ"):
        assert_same_values(pyconvx.add_relu(x, torch.zeros(2)), torch.relu(x))
