"""Derivatives of every operation: backward, forward and of second order, by autograd and by torch.func, batched too."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from operations import FIRST, LAYOUTS, SAMPLES, both_layouts, differentiable_results, in_layout, over, results
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import pyconvx

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit")

DIFFERENTIATED = [sample for sample in SAMPLES if sample.title != "no-images"]


def of_differentiable(sample, tensors):
    """Return the sample's first result as a function of the operands that have a gradient, and these."""
    where = sample.differentiable(tensors)

    def function(*operands):
        given = list(tensors)
        for position, operand in zip(where, operands, strict=True):
            given[position] = operand
        return results(sample(*given))[0]

    return function, tuple(tensors[position] for position in where)


def cotangent(result, layout=torch.contiguous_format):
    generator = torch.Generator().manual_seed(1)
    return in_layout(torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result.dtype), layout)


def tangents(operands):
    return tuple(cotangent(operand) for operand in operands)


def reference_gradients(function, operands, weights):
    operands = [operand.detach().requires_grad_() for operand in operands]
    return torch.autograd.grad(function(*operands), operands, weights)


@both_layouts
@over(DIFFERENTIATED)
def test_gradients_are_the_slopes(sample, layout):
    """Backward, forward-mode, and both of a whole batch of directions, against finite differences."""
    function, operands = of_differentiable(sample, sample.tensors(layout, grad=True))
    assert gradcheck(
        function, operands, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


@both_layouts
@over(DIFFERENTIATED)
def test_second_derivatives_are_the_slopes_of_the_first(sample, layout):
    function, operands = of_differentiable(sample, sample.tensors(layout, grad=True))
    assert gradgradcheck(function, operands, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@both_layouts
@over([sample for sample in DIFFERENTIATED if sample.options != ("none",)])  # a plain add hands gradients through
def test_gradients_are_in_the_layout_of_the_call(sample, layout):
    function, operands = of_differentiable(sample, sample.tensors(layout, grad=True))
    result = function(*operands)
    other = next(other for other in LAYOUTS.values() if other is not layout)
    weights = cotangent(result, other)  # the gradient that comes in need not have it
    for operand, gradient in zip(operands, torch.autograd.grad(result, operands, weights), strict=True):
        assert gradient.dim() != 4 or gradient.is_contiguous(memory_format=layout)
        assert gradient.dtype == operand.dtype


@over(SAMPLES)
def test_any_selection_of_operands_can_ask_for_gradients(sample):
    tensors = sample.tensors(torch.contiguous_format)
    function, operands = of_differentiable(sample, tensors)
    weights = cotangent(function(*operands))
    expected = reference_gradients(function, operands, weights)
    for asking in itertools.product((False, True), repeat=len(operands)):
        given = [operand.detach().requires_grad_(asks) for operand, asks in zip(operands, asking, strict=True)]
        result = function(*given)
        assert result.requires_grad == any(asking)
        if any(asking):
            result.backward(weights)
        for operand, asks, want in zip(given, asking, expected, strict=True):
            assert (operand.grad is not None) == asks
            if asks:
                torch.testing.assert_close(operand.grad, want)


@both_layouts
@over(DIFFERENTIATED)
def test_func_grad_vjp_and_jvp_agree_with_autograd(sample, layout):
    function, operands = of_differentiable(sample, sample.tensors(layout))
    everything = tuple(range(len(operands)))
    result = function(*operands)
    weights, directions = cotangent(result), tangents(operands)
    expected = reference_gradients(function, operands, weights)

    torch.testing.assert_close(grad(lambda *given: (function(*given) * weights).sum(), everything)(*operands), expected)
    torch.testing.assert_close(vjp(function, *operands)[1](weights), expected)
    primal, tangent = jvp(function, operands, directions)
    torch.testing.assert_close(primal, result)
    slope = sum((gradient * direction).sum() for gradient, direction in zip(expected, directions, strict=True))
    torch.testing.assert_close((tangent * weights).sum(), slope)
    assert tangent.dim() != 4 or tangent.is_contiguous(memory_format=layout)


@both_layouts
@over(DIFFERENTIATED)
def test_dual_numbers_carry_the_tangent_of_any_selection_of_operands(sample, layout):
    function, operands = of_differentiable(sample, sample.tensors(layout))
    directions = tangents(operands)
    for moving in itertools.product((False, True), repeat=len(operands)):
        still = [d if moves else torch.zeros_like(d) for d, moves in zip(directions, moving, strict=True)]
        _, expected = jvp(function, operands, tuple(still))
        with forward_ad.dual_level():
            given = [
                forward_ad.make_dual(operand, direction) if moves else operand
                for operand, direction, moves in zip(operands, directions, moving, strict=True)
            ]
            _, tangent = forward_ad.unpack_dual(function(*given))
        assert (tangent is not None) == any(moving)
        if tangent is not None:
            torch.testing.assert_close(tangent, expected)


@over(FIRST)
def test_transforms_reach_the_registered_operation_itself(sample):
    """torch.ops.pyconvx.*, called past pyconvx: as in a graph that was compiled or exported."""
    tensors = sample.tensors(torch.contiguous_format)
    where, operands = sample.differentiable(tensors), of_differentiable(sample, tensors)[1]

    def function(*operands):
        given = list(tensors)
        for position, operand in zip(where, operands, strict=True):
            given[position] = operand
        return results(sample.operator.op(*given, *sample.options))[0]

    result = function(*operands)
    weights, directions = cotangent(result), tangents(operands)
    everything = tuple(range(len(operands)))
    gradients = grad(lambda *given: (function(*given) * weights).sum(), everything)(*operands)
    torch.testing.assert_close(gradients, reference_gradients(function, operands, weights))
    slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    torch.testing.assert_close((jvp(function, operands, directions)[1] * weights).sum(), slope)
    torch.testing.assert_close(vmap(function)(*(torch.stack([x, x]) for x in operands))[1], result)


@over(FIRST)
def test_jacobians_by_rows_and_by_columns_agree(sample):
    function, operands = of_differentiable(sample, sample.tensors(torch.contiguous_format))
    everything = tuple(range(len(operands)))
    by_rows, by_columns = (jacobian(function, everything)(*operands) for jacobian in (jacrev, jacfwd))
    torch.testing.assert_close(by_rows, by_columns)


def test_hessian_of_a_fused_convolution():
    generator = torch.Generator().manual_seed(0)
    input, weight = (torch.randn(1, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))

    ours = hessian(lambda w: pyconvx.conv2d(input, w, padding=1, activation="relu").pow(2).sum())(weight)
    torchs = hessian(lambda w: torch.conv2d(input, w, padding=1).relu().pow(2).sum())(weight)
    torch.testing.assert_close(ours, torchs)


@over(FIRST)
def test_transforms_nest_in_autograd_and_no_grad(sample):
    function, operands = of_differentiable(sample, sample.tensors(torch.contiguous_format))
    everything = tuple(range(len(operands)))
    weights = cotangent(function(*operands))

    def loss(*given):
        return (function(*given) * weights).pow(2).sum()

    def of_gradients(*given):
        return sum(gradient.pow(2).sum() for gradient in grad(loss, everything)(*given))

    def by_autograd(*given):
        return sum(x.pow(2).sum() for x in torch.autograd.grad(loss(*given), given, create_graph=True))

    leaves = [operand.detach().requires_grad_() for operand in operands]
    expected = torch.autograd.grad(by_autograd(*leaves), leaves)
    torch.testing.assert_close(torch.autograd.grad(of_gradients(*leaves), leaves), expected)
    torch.testing.assert_close(grad(of_gradients, everything)(*operands), expected)
    with torch.no_grad():
        assert not of_gradients(*leaves).requires_grad
        torch.testing.assert_close(grad(of_gradients, everything)(*leaves), expected)

        def partly(*given):
            return loss(*given[:-1], given[-1].detach()) + given[-1].sum()

        torch.testing.assert_close(grad(partly, len(operands) - 1)(*leaves), torch.ones_like(operands[-1]))


def test_no_grad_inside_a_transform_stops_the_gradient():
    def loss(weight):
        with torch.no_grad():
            constant = pyconvx.conv2d(images, weight)
        return (constant * pyconvx.conv2d(images, weight)).sum()

    images, weight = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3)
    got = grad(loss)(weight)
    leaf = weight.clone().requires_grad_()
    torch.testing.assert_close(got, torch.autograd.grad(loss(leaf), leaf)[0])


@both_layouts
@over(SAMPLES)
def test_vmap_equals_a_loop_for_every_choice_of_batched_operands(sample, layout):
    plain, *more = [sample.tensors(layout, seed=seed) for seed in range(3)]
    there = [position for position, tensor in enumerate(plain) if tensor is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it falls back to a loop
        for batched in itertools.product((None, 0, -1), repeat=len(there)):
            if set(batched) == {None}:
                continue
            in_dims, given = [None] * len(plain), list(plain)
            calls = [list(plain) for _ in range(3)]
            for position, dim in zip(there, batched, strict=True):
                if dim is None:
                    continue
                variants = [tensors[position] for tensors in (plain, *more)]
                in_dims[position], given[position] = dim, torch.stack(variants, dim)
                for call, variant in zip(calls, variants, strict=True):
                    call[position] = variant
            got = results(vmap(sample, tuple(in_dims))(*given))
            want = [torch.stack(each) for each in zip(*(results(sample(*call)) for call in calls), strict=True)]
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("outer, inner", [(0, 0), (1, None), (None, 2)], ids=str)
@over(FIRST)
def test_vmap_of_vmap_equals_two_loops(sample, outer, inner):
    """The first operand carries one batch more per vmap that is over it; a None leaves it out."""
    tensors = sample.tensors(torch.contiguous_format)
    rest = (None,) * (len(tensors) - 1)
    first = torch.stack([sample.tensors(torch.contiguous_format, seed=seed)[0] for seed in range(2)])
    if outer is None or inner is None:
        dim = inner if outer is None else outer
        got = vmap(sample, (dim, *rest))(first.movedim(0, dim), *tensors[1:])
        want = [torch.stack(each) for each in zip(*(results(sample(x, *tensors[1:])) for x in first), strict=True)]
        torch.testing.assert_close(results(got), want)
        return
    both = torch.stack([first, first.flip(0)])
    got = vmap(vmap(sample, (inner, *rest)), (outer, *rest))(both, *tensors[1:])
    for i, j in itertools.product(range(2), repeat=2):
        want = results(sample(both[i, j], *tensors[1:]))
        torch.testing.assert_close([result[i, j] for result in results(got)], want)


@both_layouts
@over(DIFFERENTIATED)
def test_gradients_per_sample_equal_a_loop(sample, layout):
    """vmap(grad): every operand has a batch dimension in front of the call's own."""
    batches = [sample.tensors(layout, seed=seed) for seed in range(2)]
    calls = [of_differentiable(sample, tensors) for tensors in batches]
    weights = cotangent(calls[0][0](*calls[0][1]))
    expected = [reference_gradients(function, operands, weights) for function, operands in calls]

    where = sample.differentiable(batches[0])
    stacked = [None if each[0] is None else torch.stack(each) for each in zip(*batches, strict=True)]

    def loss(*tensors):
        return (results(sample(*tensors))[0] * weights).sum()

    got = vmap(grad(loss, tuple(where)), tuple(None if x is None else 0 for x in stacked))(*stacked)
    torch.testing.assert_close(got, tuple(torch.stack(each) for each in zip(*expected, strict=True)))


def test_gradients_per_sample_of_a_network_equal_a_loop():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        pyconvx.nn.Conv2d(1, 4, 3, padding=1), pyconvx.nn.MaxPool2d(2), torch.nn.ReLU(),
        pyconvx.nn.ConvTranspose2d(4, 2, 2, 2), torch.nn.Flatten(),
    ).double()  # fmt: skip
    parameters = dict(network.named_parameters())
    images = torch.randn(5, 1, 6, 6, dtype=torch.float64)

    def loss(parameters, image):
        return functional_call(network, parameters, (image[None],)).pow(2).sum()

    got = vmap(grad(loss), (None, 0))(parameters, images)
    for name, parameter in parameters.items():
        for index, image in enumerate(images):
            (want,) = torch.autograd.grad(loss(parameters, image), parameter)
            torch.testing.assert_close(got[name][index], want)


@over(FIRST)
def test_gradients_of_all_results_can_be_missing(sample):
    """A result that takes no part in the loss brings no gradient, not an error."""
    tensors = sample.tensors(torch.contiguous_format, grad=True)
    results_ = differentiable_results(sample(*tensors))
    unrelated = torch.ones((), dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(unrelated * 2, [unrelated, *results_], allow_unused=True)
    assert all(gradient is None for gradient in gradients[1:])
