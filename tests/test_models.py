"""One tester for all networks.

Counts, shapes and docstrings are checked on every network as it is, on the ``meta`` device. What has to be computed is
computed on ``SMALL``: every class, every kind of block, with the constructor's own arguments for width and depth turned
down where it has them, on images near the smallest that it takes. The networks of full size run where ``PYCONVX_SLOW``
is set; there too Dynamo traces those that take it more than a few seconds, and the compilers run on all.
"""

import copy
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyconvx
from pyconvx import functional, models
from pyconvx.models import block_qnn
from pyconvx.models.resnet import BasicBlock, Bottleneck, PlainBlock

slow = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("PYCONVX_SLOW"), reason="takes minutes; set PYCONVX_SLOW=1 to run it"),
]


def image(*size):
    return (torch.randn(2, *size, generator=torch.Generator().manual_seed(3)),)


def tiny_resnet(**options):
    return models.ResNet(BasicBlock, (1, 1, 1, 1), **{"num_classes": 10, **options})


# Every network as it is.

IMAGENET, LARGER, CIFAR = (3, 224, 224), (3, 299, 299), (3, 32, 32)

NETWORKS = {
    # name: (parameters, input, output)
    "alexnet": (61_100_840, IMAGENET, (1000,)),
    "alexnet_two_groups": (60_965_224, IMAGENET, (1000,)),
    "block_qnn_b": (5_216_426, CIFAR, (10,)),
    "block_qnn_s": (5_662_490, CIFAR, (10,)),
    "bn_inception": (11_295_240, IMAGENET, (1000,)),
    "chair_generator": (32_083_006, None, (3, 128, 128)),
    "deconvnet": (251_805_653, IMAGENET, (21, 224, 224)),
    "fcn16s": (134_815_994, IMAGENET, (21, 224, 224)),
    "fcn32s": (136_152_917, IMAGENET, (21, 224, 224)),
    "fcn8s": (134_489_759, IMAGENET, (21, 224, 224)),
    "googlenet": (6_624_904, IMAGENET, (1000,)),
    "inception_resnet_v1": (22_756_328, LARGER, (1000,)),
    "inception_resnet_v2": (55_843_464, LARGER, (1000,)),
    "inception_v1": (6_998_552, IMAGENET, (1000,)),
    "inception_v3": (23_834_568, LARGER, (1000,)),
    "inception_v4": (42_679_816, LARGER, (1000,)),
    "lenet5": (61_706, (1, 32, 32), (10,)),
    "localizer": (11_691_564, IMAGENET, (1000,)),
    "nasnet_large": (88_753_150, (3, 331, 331), (1000,)),
    "nasnet_mobile": (5_289_978, IMAGENET, (1000,)),
    "nin": (7_595_176, IMAGENET, (1000,)),
    "nin_cifar": (966_986, CIFAR, (10,)),
    "pixel_classifier": (150_869, IMAGENET, (21, 224, 224)),
    "plain18": (11_515_688, IMAGENET, (1000,)),
    "plain34": (21_623_848, IMAGENET, (1000,)),
    "preact_resnet1001": (10_327_706, CIFAR, (10,)),
    "preact_resnet164": (1_703_258, CIFAR, (10,)),
    "preact_resnet50": (25_549_352, IMAGENET, (1000,)),
    "resnet101": (44_549_160, IMAGENET, (1000,)),
    "resnet152": (60_192_808, IMAGENET, (1000,)),
    "resnet18": (11_689_512, IMAGENET, (1000,)),
    "resnet34": (21_797_672, IMAGENET, (1000,)),
    "resnet50": (25_557_032, IMAGENET, (1000,)),
    "resnext101_64x4d": (83_455_272, IMAGENET, (1000,)),
    "resnext50_32x4d": (25_028_904, IMAGENET, (1000,)),
    "segnet": (29_449_932, (3, 360, 480), (12, 360, 480)),
    "show_and_tell": (25_196_288, None, (20, 12000)),
    "unet": (31_030_658, (1, 572, 572), (2, 388, 388)),
    "unet_same": (31_030_658, (1, 512, 512), (2, 512, 512)),
    "vgg11": (132_863_336, IMAGENET, (1000,)),
    "vgg11_bn": (132_868_840, IMAGENET, (1000,)),
    "vgg11_lrn": (132_863_336, IMAGENET, (1000,)),
    "vgg13": (133_047_848, IMAGENET, (1000,)),
    "vgg13_bn": (133_053_736, IMAGENET, (1000,)),
    "vgg16": (138_357_544, IMAGENET, (1000,)),
    "vgg16_bn": (138_365_992, IMAGENET, (1000,)),
    "vgg16_c": (133_638_952, IMAGENET, (1000,)),
    "vgg16_c_bn": (133_647_400, IMAGENET, (1000,)),
    "vgg19": (143_667_240, IMAGENET, (1000,)),
    "vgg19_bn": (143_678_248, IMAGENET, (1000,)),
    "xception": (22_855_952, LARGER, (1000,)),
    "zfnet": (62_357_608, IMAGENET, (1000,)),
}


