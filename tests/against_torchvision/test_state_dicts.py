"""Networks that torchvision or timm has too: their state_dicts load, and give their logits and their gradients.

Both need a torch of their own, so these tests run in an environment of their own: ``make test-torchvision``.
"""

import pytest
import torch

from pyconvx import models

try:
    import timm
    import torchvision
except ImportError as error:
    pytest.skip(f"{error.name} is not installed: make test-torchvision", allow_module_level=True)
except RuntimeError as error:  # a torchvision that was built for another torch
    pytest.skip(f"torchvision does not work here: {error}", allow_module_level=True)

RTOL = {torch.float32: 1e-4, torch.float64: 1e-9}
"""How far tensors may be apart, as a share of the largest number: rounding, in another order. Gradients are compared in
float64: in float32 a rounding that tips a ReLU or a maximum changes them far more than itself."""

TORCHVISION = {
    "alexnet": 95,
    "googlenet": 96,
    "inception_v3": 107,
    "resnet18": 96,
    "resnet34": 96,
    "resnet50": 96,
    "resnet101": 96,
    "resnet152": 96,
    "resnext50_32x4d": 96,
    "resnext101_64x4d": 96,
    "vgg11": 64,
    "vgg11_bn": 64,
    "vgg13": 64,
    "vgg13_bn": 64,
    "vgg16": 64,
    "vgg16_bn": 64,
    "vgg19": 64,
    "vgg19_bn": 64,
}
"""Networks of torchvision's, and the size of the images to compare them on."""

WITH_HEADS = {"googlenet": 96, "inception_v3": 299}

TIMM = {
    "inception_v4": ("inception_v4", 107),
    "inception_resnet_v2": ("inception_resnet_v2", 107),
    "xception": ("legacy_xception", 107),
    "nasnet_large": ("nasnetalarge", 107),
}
"""Networks of timm's, by our name: theirs, and the size of the images."""


def randomize(network):
    """Draw parameters and statistics anew, so that every one of them shows in the logits."""
    generator = torch.Generator().manual_seed(0)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if value.dim() > 1:
                fan_in = value[0].numel()
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                uniform(value, 0.5, 1.5)
            else:
                uniform(value, -0.2, 0.2)
    return network


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if hasattr(network, "drop_rate"):
        network.drop_rate = 0.0
    return network


def outputs_and_gradients(network, images):
    """Return what the network gives, as a tuple of tensors, and the gradients of a fixed function of it, by name."""
    images = images.clone().requires_grad_()
    outputs = network(images)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
    generator = torch.Generator().manual_seed(1)
    sum((output * torch.randn(output.shape, generator=generator)).sum() for output in outputs).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return [output.detach() for output in outputs], {"the images": images.grad, **gradients}


def assert_near(actual, expected, what):
    assert actual.shape == expected.shape, what
    apart = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert apart <= RTOL[actual.dtype], f"{what}: {apart:.2g} of the largest apart"


def pair(name, **options):
    """Return our network and theirs, with the same random state."""
    if name in TIMM:
        theirs = timm.create_model(TIMM[name][0])
    else:
        more = {"init_weights": False, "aux_logits": False} if name in WITH_HEADS else {}
        theirs = torchvision.models.get_model(name, weights=None, **{**more, **options})
    ours = models.create_model(name, **options)
    ours.load_state_dict(randomize(theirs).state_dict())
    return without_dropout(ours), without_dropout(theirs)


def draw_images(batch, size, dtype):
    return torch.randn((batch, 3, size, size), generator=torch.Generator().manual_seed(2)).to(dtype)


def compare_logits(ours, theirs, size):
    images = draw_images(2, size, torch.float32)
    with torch.no_grad():
        logits, expected = ours.eval()(images), theirs.eval()(images)
    assert expected.std() > 1e-3
    assert_near(logits, expected, "logits")


def compare_training(ours, theirs, size):
    ours.double().train(), theirs.double().train()
    images = draw_images(2, size, torch.float64)
    outputs, gradients = outputs_and_gradients(ours, images)
    their_outputs, their_gradients = outputs_and_gradients(theirs, images)
    for actual, expected in zip(outputs, their_outputs, strict=True):
        assert_near(actual, expected, "outputs")
    assert gradients.keys() == their_gradients.keys()
    for name, expected in their_gradients.items():
        assert_near(gradients[name], expected, f"gradient of {name}")
    statistics = dict(theirs.named_buffers())
    for name, value in ours.named_buffers():
        assert_near(value.double(), statistics[name].double(), name)


SIZES = {**TORCHVISION, **{name: size for name, (_, size) in TIMM.items()}}


@pytest.mark.parametrize("name", SIZES)
def test_logits_and_gradients(name):
    """In one test, since making a pair of large networks takes as long as running it."""
    ours, theirs = pair(name)
    compare_logits(ours, theirs, SIZES[name])
    compare_training(ours, theirs, SIZES[name])


@pytest.mark.parametrize("name", WITH_HEADS)
def test_auxiliary_heads_and_transformed_input(name):
    ours, theirs = pair(name, aux_logits=True, transform_input=True)
    compare_logits(ours, theirs, WITH_HEADS[name])
    compare_training(ours, theirs, WITH_HEADS[name])
