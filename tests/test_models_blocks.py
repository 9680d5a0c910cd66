"""What the networks share: a convolution with what follows it, as few operations as there can be."""

import pytest
import torch
import torch.nn.functional as F
from checking import normal
from torch import nn

import pyconvx
from pyconvx.nn import Conv2d, ConvBNReLU, Sequential, fused_conv

BOTH = pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])


def make(bias=True, **options):
    torch.manual_seed(0)
    conv, bn = Conv2d(4, 6, 3, padding=1, bias=bias, **options), nn.BatchNorm2d(6)
    nn.init.normal_(bn.running_mean)
    nn.init.uniform_(bn.running_var, 0.5, 2)
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    return conv, bn.eval()


def one_by_one(x, conv, bn=None, activation=None, residual=None):
    x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    x = x if bn is None else bn(x)
    x = x if residual is None else x + residual
    return F.relu(x) if activation else x


class Frozen:
    """frozen_filters(), or nothing."""

    def __init__(self, frozen):
        self.blocks = [torch.no_grad(), pyconvx.frozen_filters()] if frozen else [torch.no_grad()]

    def __enter__(self):
        for block in self.blocks:
            block.__enter__()

    def __exit__(self, *exception):
        for block in reversed(self.blocks):
            block.__exit__(*exception)


def operations(call):
    """Return the names of pyconvx's operations in a call, and torch's layers' names."""
    return [row["operation"] for row in pyconvx.explain(call)]


@BOTH
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("with_bn", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_fused_conv(frozen, with_residual, activation, with_bn, bias, layout, rng):
    conv, bn = make(bias)
    x, residual = normal(rng, (2, 4, 7, 5), layout=layout), normal(rng, (2, 6, 7, 5), layout=layout)
    args = (conv, bn if with_bn else None, activation, residual if with_residual else None)
    expected = one_by_one(x, *args)
    with Frozen(frozen):
        for _ in range(2):  # the second time with what was kept
            output = fused_conv(x, *args)
            torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
            assert output.is_contiguous(memory_format=layout)
        assert len(operations(lambda: fused_conv(x, *args))) == (1 if frozen or not with_bn else 1 + with_residual)


def test_gradients_are_those_of_the_separate_operations(rng):
    conv, bn = make()
    x, residual = normal(rng, (2, 4, 7, 5)).requires_grad_(), normal(rng, (2, 6, 7, 5)).requires_grad_()
    wanted = (x, residual, *conv.parameters(), *bn.parameters())
    for training in (False, True):
        bn.train(training)
        with pyconvx.frozen_filters():
            ours = torch.autograd.grad(fused_conv(x, conv, bn, "relu", residual).pow(2).sum(), wanted)
        theirs = torch.autograd.grad(one_by_one(x, conv, bn, "relu", residual).pow(2).sum(), wanted)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_folded_filters_follow_every_change(rng):
    conv, bn = make()
    x = normal(rng, (2, 4, 7, 5))
    with Frozen(True):
        fused_conv(x, conv, bn)
        for tensor in (conv.weight, conv.bias, bn.weight, bn.bias, bn.running_mean, bn.running_var):
            tensor.add_(0.5)
            torch.testing.assert_close(fused_conv(x, conv, bn), one_by_one(x, conv, bn), rtol=1e-5, atol=1e-5)
        bn.train()  # uses the batch's statistics, and changes its own
        before = bn.running_mean.clone()
        torch.testing.assert_close(fused_conv(x, conv, bn), one_by_one(x, conv, bn), rtol=1e-5, atol=1e-5)
        assert not torch.equal(bn.running_mean, before)


def test_batch_norms_without_weights_or_statistics(rng):
    conv, _ = make()
    x = normal(rng, (2, 4, 7, 5))
    with Frozen(True):
        for bn in (nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6, track_running_stats=False)):
            bn.eval()
            torch.testing.assert_close(fused_conv(x, conv, bn), one_by_one(x, conv, bn), rtol=1e-5, atol=1e-5)