OF_CLASS = {getattr(models, name).__annotations__["return"]: name for name in NETWORKS}
"""One network of each class."""


def full_inputs(name):
    if name == "chair_generator":
        return torch.zeros(1, 809), torch.zeros(1, 4), torch.zeros(1, 12)
    if name == "show_and_tell":
        return torch.zeros(1, 3, 224, 224), torch.zeros(1, 20, dtype=torch.long)
    return (torch.zeros(1, *NETWORKS[name][1]),)


def first(outputs):
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


class Listener(TorchDispatchMode):
    """Hears every operation, counts pyconvx's, and collects those of torch's that pyconvx has one for: convolutions,
    max poolings, unpoolings, and additions of two maps, which is what a residual add is."""

    def __init__(self):
        super().__init__()
        self.ours, self.past = {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if func.namespace == "pyconvx":
            self.ours[name] = self.ours.get(name, 0) + 1
        elif "conv" in name or ("max_" in name and "pool" in name):
            self.past.append(name)
        elif name in ("add", "add_") and args[0].dim() == 4 and isinstance(args[1], torch.Tensor):
            self.past += [name] * (args[0].shape == args[1].shape)
        return func(*args, **(kwargs or {}))


def test_every_network_is_listed():
    assert models.list_models() == sorted(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_output_and_docstring(name):
    parameters, _, output = NETWORKS[name]
    shapes = []
    with torch.device("meta"), Listener() as heard:
        network = models.create_model(name)
        network.register_forward_hook(lambda _module, _args, outputs: shapes.append(first(outputs).shape))
        cost = models.cost(network, *full_inputs(name))
    assert heard.ours and not heard.past
    assert cost.parameters == parameters
    assert shapes == [(1, *output)]
    # The class says what it costs, and where it comes from.
    text = " ".join(type(network).__doc__.split())
    unit, letter = (1e9, "G") if cost.multiply_adds >= 1e8 else (1e6, "M")
    assert f"{parameters:,}" in text
    assert f"{cost.multiply_adds / unit:.2f} {letter}" in text
    assert re.search(r"[A-Z]\w+ .*(19|20)\d\d", text), "no paper"
    assert "Input " in text or "| input " in text
    assert "Shape: " in text


@pytest.mark.parametrize(
    "name, parameters", [("inception_v1", 13_378_280), ("googlenet", 13_004_888), ("inception_v3", 27_161_264)]
)
def test_parameters_with_auxiliary_heads(name, parameters):
    with torch.device("meta"):
        network = models.create_model(name, aux_logits=True)
        assert models.cost(network, *full_inputs(name)).parameters == parameters
        outputs = network.train()(full_inputs(name)[0].expand(2, -1, -1, -1))
    assert f"{parameters:,}" in type(network).__doc__
    assert {output.shape for output in outputs} == {(2, 1000)}
    assert outputs._fields[0] == "logits"


@pytest.mark.parametrize("name", OF_CLASS.values())
def test_other_numbers_of_classes_and_channels(name):
    with torch.device("meta"):
        inputs = full_inputs(name)
        if name == "chair_generator":
            network = models.create_model(name, num_classes=7)
            assert first(network(torch.zeros(1, 7), *inputs[1:])).shape == (1, 3, 128, 128)
            return
        network = models.create_model(name, num_classes=7, in_channels=5)
        output = first(network.eval()(torch.zeros(1, 5, *inputs[0].shape[2:]), *inputs[1:]))
    assert output.shape[2 if name == "show_and_tell" else 1] == 7


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow) for name in NETWORKS])
def test_full_size(name):
    """Every network itself, forward and backward, on one image of its own size."""
    # With statistics that have seen nothing, each of the 333 blocks of the deepest doubles what it adds to.
    network = models.create_model(name).train(name == "preact_resnet1001")
    inputs = [x if x.dtype == torch.long else torch.rand_like(x) for x in full_inputs(name)]
    outputs = network(*inputs)
    assert first(outputs).isfinite().all() and first(outputs).std() > 0
    backward(outputs)
    assert_finite_gradients(network)


