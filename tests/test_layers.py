"""Layers: torch.nn's constructors, attributes, state_dict and results, and what they take beyond them."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from operations import both_layouts
from torch import nn

import pyconvx
from pyconvx import nn as ours

TORCHS = {ours.Conv2d: nn.Conv2d, ours.ConvTranspose2d: nn.ConvTranspose2d, ours.MaxPool2d: nn.MaxPool2d,
          ours.MaxUnpool2d: nn.MaxUnpool2d}  # fmt: skip

every_layer = pytest.mark.parametrize("layer, torchs", TORCHS.items(), ids=lambda layer: layer.__name__)

ARGUMENTS = {
    ours.Conv2d: [
        ((3, 4, 3), {}),
        ((4, 6, (3, 1)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2, "bias": False}),
        ((3, 4, 3), {"padding": "same", "dilation": 2}),
        ((3, 4, 3), {"padding": "valid", "dtype": torch.float64}),
        ((3, 4, 3), {"padding": 1, "padding_mode": "reflect"}),
        ((3, 4, 4), {"padding": "same", "padding_mode": "replicate"}),
        ((3, 4, 3), {"padding": (2, 1), "padding_mode": "circular"}),
    ],
    ours.ConvTranspose2d: [
        ((3, 4, 3), {}),
        ((4, 6, (2, 3), (2, 3)), {"padding": (1, 0), "output_padding": (0, 1), "groups": 2, "bias": False}),
        ((3, 4, 3), {"dilation": 2, "output_padding": 1, "stride": 1}),
    ],
    ours.MaxPool2d: [
        ((2,), {}),
        ((3, 2, 1), {"ceil_mode": True}),
        (((2, 3),), {"stride": 1, "dilation": (2, 1), "return_indices": True}),
    ],
    ours.MaxUnpool2d: [((2,), {}), (((2, 2),), {"stride": (2, 2), "padding": (0, 0)})],
}
EXAMPLES = [(layer, args, kwargs) for layer, calls in ARGUMENTS.items() for args, kwargs in calls]
every_example = pytest.mark.parametrize("layer, args, kwargs", EXAMPLES, ids=str)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def results(value):
    return value if isinstance(value, tuple) else (value,)


def twins(layer, args, kwargs):
    """Return our layer and torch's, with equal parameters."""
    torch.manual_seed(1)
    one = layer(*args, **kwargs)
    torch.manual_seed(1)
    return one, TORCHS[layer](*args, **kwargs)


def inputs(layer, args, kwargs, memory_format=torch.contiguous_format):
    if layer is ours.MaxUnpool2d:
        return nn.functional.max_pool2d(torch.randn(2, 3, 8, 8).to(memory_format=memory_format), 2, return_indices=True)
    channels = args[0] if layer in (ours.Conv2d, ours.ConvTranspose2d) else 3
    return (torch.randn(2, channels, 8, 9, dtype=kwargs.get("dtype")).to(memory_format=memory_format),)


@every_layer
def test_layer_is_torchs_and_takes_its_arguments(layer, torchs):
    assert issubclass(layer, torchs)
    mine, theirs = inspect.signature(layer).parameters, inspect.signature(torchs).parameters
    assert list(mine)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert mine[name].default == parameter.default
        assert mine[name].kind == parameter.kind
    assert all(mine[name].default is not inspect.Parameter.empty for name in set(mine) - set(theirs))


@every_example
def test_layer_has_torchs_attributes_parameters_and_repr(layer, args, kwargs):
    mine, theirs = twins(layer, args, kwargs)
    assert repr(mine) == repr(theirs)
    assert {k: v for k, v in vars(mine).items() if not k.startswith("_")} == {
        k: v for k, v in vars(theirs).items() if not k.startswith("_")
    }
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for parameter, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert parameter.equal(other)  # initialised alike, from the same random numbers


@both_layouts
@every_example
def test_layer_gives_torchs_results_and_gradients(layer, args, kwargs, layout):
    mine, theirs = twins(layer, args, kwargs)
    operands = inputs(layer, args, kwargs, layout)
    one, two = (x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in operands[:1] * 2)
    got, want = mine(one, *operands[1:]), theirs(two, *operands[1:])
    torch.testing.assert_close(results(got), results(want))
    results(got)[0].sin().sum().backward()
    results(want)[0].sin().sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5)
    for parameter, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)


@every_example
def test_state_dict_goes_both_ways(layer, args, kwargs):
    mine, theirs = layer(*args, **kwargs), TORCHS[layer](*args, **kwargs)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    operands = inputs(layer, args, kwargs)
    torch.testing.assert_close(results(mine(*operands)), results(theirs(*operands)))
    theirs.load_state_dict(layer(*args, **kwargs).state_dict(), strict=True)