def test_sixteen_bits_are_folded_in_float32(rng):
    conv, bn = make()
    x = normal(rng, (2, 4, 7, 5))
    exact = one_by_one(x.double(), conv.double(), bn.double())
    conv, bn, x = conv.bfloat16(), bn.bfloat16(), x.bfloat16()
    with Frozen(True):
        output = fused_conv(x, conv, bn)
    assert output.dtype == torch.bfloat16
    assert (output - exact).abs().max() <= 0.03 * exact.abs().max()


@BOTH
def test_hooks_see_every_layer(frozen, rng):
    conv, bn = make()
    x, seen = normal(rng, (2, 4, 7, 5)), []
    expected = one_by_one(x, conv, bn, "relu")
    layers = Sequential(conv, bn, nn.ReLU())
    for layer in layers:
        layer.register_forward_hook(lambda module, _, output: seen.append((type(module).__name__, output.min() < 0)))
    with Frozen(frozen):
        torch.testing.assert_close(layers(x), expected, rtol=1e-5, atol=1e-5)
    assert seen == [("Conv2d", True), ("BatchNorm2d", True), ("ReLU", False)]


@BOTH
def test_layers_that_are_not_ours_and_padding_modes(frozen, rng):
    _, bn = make()
    x, residual = normal(rng, (2, 4, 7, 5)), normal(rng, (2, 6, 7, 5))

    class Doubled(Conv2d):
        def forward(self, input):
            return 2 * super().forward(input)

    doubled, group_norm = Doubled(4, 6, 3, padding=1), nn.GroupNorm(2, 6)
    theirs, reflecting = nn.Conv2d(4, 6, 3, padding=1), Conv2d(4, 6, 3, padding=1, padding_mode="reflect")
    with Frozen(frozen):
        expected = one_by_one(x, theirs, bn, "relu", residual)
        torch.testing.assert_close(fused_conv(x, theirs, bn, "relu", residual), expected)
        expected = F.relu(2 * one_by_one(x, doubled))
        torch.testing.assert_close(fused_conv(x, doubled, None, "relu"), expected, rtol=1e-5, atol=1e-5)
        expected = group_norm(one_by_one(x, make()[0]))
        torch.testing.assert_close(fused_conv(x, make()[0], group_norm), expected, rtol=1e-5, atol=1e-5)
        expected = F.relu(bn(nn.Conv2d.forward(reflecting, x)))
        torch.testing.assert_close(fused_conv(x, reflecting, bn, "relu"), expected, rtol=1e-5, atol=1e-5)


@BOTH
def test_sequential_is_torchs_in_fewer_operations(frozen, rng):
    ours = Sequential(*make(), nn.ReLU(), nn.MaxPool2d(2), Conv2d(6, 5, 1), nn.ReLU(), Conv2d(5, 4, 1), nn.Flatten())
    theirs = nn.Sequential(*ours)
    x = normal(rng, (2, 4, 7, 5))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    with Frozen(frozen):
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours[:2](x), theirs[:2](x), rtol=1e-5, atol=1e-5)
        assert type(ours[4:]) is Sequential
        assert Sequential()(x) is x
        problems = [row["problem"] for row in pyconvx.explain(ours, x) if row["operation"] == "conv2d"]
    assert [problem.endswith("relu") for problem in problems] == [frozen, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_the_residual_and_nothing_twice(dtype, layout, rng):
    conv, _ = make()
    x, residual = normal(rng, (2, 4, 7, 5), layout=layout), normal(rng, (2, 6, 7, 5), layout=layout)
    exact = one_by_one(x, conv, None, "relu", residual)
    for given in (residual, residual.to(dtype)):
        with torch.no_grad(), torch.autocast("cpu", dtype):
            output = fused_conv(x, conv, None, "relu", given)
        assert output.dtype == dtype
        assert (output - exact).abs().max() <= 0.03 * exact.abs().max()


def test_conv_bn_relu_takes_a_residual(rng):
    block = ConvBNReLU(4, 6, 3, padding=1).eval()
    x, residual = normal(rng, (2, 4, 7, 5)), normal(rng, (2, 6, 7, 5))
    expected = one_by_one(x, block.conv, block.bn, "relu", residual)
    for frozen in (False, True):
        with Frozen(frozen):
            torch.testing.assert_close(block(x, residual), expected, rtol=1e-5, atol=1e-5)