# What has to be computed, on small ones.

EVERY_KIND = tuple(
    block_qnn.Layer(*layer)
    for layer in (
        (1, block_qnn.Kind.CONV, 3, 0),
        (2, block_qnn.Kind.AVERAGE_POOL, 3, 1),
        (3, block_qnn.Kind.MAX_POOL, 3, 1),
        (4, block_qnn.Kind.ADD, 0, 2, 3),
        (5, block_qnn.Kind.IDENTITY, 0, 0),
        (6, block_qnn.Kind.CONCAT, 0, 4, 5),
    )
)

SMALL = {
    # label: (network, inputs, other inputs)
    "lenet5": (models.LeNet5, image(1, 32, 32), None),
    "alexnet": (lambda: models.AlexNet(10, hidden=32), image(3, 63, 63), image(3, 71, 80)),
    "alexnet_two_groups": (lambda: models.TwoGroupAlexNet(10, hidden=32), image(3, 63, 63), image(3, 71, 80)),
    "zfnet": (lambda: models.ZFNet(10, hidden=32), image(3, 55, 55), image(3, 53, 80)),
    "vgg11_lrn": (lambda: models.VGG("A-LRN", 10, hidden=32), image(3, 32, 32), image(3, 45, 33)),
    "vgg11_bn": (lambda: models.VGG("A", 10, batch_norm=True, hidden=32), image(3, 32, 32), image(3, 45, 33)),
    "vgg16_c": (lambda: models.VGG("C", 10, hidden=32), image(3, 32, 32), image(3, 45, 33)),
    "nin": (lambda: models.NetworkInNetwork(10), image(3, 51, 51), image(3, 39, 71)),
    "nin_cifar": (models.CifarNetworkInNetwork, image(3, 8, 8), image(3, 1, 14)),
    "plain": (lambda: models.ResNet(PlainBlock, (1, 1, 1, 1), 10), image(3, 33, 33), image(3, 1, 50)),
    "resnet18": (tiny_resnet, image(3, 33, 33), image(3, 1, 50)),
    "resnet50": (lambda: models.ResNet(Bottleneck, (1, 1, 1, 1), 10), image(3, 33, 33), image(3, 1, 50)),
    "resnext50": (
        lambda: models.ResNet(Bottleneck, (1, 1, 1, 1), 10, groups=32, width_per_group=4),
        image(3, 33, 33),
        image(3, 1, 50),
    ),
    "preact_resnet50": (lambda: models.PreActResNet((1, 1, 1, 2), 10), image(3, 33, 33), image(3, 1, 50)),
    "preact_resnet164": (lambda: models.CifarPreActResNet(2), image(3, 8, 8), image(3, 1, 13)),
    "inception_v1": (lambda: models.GoogLeNet(10, batch_norm=False), image(3, 32, 32), image(3, 31, 50)),
    "googlenet": (lambda: models.GoogLeNet(10, transform_input=True), image(3, 32, 32), image(3, 15, 50)),
    "googlenet_with_heads": (lambda: models.GoogLeNet(10, aux_logits=True), image(3, 64, 64), image(3, 70, 91)),
    "bn_inception": (lambda: models.BNInception(10), image(3, 32, 32), image(3, 7, 50)),
    "inception_v3": (lambda: models.InceptionV3(10), image(3, 75, 75), image(3, 80, 93)),
    "inception_v4": (lambda: models.InceptionV4(10, depths=(1, 1, 1)), image(3, 75, 75), image(3, 80, 93)),
    "inception_resnet_v1": (lambda: models.InceptionResNetV1(10, depths=(1, 1, 1)), image(3, 75, 75), image(3, 80, 93)),
    "inception_resnet_v2": (lambda: models.InceptionResNetV2(10, depths=(1, 1, 2)), image(3, 75, 75), image(3, 80, 93)),
    "xception": (lambda: models.Xception(10), image(3, 33, 33), image(3, 7, 40)),
    "nasnet": (lambda: models.NASNet(2, 192, 8, 10), image(3, 33, 33), image(3, 3, 40)),
    "block_qnn_s": (lambda: models.BlockQNN(block_qnn.BLOCK_S, 1, (8, 16)), image(3, 8, 8), image(3, 5, 9)),
    "block_qnn_b": (lambda: models.BlockQNN(block_qnn.BLOCK_B, 2, (8, 16)), image(3, 8, 8), image(3, 5, 9)),
    "block_qnn_every_kind": (lambda: models.BlockQNN(EVERY_KIND, 2, (8, 16)), image(3, 8, 8), image(3, 5, 9)),
    "unet": (lambda: models.UNet(width=4), image(1, 188, 188), image(1, 188, 204)),
    "unet_same": (lambda: models.UNet(width=4, padding="same"), image(1, 16, 16), image(1, 29, 47)),
    "segnet": (lambda: models.SegNet(width=8), image(3, 32, 32), image(3, 45, 61)),
    "deconvnet": (lambda: models.DeconvNet(width=4, hidden=16), image(3, 224, 224), image(3, 225, 230)),
    "fcn32s": (lambda: models.FCN(32, hidden=16), image(3, 32, 32), image(3, 45, 61)),
    "fcn8s": (lambda: models.FCN(8, hidden=16), image(3, 32, 32), image(3, 45, 61)),
    "pixel_classifier": (lambda: models.PixelClassifier(width=8), image(3, 9, 9), image(3, 1, 6)),
    "localizer": (lambda: models.Localizer(10, backbone=tiny_resnet()), image(3, 33, 33), image(3, 1, 50)),
    "chair_generator": (
        lambda: models.ChairGenerator(5),
        (torch.eye(5)[:2], *(torch.linspace(-1, 1, 2 * n).view(2, n) for n in (4, 12))),
        None,
    ),
    "show_and_tell": (
        lambda: models.ShowAndTell(20, encoder=tiny_resnet(), hidden=16),
        (*image(3, 33, 33), torch.arange(8).view(2, 4)),
        (*image(3, 20, 50), torch.arange(6).view(2, 3)),
    ),
}

