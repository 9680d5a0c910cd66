"""The deconvnet against gradients whose ReLUs rectify on the way back, regions against what changes a unit, pictures
against their pixels, and what is refused."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyconvx
from pyconvx import InvalidCall, functional, models, visualize
from pyconvx.demo import LeNet5
from pyconvx.visualize import _deconvnet

PIL = pytest.importorskip("PIL.Image")


class DeconvnetReLU(torch.autograd.Function):
    """A ReLU whose gradient is rectified in place of masked: what makes a gradient a deconvnet."""

    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, y):
        return y.relu()


def by_autograd(model, layer, place, image, monkeypatch):
    """The projection as a gradient: response norms count as constants, and every ReLU is a :class:`DeconvnetReLU`."""
    found = []
    x = image.clone().requires_grad_()
    hook = model.get_submodule(layer).register_forward_hook(lambda module, args, output: found.append(output))
    with monkeypatch.context() as patched:
        patched.setattr(F, "relu", lambda x, inplace=False: DeconvnetReLU.apply(x))
        patched.setattr(nn.ReLU, "forward", lambda self, x: DeconvnetReLU.apply(x))
        patched.setattr(nn.LocalResponseNorm, "forward", lambda self, x: x + (norm(self, x) - x).detach())
        patched.setattr(pyconvx.nn.blocks, "_has_hooks", lambda module: True)  # layers one by one
        patched.setattr(functional, "conv2d", unfused)
        model(x[None])
    hook.remove()
    value = found[0][(0, *place)]
    (back,) = torch.autograd.grad(value, x, value.detach().clamp(min=0))
    return back


def unfused(*args, activation=None, residual=None):
    y = pyconvx.conv2d(*args)
    return DeconvnetReLU.apply(y) if activation == "relu" else y


def norm(module, x):
    return F.local_response_norm(x, module.size, module.alpha, module.beta, module.k)


class FunctionalNet(nn.Module):
    """ReLUs and poolings by function or shared, a fused activation, a transposed convolution, odd sizes."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 4, (3, 5), stride=(2, 3), padding=(0, 2), dilation=(2, 1), groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pair = pyconvx.nn.FactorizedConv2d(4, 6, 3, activation="relu")
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1)
        self.cells = pyconvx.nn.NearestUnpool2d((2, 1))
        self.same = pyconvx.nn.Conv2d(4, 4, 4, stride=3, padding="same")
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.pair(self.pool(F.relu(self.one(x))))
        x = F.relu_(self.same(self.cells(F.relu(self.up(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def smooth(rng, *size):
    """An image with structure at several scales."""
    return sum(
        F.interpolate(torch.randn(1, size[0], n, n, generator=rng), size[1:], mode="bilinear")[0] for n in (2, 5, 11)
    )


CHAINS = {
    "lenet5": (models.LeNet5, (1, 32, 32), ("c1", "relu1", "s2", "c3", "s4", "relu5", "f6", "output")),
    "alexnet": (lambda: models.AlexNet(10, hidden=16), (3, 95, 80), ("features.0", "features.5", "features.11")),
    "zfnet": (lambda: models.ZFNet(10, hidden=16), (3, 67, 75), ("features.7", "features.14", "avgpool")),
    "vgg": (
        lambda: models.VGG("A", 10, batch_norm=True, hidden=16),
        (3, 48, 40),
        ("features.1", "features.14", "avgpool", "classifier.6"),
    ),
    "nin_cifar": (models.CifarNetworkInNetwork, (3, 20, 23), ("features.6", "features.13", "features")),
    "functional": (FunctionalNet, (2, 45, 61), ("one", "pool", "pair", "up", "cells", "same")),
    "demo": (LeNet5, (1, 32, 32), ("c1", "s4", "f6", "output")),
    "resnet": (lambda: models.ResNet(models.resnet.BasicBlock, (1, 1, 1, 1), 10), (3, 40, 40), ("bn1", "maxpool")),
    "googlenet": (models.GoogLeNet, (3, 40, 40), ("inception3a.branch3.1", "inception3a.branch1.bn")),
}


@pytest.fixture(scope="module")
def chains():
    built = {}

    def build(label):
        if label not in built:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                built[label] = CHAINS[label][0]().eval()
                for module in built[label].modules():
                    if isinstance(module, nn.BatchNorm2d):
                        nn.init.uniform_(module.running_mean, -0.1, 0.1)
                        nn.init.uniform_(module.weight, 0.5, 1.5)
                    if isinstance(module, nn.Linear):
                        nn.init.kaiming_normal_(module.weight)
        return built[label]

    return build


EVERY = [(label, layer) for label, (_, _, layers) in CHAINS.items() for layer in layers]


def firing(model, layer, image):
    """The strongest unit of a layer, as a channel."""
    values = visualize.activations(model, layer, image[None])[0]
    return int(values.flatten(1).amax(1).argmax() if values.dim() == 3 else values.argmax())


@pytest.mark.parametrize("label, layer", EVERY)
def test_deconvnet_is_a_gradient_whose_relus_rectify(label, layer, chains, rng, monkeypatch):
    model, image = chains(label), smooth(rng, *CHAINS[label][1])
    unit = firing(model, layer, image)
    projection = visualize.deconvnet(model, layer, unit, image)
    values = visualize.activations(model, layer, image[None])[0]
    assert projection.unit[0] == unit and projection.value == values[projection.unit].item() == values[unit].max() > 0
    expected = by_autograd(model, layer, projection.unit, image, monkeypatch)
    assert projection.image.shape == image.shape and projection.image.abs().max() > 0
    torch.testing.assert_close(projection.image, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    top, bottom, left, right = projection.region
    outside = projection.image.clone()
    outside[:, top : bottom + 1, left : right + 1] = 0
    assert not outside.any()


@pytest.mark.parametrize(
    "label, layer", [("lenet5", "c3"), ("alexnet", "features.5"), ("functional", "same"), ("nin_cifar", "features.6")]
)
def test_the_region_is_what_the_unit_sees(label, layer, chains, rng):
    """Of every row and column, those in the region change the unit, and no other does."""
    model, image = copy.deepcopy(chains(label)), smooth(rng, *CHAINS[label][1])
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.constant_(module.weight, 0.01)  # everything that is seen counts, and nothing cancels
        elif isinstance(module, nn.MaxPool2d):
            module.__class__ = nn.MaxPool2d
    shape = visualize.activations(model, layer, image[None]).shape
    for place in ((1, 0, 0), (1, shape[2] // 2, shape[3] // 2), (1, shape[2] - 1, shape[3] - 1)):
        region = visualize.deconvnet(model, layer, place, image).region
        for axis in (0, 1):
            images = image.abs().repeat(1 + image.shape[1 + axis], 1, 1, 1)  # one as it is, and each line brighter
            images[1:].diagonal(0, 0, 2 + axis).add_(100)
            values = visualize.activations(model, layer, images)[(slice(None), *place)]
            seen = (values[1:] != values[0]).nonzero().flatten()
            assert (seen[0], seen[-1]) == region[2 * axis : 2 * axis + 2]


def test_deconvnet_is_written_out_by_hand(rng):
    """conv, ReLU, pooling, conv: each step of section 2.1 by torch's own functions."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, padding=1), nn.ReLU())
    image = smooth(rng, 3, 14, 14)
    with torch.no_grad():
        rectified = model[1](model[0](image[None]))
        pooled, switches = F.max_pool2d(rectified, 2, return_indices=True)
        maps = model[4](model[3](pooled))
        unit = firing(model, "4", image)
        row, column = divmod(int(maps[0, unit].argmax()), maps.shape[3])
        alone = torch.zeros_like(maps)
        alone[0, unit, row, column] = maps[0, unit, row, column]
        y = F.conv_transpose2d(F.relu(alone), model[3].weight, padding=1)
        y = F.max_unpool2d(y, switches, 2)
        y = F.conv_transpose2d(F.relu(y), model[0].weight)
    projection = visualize.deconvnet(model, "4", unit, image)
    assert projection.unit == (unit, row, column)
    torch.testing.assert_close(projection.image, y[0])
    assert torch.equal(
        visualize.deconvnet(model, model[4], (unit, row, column), image[None]).image[0], projection.image
    )


def test_deconvnet_runs_on_pyconvx_with_switches_of_one_byte(chains, rng):
    image = smooth(rng, *CHAINS["alexnet"][1])
    calls = list(pyconvx.explain(lambda: visualize.deconvnet(chains("alexnet"), "features.12", 3, image)))
    back = [row["operation"] for row in calls][8:]
    assert "torch" not in {row["backend"] for row in calls}
    assert back == [
        *("max_pool2d", "max_pool2d_backward"), *["conv_transpose2d"] * 3,
        *("max_pool2d", "max_pool2d_backward", "conv_transpose2d"), *("max_pool2d", "max_pool2d_backward"),
        "conv_transpose2d",
    ]  # fmt: skip
    assert all("uint8" in row["problem"] for row in calls[8:] if "pool" in row["operation"])


@pytest.mark.parametrize(
    "label, layer", [("alexnet", "features.12"), ("vgg", "classifier.6"), ("nin_cifar", "features")]
)
def test_deconvnet_in_channels_last_and_float64(label, layer, chains, rng):
    model, image = copy.deepcopy(chains(label)).double(), smooth(rng, *CHAINS[label][1]).double()
    unit = firing(model, layer, image)
    expected = visualize.deconvnet(model, layer, unit, image)
    model.to(memory_format=torch.channels_last)
    batch = image[None].contiguous(memory_format=torch.channels_last)
    projection = visualize.deconvnet(model, layer, unit, batch)
    assert (projection.unit, projection.region) == (expected.unit, expected.region)
    torch.testing.assert_close(projection.image[0], expected.image, rtol=1e-9, atol=1e-12)


def test_a_model_comes_back_as_it_was(chains, rng):
    model = copy.deepcopy(chains("vgg")).train()
    model.features[1].eval()
    before, state = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    visualize.deconvnet(model, "features.14", 0, smooth(rng, 3, 48, 40))
    assert [m.training for m in model.modules()] == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_unit_that_does_not_fire_gives_zeros(rng):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    nn.init.constant_(model[0].bias, -100)
    for layer in ("0", "1"):
        projection = visualize.deconvnet(model, layer, 1, torch.randn(1, 6, 6, generator=rng))
        assert projection.value <= 0 and not projection.image.any()


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 1)
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.three(self.one(x) + self.two(x))


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


ONE = torch.arange(36.0).view(1, 6, 6)

REFUSED = {
    "no model": (lambda: visualize.deconvnet(None, "0", 0, ONE), "model is a NoneType, expected a torch.nn.Module"),
    "no layer": (
        lambda: visualize.deconvnet(Branches(), "four", 0, ONE),
        "deconvnet: layer is 'four', expected the name of one of the model's modules: one, two, three, unused",
    ),
    "another's layer": (lambda: visualize.deconvnet(Branches(), nn.ReLU(), 0, ONE), "this ReLU is no part of the"),
    "unused": (lambda: visualize.deconvnet(Branches(), "unused", 0, ONE), "this Conv2d is never called"),
    "no unit": (lambda: visualize.deconvnet(Branches(), "one", 1, ONE), "unit is 1, which is outside the layer's 1x6"),
    "no place": (lambda: visualize.deconvnet(Branches(), "one", (0, 6, 0), ONE), "outside the layer's 1x6x6"),
    "half a place": (
        lambda: visualize.deconvnet(Branches(), "one", (0, 1), ONE),
        r"unit is \(0, 1\), expected a channel, or \(channel, row, column\)",
    ),
    "a name": (lambda: visualize.deconvnet(Branches(), "one", "a", ONE), "unit is 'a', expected a channel"),
    "two images": (
        lambda: visualize.deconvnet(Branches(), "one", 0, torch.zeros(2, 1, 6, 6)),
        r"image is \(2, 1, 6, 6\), expected one image",
    ),
    "a sum": (
        lambda: visualize.deconvnet(Branches(), "three", 0, ONE),
        r"what comes into 'three' \(Conv2d\) is not what a layer before it gave: the model adds or concatenates",
    ),
    "a sum at the end": (
        lambda: visualize.deconvnet(models.ResNet(models.resnet.BasicBlock, (1, 1, 1, 1), 10), "layer1", 0,
                                    torch.ones(3, 20, 20)),
        "what comes into the end of 'layer1' is not",
    ),
    "a sigmoid": (
        lambda: visualize.deconvnet(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sigmoid()), "1", 0, ONE),
        r"'1' \(Sigmoid\) is a layer that it cannot undo; it knows convolutions, poolings, ReLUs",
    ),
    "a subclass": (
        lambda: visualize.deconvnet(nn.Sequential(Doubled(1, 1, 3)), "0", 0, ONE),
        r"'0' \(Doubled\) is a layer that it cannot undo",
    ),
    "a padding mode": (
        lambda: visualize.deconvnet(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), "0", 0, ONE),
        r"'0' \(Conv2d\) pads by 'reflect', which it cannot undo",
    ),
    "maps of a vector": (
        lambda: visualize.activation_maps(nn.Sequential(nn.Flatten()), "0", ONE),
        r"the layer gives \(1, 36\), expected maps",
    ),
    "filters of none": (lambda: visualize.filters(nn.ReLU()), "this ReLU holds no torch.nn.Conv2d"),
    "filters of a ReLU": (
        lambda: visualize.filters(nn.Sequential(nn.ReLU()), "0"),
        "filters: '0' is a ReLU, expected a torch.nn.Conv2d",
    ),
    "strongest of none": (lambda: visualize.strongest(Branches(), "one", 4, ONE[None]), "unit is 4, expected 0 to 0"),
    "tiles of one": (lambda: visualize.tiles(ONE[0]), r"pictures are \(6, 6\), expected a tensor of \(T, H, W\)"),
    "tiles of none": (lambda: visualize.tiles(torch.zeros(0, 2, 2)), "there are no pictures to lay out"),
    "tiles of two channels": (lambda: visualize.tiles(torch.zeros(3, 2, 4, 4)), r"expected a tensor of \(T, H, W\) or"),
    "save of four": (lambda: visualize.save(torch.zeros(4, 2, 2), "x.png"), r"picture is \(4, 2, 2\), expected a"),
    "save of a list": (lambda: visualize.save([1], "x.png"), "picture is a list, expected a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, sentence = REFUSED[case]
    with pytest.raises(InvalidCall, match=sentence):
        call()


def test_a_residual_in_the_convolution_is_refused():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = pyconvx.nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.conv(x, residual=x)

    with pytest.raises(InvalidCall, match=r"'conv' \(Conv2d\) adds a residual, which it cannot undo"):
        visualize.deconvnet(Fused(), "conv", 0, ONE)


# The checks are checked.


def last_one_wins(y, switches, size, *window):
    return pyconvx.max_unpool2d(y, switches, *window[:3], size, dilation=window[3])


@pytest.mark.parametrize(
    "label, layer, spoil",
    [
        ("vgg", "avgpool", lambda m: m.setitem(_deconvnet._RULES, nn.ReLU.forward, _deconvnet._PASSED)),
        ("functional", "up", lambda m: m.setattr(_deconvnet, "_link", unrectified(_deconvnet._link))),
        ("alexnet", "features.5", lambda m: m.setattr(_deconvnet.ops, "max_pool2d_backward", last_one_wins)),
        ("lenet5", "c3", lambda m: m.setattr(_deconvnet, "_window", lambda *_: (0, 3))),
    ],
    ids=["a ReLU that passes", "a ReLU by function that passes", "zeros that erase", "another region"],
)
def test_the_checks_see_a_deconvnet_that_is_a_little_wrong(label, layer, spoil, chains, rng, monkeypatch):
    spoil(monkeypatch)
    with pytest.raises(AssertionError):
        test_deconvnet_is_a_gradient_whose_relus_rectify(label, layer, chains, rng, monkeypatch)


def unrectified(link):
    """A link that lets everything pass where it should rectify."""

    def wrong(before, after):
        return link(before, after) and (lambda y: y.reshape(before.shape))

    return wrong


# Pictures.


def read(path):
    return torch.tensor([*PIL.open(path).tobytes()]).view(*reversed(PIL.open(path).size), -1)


def test_saved_pixels(tmp_path):
    grey = torch.tensor([[0.0, 0.5, 1.0], [-3.0, float("nan"), 7.0]])
    visualize.save(grey, tmp_path / "grey.png", magnify=2)
    expected = torch.tensor([[0, 128, 255], [0, 0, 255]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(read(tmp_path / "grey.png")[..., 0], expected)
    visualize.save(grey[None], str(tmp_path / "one.png"))
    assert torch.equal(read(tmp_path / "one.png")[..., 0], expected[::2, ::2])
    colours = torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1).expand(3, 2, 4)
    visualize.save(colours, tmp_path / "colours.png")
    assert torch.equal(read(tmp_path / "colours.png"), torch.tensor([255, 0, 51]).expand(2, 4, 3))


def test_without_pillow_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"written by Pillow, which is not installed: pip install pyconvx\[vis"
    ):
        visualize.save(torch.zeros(2, 2), tmp_path / "x.png")


def test_tiles_stand_in_rows():
    sheet = visualize.tiles(torch.arange(5.0).view(5, 1, 1).expand(5, 2, 3), columns=2, gap=1, background=9)
    assert sheet.shape == (3 * 3 + 1, 2 * 4 + 1)
    assert torch.equal(sheet[1::3, 1::4], torch.tensor([[0.0, 1], [2, 3], [4, 9]]))
    assert (sheet[::3] == 9).all() and (sheet[:, ::4] == 9).all()
    assert visualize.tiles(torch.zeros(6, 3, 4, 4)).shape == (3, 2 * 5 + 1, 3 * 5 + 1)
    assert visualize.tiles(torch.zeros(1, 4, 4), columns=8, gap=0).shape == (4, 4)


def test_ranges():
    x = torch.tensor([[-1.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    assert torch.equal(visualize.to_range(x), torch.tensor([[0.0, 0.5, 1.0], [0.75, 0.75, 0.75]]))
    assert torch.equal(visualize.to_range(x, (1,)), torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]))
    assert torch.allclose(visualize.around_grey(x), torch.tensor([[1 / 3, 2 / 3, 1.0], [5 / 6] * 3]))
    assert torch.equal(visualize.around_grey(torch.zeros(2)), torch.full((2,), 0.5))


def test_filters_are_shown_in_colours_or_in_grey(tmp_path):
    colours = models.AlexNet(2, hidden=2)
    picture = visualize.filters(colours, path=tmp_path / "filters.png", magnify=2)
    assert picture.shape == (3, 8 * 12 + 1, 8 * 12 + 1)
    weight = colours.features[0].weight[9].detach()
    assert torch.allclose(picture[:, 13:24, 13:24], visualize.to_range(weight))
    assert PIL.open(tmp_path / "filters.png").size == (194, 194)
    lenet = models.LeNet5()
    assert visualize.filters(lenet).dim() == 2
    one_by_one = visualize.filters(lenet, lenet.c3)
    assert one_by_one.shape == (16 * 6 + 1, 6 * 6 + 1)
    expected = visualize.around_grey(lenet.c3.weight[3])[2]
    assert torch.equal(one_by_one[19:24, 13:18], expected)


def test_activation_maps_share_a_scale(tmp_path, rng):
    lenet, image = models.LeNet5(), torch.randn(1, 32, 32, generator=rng)
    picture = visualize.activation_maps(lenet, "relu1", image, path=tmp_path / "maps.png")
    maps = visualize.activations(lenet, "relu1", image[None])[0]
    assert picture.shape == (2 * 29 + 1, 3 * 29 + 1)
    assert torch.equal(picture[1:29, 30:58], maps[1] / maps.max())
    assert torch.equal(visualize.activation_maps(lenet, lenet.relu1, image[None]), picture)
    assert PIL.open(tmp_path / "maps.png").size == (88, 59)


def test_the_strongest_images(rng):
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(3 * 16, 2))
    images = torch.randn(7, 1, 4, 4, generator=rng)
    with torch.no_grad():
        maps, logits = model[0](images), model(images)
    expected = sorted(range(7), key=lambda n: -maps[n, 2].max())
    assert visualize.strongest(model, "0", 2, images, count=4).tolist() == expected[:4]
    assert visualize.strongest(model, "2", 1, images).tolist() == logits[:, 1].argsort(descending=True).tolist()


def test_a_projection_is_saved_around_grey(tmp_path, chains, rng):
    image = smooth(rng, 3, 95, 80)
    path = tmp_path / "unit.png"
    unit = firing(chains("alexnet"), "features.2", image)
    projection = visualize.deconvnet(chains("alexnet"), "features.2", unit, image, path)
    pixels = read(path).permute(2, 0, 1)
    assert torch.equal(pixels, (visualize.around_grey(projection.image) * 255).round().long())
    lenet = visualize.deconvnet(chains("lenet5"), "c1", 0, smooth(rng, 1, 32, 32), path, magnify=3)
    assert read(path).shape == (96, 96, 1) and lenet.image.shape == (1, 32, 32)