@every_example
def test_layer_takes_unbatched_images(layer, args, kwargs):
    mine, theirs = twins(layer, args, kwargs)
    image = [x[0] for x in inputs(layer, args, kwargs)]
    torch.testing.assert_close(results(mine(*image)), results(theirs(*image)))


@pytest.mark.parametrize("layer", [ours.Conv2d, ours.ConvTranspose2d])
def test_device_and_dtype_are_the_parameters(layer):
    made = layer(3, 4, 3, device="meta", dtype=torch.float16)
    assert made.weight.is_meta and made.bias.dtype is torch.float16
    assert made(torch.empty(1, 3, 8, 8, device="meta", dtype=torch.float16)).is_meta
    moved = layer(3, 4, 3).to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert moved(torch.randn(1, 3, 8, 8, dtype=torch.bfloat16)).is_contiguous(memory_format=torch.channels_last)


def test_layers_materialised_from_meta_work():
    layer = ours.Conv2d(3, 4, 3, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(torch.randn(1, 3, 8, 8)).isfinite().all()


# Conv2d, beyond torch's


@pytest.mark.parametrize("padding", [(1, 0, 2, 1), [0, 2, 0, 0]])
def test_conv2d_pads_four_sides_unequally(padding):
    layer = ours.Conv2d(3, 4, 3, stride=2, padding=padding)
    top, bottom, left, right = padding
    image = torch.randn(2, 3, 8, 9)
    padded = nn.functional.pad(image, (left, right, top, bottom))
    torch.testing.assert_close(layer(image), nn.functional.conv2d(padded, layer.weight, layer.bias, 2))
    assert f"padding={tuple(padding)}" in repr(layer)


@pytest.mark.parametrize("size", [(7, 8), (8, 8), (9, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, (1, 7)])
@pytest.mark.filterwarnings("ignore:Using padding=.same.")
def test_same_padding_goes_with_any_stride(kernel_size, stride, size):
    layer = ours.Conv2d(2, 3, kernel_size, stride, padding="same")
    image = torch.randn(1, 2, *size)
    vertical, horizontal = layer.stride
    output = layer(image)
    assert output.shape[2:] == (-(-size[0] // vertical), -(-size[1] // horizontal))
    if set(layer.stride) == {1}:
        torch.testing.assert_close(output, nn.functional.conv2d(image, layer.weight, layer.bias, padding="same"))


@pytest.mark.parametrize("options", [{"padding": (1, 0, 1, 0)}, {"padding": "same", "stride": 2}])
def test_conv2d_refuses_its_own_paddings_with_a_padding_mode(options):
    with pytest.raises(pyconvx.InvalidCall, match=r"padding_mode='zeros' only.*torch.nn.functional.pad"):
        ours.Conv2d(3, 4, 3, padding_mode="reflect", **options)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_conv2d_fuses_what_the_call_asks_for(activation, residual, mode):
    layer, image = ours.Conv2d(4, 4, 3, padding=1, padding_mode=mode), torch.randn(2, 4, 6, 6)
    plain = nn.Conv2d.forward(layer, image)
    want = plain + image if residual else plain
    want = want.relu() if activation else want
    got = layer(image, activation=activation, residual=image if residual else None)
    torch.testing.assert_close(got, want)


# ConvTranspose2d, MaxPool2d, MaxUnpool2d


@pytest.mark.parametrize("output_size", [(15, 16), (16, 17), (2, 4, 16, 16)])
def test_conv_transpose2d_takes_the_output_size(output_size):
    mine, theirs = twins(ours.ConvTranspose2d, (3, 4, 3, 2, 1), {})
    image = torch.randn(2, 3, 8, 8)
    if output_size[-1] == 17:
        for layer in (mine, theirs):
            with pytest.raises(ValueError, match="requested an output size"):
                layer(image, output_size=output_size)
        return
    got = mine(image, output_size=output_size)
    assert got.shape[2:] == output_size[-2:]
    torch.testing.assert_close(got, theirs(image, output_size=output_size))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("window", [(2, None, 0), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_unpooling_takes_the_indices_of_pooling_in_any_form(index_dtype, window, ceil_mode):
    image = torch.rand(2, 3, 7, 8)
    mine = ours.MaxPool2d(*window, return_indices=True, ceil_mode=ceil_mode, index_dtype=index_dtype)
    pooled, indices = mine(image)
    assert indices.dtype is index_dtype
    want, flat = nn.MaxPool2d(*window, return_indices=True, ceil_mode=ceil_mode)(image)
    assert pooled.equal(want)
    unpooled = ours.MaxUnpool2d(*window)(pooled, indices, output_size=image.shape)
    assert unpooled.equal(nn.MaxUnpool2d(*window)(want, flat, output_size=image.shape))


def test_index_dtype_of_a_pooling_layer_is_checked():
    with pytest.raises(pyconvx.InvalidCall, match=r"index_dtype is torch.int16, expected one of torch.uint8"):
        ours.MaxPool2d(2, return_indices=True, index_dtype=torch.int16)(torch.randn(1, 1, 4, 4))


# Blocks


def test_residual_add_is_the_sum_and_its_relu():
    x, residual = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    assert ours.ResidualAdd()(x, residual).equal((x + residual).relu())
    assert ours.ResidualAdd(None)(x, residual).equal(x + residual)
    ours.ResidualAdd()(x, residual).sum().backward()
    assert x.grad.equal((x + residual > 0).float()) and residual.grad.equal(x.grad)
    assert repr(ours.ResidualAdd(None)) == "ResidualAdd(activation=None)"
    with pytest.raises(pyconvx.InvalidCall, match="activation is 'gelu', expected 'relu' or None"):
        ours.ResidualAdd("gelu")


class Plain(nn.Module):
    """What ConvBNReLU is, in torch's words."""

    def __init__(self, block):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(4, block.bn.eps, block.bn.momentum)
        self.relu = block.relu
        self.load_state_dict(block.state_dict())
        self.train(block.training)

    def forward(self, x, residual=None):
        x = self.bn(self.conv(x))
        x = x if residual is None else x + residual
        return x.relu() if self.relu else x


def block_and_plain(relu=True, steps=3):
    """Return a ConvBNReLU whose batch norm has seen something, and torch's layers with the same state."""
    block = ours.ConvBNReLU(3, 4, 3, 2, 1, eps=1e-3, momentum=0.3, relu=relu)
    nn.init.normal_(block.bn.weight)
    nn.init.normal_(block.bn.bias)
    for _ in range(steps):
        block(torch.randn(4, 3, 8, 8) * 2 + 1)
    return block, Plain(block)


def outcome(module, image, residual):
    """Return output, gradients and state of one step."""
    module.zero_grad()
    image = image.clone(memory_format=torch.preserve_format).requires_grad_()
    output = module(image, residual)
    output.sin().sum().backward()
    state = [x.clone() for x in module.state_dict().values()]
    return [output.detach(), image.grad, *(p.grad for p in module.parameters()), *state]


@both_layouts
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_conv_bn_relu_trains_exactly_like_torchs_layers(relu, with_residual, layout):
    block, plain = block_and_plain(relu)
    image = torch.randn(4, 3, 8, 8).to(memory_format=layout)
    residual = torch.randn(4, 4, 4, 4).to(memory_format=layout) if with_residual else None
    for got, want in zip(outcome(block, image, residual), outcome(plain, image, residual), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert block(image, residual).equal(plain(image, residual))


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_conv_bn_relu_in_evaluation_has_torchs_results_and_gradients(relu, with_residual):
    block, plain = (module.eval() for module in block_and_plain(relu))
    image = torch.randn(4, 3, 8, 8)
    residual = torch.randn(4, 4, 4, 4) if with_residual else None
    for got, want in zip(outcome(block, image, residual), outcome(plain, image, residual), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_conv_bn_relu_folded_equals_unfolded(relu, with_residual):
    block, plain = (module.eval() for module in block_and_plain(relu))
    image = torch.randn(4, 3, 8, 8)
    residual = torch.randn(4, 4, 4, 4) if with_residual else None
    with torch.inference_mode(), pyconvx.frozen_filters():
        for _ in range(2):
            torch.testing.assert_close(block(image, residual), plain(image, residual), rtol=1e-4, atol=1e-5)


def test_conv_bn_relu_has_the_state_of_torchvisions_block():
    assert list(ours.ConvBNReLU(3, 4, 3).state_dict()) == [
        "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
    ]  # fmt: skip
    assert repr(ours.ConvBNReLU(3, 4, 3, relu=False)).startswith("ConvBNReLU(\n  relu=False\n  (conv): Conv2d(3, 4")


def test_conv_bn_relu_without_running_statistics_normalises_by_the_batch():
    block = ours.ConvBNReLU(3, 4, 3)
    block.bn = nn.BatchNorm2d(4, track_running_stats=False)
    image = torch.randn(4, 3, 8, 8)
    want = block(image)
    block.eval()
    with torch.inference_mode(), pyconvx.frozen_filters():
        torch.testing.assert_close(block(image), want)


@pytest.mark.parametrize("hooked", ["conv", "bn"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [
    lambda: ours.ConvBNReLU(3, 4, 3),
    lambda: ours.Sequential(ours.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
], ids=["ConvBNReLU", "Sequential"])  # fmt: skip
def test_hooks_on_layers_of_a_block_are_shown_what_the_layer_gives(make, training, hooked):
    block, kept = make().train(training), []
    conv, bn = (block.conv, block.bn) if hasattr(block, "conv") else block[:2]
    watched = conv if hooked == "conv" else bn
    watched.register_forward_hook(lambda module, args, output: kept.append(output))
    image = torch.randn(2, 3, 6, 6)
    with torch.inference_mode(), pyconvx.frozen_filters():
        block(image)
        twin = copy.deepcopy(conv), copy.deepcopy(bn)
        convolved = nn.Conv2d.forward(twin[0], image)
        twin[1]._forward_hooks.clear()
        want = convolved if hooked == "conv" else nn.BatchNorm2d.forward(bn, convolved)
        torch.testing.assert_close(kept[0], want, rtol=1e-4, atol=1e-5)
    assert (kept[0] < 0).any()


def layers_of(fused):
    """A Sequential of ours, or the same layers in torch's."""
    torch.manual_seed(3)
    layers = [
        ours.Conv2d(3, 4, 3), nn.ReLU(), ours.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        ours.Conv2d(4, 5, 1), ours.MaxPool2d(2), nn.ReLU(), ours.Conv2d(5, 2, 1), nn.Sigmoid(),
    ]  # fmt: skip
    return (ours.Sequential if fused else nn.Sequential)(*layers)


@pytest.mark.parametrize("training", [True, False])
def test_sequential_equals_torchs_and_keeps_its_names(training):
    fused, plain = layers_of(True).train(training), layers_of(False).train(training)
    assert list(fused.state_dict()) == list(plain.state_dict()) and isinstance(fused, nn.Sequential)
    image = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(fused(image), plain(image))
    fused(image).sum().backward()
    plain(image).sum().backward()
    for parameter, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)
    with torch.inference_mode(), pyconvx.frozen_filters():
        torch.testing.assert_close(fused(image), plain(image), rtol=1e-4, atol=1e-4)


def test_sequential_skips_no_layer_of_a_subclass_or_with_hooks():
    class Loud(nn.ReLU):
        def forward(self, x):
            return super().forward(x) + 1

    conv, heard = ours.Conv2d(3, 4, 1), []
    image = torch.randn(1, 3, 4, 4)
    assert ours.Sequential(conv, Loud())(image).equal(conv(image).relu() + 1)
    relu = nn.ReLU()
    relu.register_forward_hook(lambda module, args, output: heard.append(output))
    assert ours.Sequential(conv, relu)(image).equal(conv(image).relu())
    assert heard


@pytest.mark.parametrize("stride", [1, 2, (1, 2)])
@pytest.mark.parametrize("padding", ["same", 3, (3, 2), 0])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_factorized_conv2d_is_two_convolutions(activation, padding, stride):
    layer = ours.FactorizedConv2d(3, 4, 7, stride, padding, mid_channels=5, activation=activation)
    image = torch.randn(2, 3, 9, 9)
    vertical, horizontal = (stride, stride) if isinstance(stride, int) else stride
    pad = {"same": (3, 3), 3: (3, 3), (3, 2): (3, 2), 0: (0, 0)}[padding]
    one, two = layer.conv_1xn, layer.conv_nx1
    assert one.weight.shape == (5, 3, 1, 7) and two.weight.shape == (4, 5, 7, 1)
    if padding == "same" and stride != 1:
        want = None
    else:
        want = nn.functional.conv2d(image, one.weight, one.bias, (1, horizontal), (0, pad[1]))
        want = want.relu() if activation else want
        want = nn.functional.conv2d(want, two.weight, two.bias, (vertical, 1), (pad[0], 0))
        want = want.relu() if activation else want
    got = layer(image)
    if want is None:
        assert got.shape[2:] == (-(-9 // vertical), -(-9 // horizontal))
    else:
        torch.testing.assert_close(got, want)
    assert f"activation={activation!r}" in repr(layer)


def test_factorized_conv2d_of_a_separable_filter_is_the_square_convolution():
    layer = ours.FactorizedConv2d(1, 1, 5, bias=False).double()
    image = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    square = layer.conv_nx1.weight * layer.conv_1xn.weight
    torch.testing.assert_close(layer(image), nn.functional.conv2d(image, square, padding=2))