small = pytest.mark.parametrize("label", SMALL)


@pytest.fixture(scope="module")
def built():
    """Small networks in evaluation, each built once, with statistics that are not the identity; not to be changed."""
    networks = {}

    def build(label):
        if label not in networks:
            networks[label] = build_small(label)
        return networks[label]

    return build


def build_small(label):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SMALL[label][0]()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.1, 0.1)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return network.eval()


def as_list(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


@torch.no_grad()
def call(network, inputs):
    return as_list(network(*inputs))


def backward(outputs):
    """Take the gradients of a fixed function of the outputs."""
    generator = torch.Generator().manual_seed(4)
    weights = [torch.randn(output.shape, generator=generator) for output in as_list(outputs)]
    sum((output.float() * weight).sum() for output, weight in zip(as_list(outputs), weights, strict=True)).backward()


def assert_finite_gradients(network):
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name}'s gradient is not finite"


def assert_near(actual, expected, share=1e-4):
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        apart = (one.float() - other.float()).abs().max() / other.abs().max()
        assert apart <= share, f"{apart:.2g} of the largest apart"


def test_every_class_is_among_the_small():
    with torch.device("meta"):
        assert {type(make()).__name__ for make, *_ in SMALL.values()} == OF_CLASS.keys()


@small
def test_forward_and_backward(label):
    network = build_small(label)
    before = [x.clone() for x in SMALL[label][1]]
    for training in (False, True):
        network.train(training).zero_grad()
        outputs = network(*SMALL[label][1])
        assert all(output.isfinite().all() for output in as_list(outputs))
        assert first(outputs).std() > 0
        backward(outputs)
        if training or label != "googlenet_with_heads":  # whose heads are for training alone
            assert_finite_gradients(network)
    assert all(torch.equal(one, other) for one, other in zip(before, SMALL[label][1], strict=True))


