"""Freezing and new heads: what learns, what stays, and that all of it can be undone."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyconvx
from pyconvx import InvalidCall, models
from pyconvx.models.resnet import BasicBlock
from pyconvx.transfer import freeze, replace_head


def resnet(num_classes=10):
    torch.manual_seed(0)
    return models.ResNet(BasicBlock, (1, 1, 1, 1), num_classes)


IMAGES, LABELS = torch.randn(4, 3, 33, 33, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])


def train(model, steps=2):
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()


def changed(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_only_the_new_head_learns_and_afterwards_everything_does():
    model = resnet()
    head = replace_head(model, 3)
    assert head is model.fc and (head.in_features, head.out_features) == (512, 3)
    before = copy.deepcopy(model.state_dict())
    with freeze(model, exclude=head) as frozen:
        assert frozen.count == sum(p.numel() for p in model.parameters()) - 512 * 3 - 3
        assert repr(frozen) == f"<Freeze: {frozen.count:,} parameters, the statistics of 12 batch norms>"
        train(model)
        assert changed(model, before) == {"fc.weight", "fc.bias"}
        pickle.loads(pickle.dumps(model))
    assert frozen.count == 0 and all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())
    train(model)
    assert changed(model, before) == before.keys()


def test_frozen_batch_norms_use_their_statistics_in_training():
    model = resnet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    with torch.no_grad():
        expected = model.eval()(IMAGES)
        handle = freeze(model)
        torch.testing.assert_close(model.train()(IMAGES), expected)
        handle.undo()
        assert not torch.allclose(model.train()(IMAGES), expected)


def test_parts_are_excluded_by_name_pattern_and_module():
    model = resnet()
    with freeze(model, exclude=["fc", "layer4.*", model.layer3[0].bn2]):
        learning = {name for name, p in model.named_parameters() if p.requires_grad}
        assert learning == {
            name for name, _ in model.named_parameters() if name.startswith(("fc.", "layer4.0.", "layer3.0.bn2."))
        }
        train(model)
        assert model.layer4[0].bn1.training and model.layer3[0].bn2.training
        assert not model.bn1.training and not model.layer3[0].bn1.training
    assert model.bn1.training


def test_what_was_frozen_before_stays_frozen():
    model = resnet()
    model.conv1.weight.requires_grad_(False)
    model.bn1.eval()
    with freeze(model, exclude="fc"):
        pass
    assert not model.conv1.weight.requires_grad and model.layer1[0].conv1.weight.requires_grad
    assert not model.bn1.training


HEADS = {
    "linear": (resnet, ["fc"]),
    "sequential": (lambda: models.VGG("A", hidden=8), ["classifier.6"]),
    "convolution": (models.CifarNetworkInNetwork, ["features.20"]),
    "unet": (lambda: models.UNet(width=4), ["output"]),
    "segnet": (lambda: models.SegNet(width=4), ["decoder.4.3"]),
    "auxiliary": (lambda: models.GoogLeNet(aux_logits=True), ["aux1.fc2", "aux2.fc2", "fc"]),
}


@pytest.mark.parametrize("case", HEADS)
def test_the_head_is_found_and_all_else_is_kept(case):
    build, names = HEADS[case]
    model = build()
    before = dict(model.named_modules())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    replace_head(model, 7)
    assert [name for name, module in model.named_modules() if before[name] is not module] == names
    for name in names:
        new, old = model.get_submodule(name), before[name]
        assert type(new) is type(old) and new.weight.shape == (7, *old.weight.shape[1:])
    kept = {name: value for name, value in model.state_dict().items() if name.rpartition(".")[0] not in names}
    assert kept and all(torch.equal(value, state[name]) for name, value in kept.items())
    fresh = {"num_classes": 7}
    if case == "linear":
        assert model.state_dict().keys() == resnet(**fresh).state_dict().keys()


def test_a_certain_layer_is_replaced():
    model = models.Localizer(10, backbone=resnet())
    assert replace_head(model, 3, layer="classes") is model.classes
    assert replace_head(model, 5, layer=model.classes) is model.classes
    logits, boxes = model.eval()(IMAGES)
    assert (logits.shape, boxes.shape) == ((4, 5), (4, 4))


def test_device_dtype_and_bias_are_the_old_ones():
    model = nn.Sequential(pyconvx.nn.Conv2d(3, 8, 3, 2, "same", bias=False, dtype=torch.float64))
    head = replace_head(model, 5)
    assert head.weight.dtype == torch.float64 and head.bias is None
    assert (head.padding, head.stride) == ("same", (2, 2))


REFUSED = {
    "no layer": (
        lambda: replace_head(nn.Sequential(nn.ReLU()), 2),
        "this Sequential holds no linear layer and no conv",
    ),
    "a layer alone": (lambda: replace_head(nn.Linear(2, 3), 2), "this Linear holds no linear layer and no convolution"),
    "no classes": (lambda: replace_head(resnet(), 0), "num_classes is 0, expected a positive int"),
    "no such layer": (lambda: replace_head(resnet(), 2, "head"), "layer is 'head', expected a linear layer or conv"),
    "no such name": (
        lambda: freeze(resnet(), "head"),
        "freeze: 'head' in exclude is no module of the model; see model",
    ),
    "another's": (lambda: freeze(resnet(), nn.ReLU()), "freeze: this ReLU in exclude is no module of the model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, sentence = REFUSED[case]
    with pytest.raises(InvalidCall, match=sentence):
        call()