@pytest.mark.parametrize("label", [label for label in SMALL if SMALL[label][2]])
def test_other_sizes(label, built):
    inputs = SMALL[label][2]
    (output, *_) = call(built(label), inputs)
    assert output.isfinite().all()
    if "unet" in label or label in ("segnet", "deconvnet", "fcn32s", "fcn8s", "pixel_classifier"):
        border = 184 if label == "unet" else 0
        assert output.shape[-2:] == tuple(size - border for size in inputs[0].shape[-2:])
    # An image's logits are its own: the other images in the batch do not matter.
    (alone, *_) = call(built(label), [x[:1] for x in inputs])
    assert_near([output[:1]], [alone])


@small
def test_channels_last(label, built):
    inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in SMALL[label][1]]
    network = copy.deepcopy(built(label)).to(memory_format=torch.channels_last)
    outputs = call(network, inputs)
    assert_near(outputs, call(built(label), SMALL[label][1]))
    for output in outputs:
        assert output.dim() != 4 or output.is_contiguous(memory_format=torch.channels_last)
    for row in pyconvx.explain(network, *inputs):
        of_any_layout = row["operation"] == "residual_add" or " h1 w1 " in row["problem"]
        assert of_any_layout or " nhwc" in row["problem"], row


@small
def test_autocast(label, built):
    network = copy.deepcopy(built(label))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(*SMALL[label][1])
    for actual, expected in zip(as_list(outputs), call(built(label), SMALL[label][1]), strict=True):
        assert actual.dtype == torch.bfloat16
        # Where maxima are put back in their places, a rounding that makes another one the largest moves it.
        alike = 0.99 if label in ("segnet", "deconvnet") else 0.999
        assert F.cosine_similarity(actual.float().flatten(), expected.flatten(), 0) > alike
    backward(outputs)
    if label != "googlenet_with_heads":
        assert_finite_gradients(network)


@small
def test_state_dict_copy_and_pickle(label, built):
    network, inputs = built(label), SMALL[label][1]
    expected = call(network, inputs)
    fresh = SMALL[label][0]().eval()
    fresh.load_state_dict(network.state_dict())
    for other in (fresh, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert all(torch.equal(one, two) for one, two in zip(call(other, inputs), expected, strict=True))


@small
def test_everything_runs_on_pyconvx(label, built):
    rows = list(pyconvx.explain(built(label), *SMALL[label][1]))
    assert rows
    for row in rows:
        assert row["backend"] != "torch", row
        assert row["backend"] != "aten" or row["why not another"], row
    layers = [m for m in built(label).modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d))]
    assert all(type(layer).__module__.startswith("pyconvx.") for layer in layers)


@small
def test_training_runs_on_pyconvx(label):
    """Forward and backward, every convolution, max pooling and residual add: nothing is computed, on ``meta``."""
    with torch.device("meta"):
        network = SMALL[label][0]().train()
    with Listener() as heard:
        outputs = as_list(network(*(x.to("meta") for x in SMALL[label][1])))
        sum(output.sum() for output in outputs).backward()
    # What a map's two users send back is added up by autograd, not by the network.
    assert set(heard.past) <= {"add", "add_"}
    with Listener() as forward, torch.no_grad():
        network(*(x.to("meta") for x in SMALL[label][1]))
    assert forward.past == []
    for layers, operation, gradients in (
        (nn.Conv2d, "conv2d", ("conv2d_wgrad",)),
        (nn.ConvTranspose2d, "conv_transpose2d", ("conv2d", "conv2d_wgrad")),
        (nn.MaxPool2d, "max_pool2d", ("max_pool2d_backward",)),
        (nn.MaxUnpool2d, "max_unpool2d", ("max_unpool2d_backward",)),
    ):
        if any(isinstance(module, layers) for module in network.modules()):
            assert operation in forward.ours and all(gradient in heard.ours for gradient in gradients)
    if label.startswith(("resn", "nasnet", "xception", "localizer", "show_and_tell")):
        assert "residual_add" in forward.ours


def test_the_listener_hears_what_goes_past_pyconvx():
    with Listener() as heard, torch.no_grad():
        x = F.max_pool2d(nn.Conv2d(3, 4, 3)(torch.zeros(1, 3, 8, 8)), 2)
        x = F.relu(x + F.conv_transpose2d(x, torch.zeros(4, 4, 1, 1)))
        x += x
    assert len(heard.past) == 5 and not heard.ours


class SamePadding(nn.Module):
    """What padding 'same' puts around an image, which torch's own strided convolutions and poolings lack."""

    def __init__(self, size, stride, value=0.0):
        super().__init__()
        self.size, self.stride, self.value = size, stride, value

    def forward(self, x):
        pads = []
        for length, size, stride in zip(reversed(x.shape[-2:]), self.size, self.stride, strict=True):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads, value=self.value)


def torch_twin(network):
    """Return the network with torch's layers in place of ours."""
    twin = copy.deepcopy(network)
    for name, module in list(twin.named_modules()):
        theirs = getattr(nn, type(module).__name__, None)
        if type(module).__module__.startswith("pyconvx.nn") and theirs is not None:
            module.__class__ = theirs
        if isinstance(module, nn.Conv2d) and module.padding == "same" and max(module.stride) > 1:
            twin.set_submodule(name, nn.Sequential(SamePadding(module.kernel_size, module.stride), module))
            module.padding = (0, 0)
        if isinstance(module, nn.MaxPool2d) and module.padding == "same":
            pad = SamePadding((module.kernel_size,) * 2, (module.stride,) * 2, float("-inf"))
            twin.set_submodule(name, nn.Sequential(pad, module))
            module.padding = 0
    return twin


def torch_add(x, residual, activation=None):
    return F.relu(x + residual) if activation else x + residual


def torch_max_pool(x, kernel_size, stride, padding):
    assert padding == "same"
    return F.max_pool2d(SamePadding((kernel_size,) * 2, (stride,) * 2, float("-inf"))(x), kernel_size, stride)


@small
def test_swap_of_the_torch_twin(label, built, monkeypatch):
    inputs, expected = SMALL[label][1], call(built(label), SMALL[label][1])
    twin = torch_twin(built(label))
    with monkeypatch.context() as patched:
        patched.setattr(functional, "residual_add", torch_add)
        patched.setattr(functional, "max_pool2d", torch_max_pool)
        by_torch = call(twin, inputs)
        assert {row["backend"] for row in pyconvx.explain(twin, *inputs)} == {"torch"}
    assert_near(by_torch, expected)
    handle = pyconvx.swap(twin, strict=True)
    assert handle.count == len(handle.report())
    swapped = call(twin, inputs)
    assert "torch" not in {row["backend"] for row in pyconvx.explain(twin, *inputs)}
    assert_near(swapped, expected, 1e-5)


@small
def test_frozen_filters(label, built):
    """Folded batch norms and packed filters change nothing but roundings, and follow a change of the statistics."""
    network, inputs = copy.deepcopy(built(label)), SMALL[label][1]
    with torch.no_grad(), pyconvx.frozen_filters():
        assert_near(call(network, inputs), call(built(label), inputs))
        statistics = [m.running_mean for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        for mean in statistics:
            mean.add_(0.05)
        frozen = call(network, inputs)
    assert_near(frozen, call(network, inputs))


# Compilers.

QUICK_TO_COMPILE = ("lenet5", "resnet18", "unet_same", "segnet")
compiled = pytest.mark.parametrize(
    "label", [pytest.param(label, marks=() if label in QUICK_TO_COMPILE else slow) for label in SMALL]
)


LONG_TO_TRACE = (
    *("googlenet", "googlenet_with_heads", "inception_v1", "bn_inception", "inception_v3", "inception_v4"),
    *("inception_resnet_v1", "inception_resnet_v2", "xception", "nasnet", "deconvnet", "block_qnn_b"),
)


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(label, marks=slow if label in LONG_TO_TRACE else ())
        for label in SMALL
        if label not in QUICK_TO_COMPILE  # which test_compile traces too
    ],
)
def test_dynamo_traces_one_graph(label, built):
    torch._dynamo.reset()
    graph = torch.compile(built(label), fullgraph=True, backend="eager")
    for actual, expected in zip(call(graph, SMALL[label][1]), call(built(label), SMALL[label][1]), strict=True):
        torch.testing.assert_close(actual, expected)


@compiled
def test_compile(label, built):
    torch._dynamo.reset()
    network = copy.deepcopy(built(label))
    graph = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert_near(call(graph, SMALL[label][1]), call(network, SMALL[label][1]), 1e-5)
    backward(graph(*SMALL[label][1]))
    if label != "googlenet_with_heads":
        assert_finite_gradients(network)


@compiled
def test_export(label, built):
    program = torch.export.export(built(label), SMALL[label][1])
    assert_near(call(program.module(), SMALL[label][1]), call(built(label), SMALL[label][1]), 1e-5)


# The registry and the count.


def test_create_model():
    assert isinstance(models.create_model("lenet5", num_classes=3).output, nn.Linear)
    assert models.list_models("resnet*") == ["resnet101", "resnet152", "resnet18", "resnet34", "resnet50"]
    with pytest.raises(pyconvx.InvalidCall, match=r"name is 'resnet5'.*list_models.*resnet50"):
        models.create_model("resnet5")
    with pytest.raises(pyconvx.InvalidCall, match=r"name is 'zzz'.*list_models\(\)$"):
        models.create_model("zzz")


def test_importing_pyconvx_leaves_the_networks_alone():
    code = "import sys, pyconvx; assert 'pyconvx.models' not in sys.modules; print(len(pyconvx.models.list_models()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == len(NETWORKS)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = pyconvx.nothing_of_the_kind


def test_cost_counts_what_is_written_out_by_hand():
    network = nn.Sequential(
        pyconvx.nn.Conv2d(4, 6, (3, 5), stride=2, padding=1, groups=2),  # 6 x 5 x 4 outputs, 2 x 3 x 5 taps
        pyconvx.nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2),  # 6 x 5 x 4 inputs, 4 x 2 x 2 taps
        nn.Flatten(),
        nn.Linear(8 * 10 * 8, 3),
    )
    expected = 6 * 5 * 4 * 30 + 6 * 5 * 4 * 16 + 640 * 3
    parameters = (6 * 2 * 15 + 6) + (6 * 4 * 4 + 8) + (640 * 3 + 3)
    for batch in (1, 3):
        assert models.cost(network, torch.zeros(batch, 4, 9, 9)) == (parameters, batch * expected)
    assert network.training and network[0].training


# What single networks promise.


def test_localizer_takes_any_backbone():
    images = image(3, 64, 64)[0]
    for backbone, features in (
        (models.VGG("A", hidden=8), None),
        (models.GoogLeNet(), None),
        (models.NetworkInNetwork(12), 12),  # ends in an average, not in a linear layer
        (nn.Sequential(pyconvx.nn.Conv2d(3, 5, 3)), 5),  # ends in maps
    ):
        localizer = models.Localizer(10, backbone=backbone, features=features).eval()
        logits, boxes = localizer(images)
        assert (logits.shape, boxes.shape) == ((2, 10), (2, 4))
    with pytest.raises(pyconvx.InvalidCall, match=r"holds no linear layer.*features="):
        models.Localizer(backbone=models.NetworkInNetwork())


def test_fcn_begins_as_bilinear_upsampling():
    up = models.FCN(8, num_classes=2, hidden=4).up_pool4
    small_map = torch.randn(1, 2, 5, 6)
    smooth = F.interpolate(small_map, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert torch.allclose(up(small_map)[..., 1:-1, 1:-1], smooth[..., 1:-1, 1:-1], atol=1e-6)
    with pytest.raises(pyconvx.InvalidCall, match="stride is 4, expected 32, 16 or 8"):
        models.FCN(4)


def test_segnet_remembers_a_winner_in_one_byte(built):
    rows = [row for row in pyconvx.explain(built("segnet"), *SMALL["segnet"][1]) if "pool" in row["operation"]]
    assert len(rows) == 10
    assert all("uint8" in row["problem"] for row in rows), rows


def test_chair_generators_step_is_unpooling_and_a_convolution():
    step = pyconvx.nn.ConvTranspose2d(3, 4, 5, stride=2, padding=2, output_padding=1)
    x = torch.randn(2, 3, 6, 6)
    unpooled = torch.zeros(2, 3, 12, 12)
    unpooled[..., ::2, ::2] = x
    with torch.no_grad():
        convolved = F.conv2d(unpooled, step.weight.transpose(0, 1).flip(2, 3), step.bias, padding=2)
        assert torch.allclose(step(x), convolved, atol=1e-5)


class TestShowAndTell:
    START, END = 0, 1

    def likelihood(self, captioner, images, words):
        """Return the log-likelihood of captions up to their first END."""
        captions = torch.cat([torch.full((len(words), 1), self.START), words], 1)
        steps = captioner(images, captions[:, :-1]).log_softmax(2).gather(2, words[:, :, None])[..., 0]
        ended = words.eq(self.END).cumsum(1) - words.eq(self.END).long()
        return (steps * (ended == 0)).sum(1)

    @torch.no_grad()
    def test_beam_of_one_takes_the_likeliest_word(self, built):
        captioner, images = built("show_and_tell"), image(3, 33, 33)[0]
        words = captioner.generate(images, self.START, self.END, length=5, beam=1)
        assert words.shape == (2, 5)
        texts = torch.full((2, 1), self.START)
        for _ in range(5):
            texts = torch.cat([texts, captioner(images, texts)[:, -1].argmax(1, keepdim=True)], 1)
        for row, text in zip(words.tolist(), texts[:, 1:].tolist(), strict=True):
            stop = text.index(self.END) + 1 if self.END in text else 5
            assert row == text[:stop] + [self.END] * (5 - stop)

    @torch.no_grad()
    def test_a_wide_beam_finds_the_best_caption(self):
        torch.manual_seed(5)
        captioner = models.ShowAndTell(4, encoder=tiny_resnet(), hidden=8).eval()
        nn.init.normal_(captioner.output.weight)
        images = image(3, 33, 33)[0][:1]
        every = torch.cartesian_prod(*[torch.arange(4)] * 3)
        best = self.likelihood(captioner, images.expand(64, -1, -1, -1), every).max()
        found = captioner.generate(images, self.START, self.END, length=3, beam=64)
        torch.testing.assert_close(self.likelihood(captioner, images, found)[0], best)
