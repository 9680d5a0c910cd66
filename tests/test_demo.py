"""The demo shows what it claims, and says so when it cannot."""

import sys

import pytest
import torch

from pyconvx import demo, functional

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def one_thread():
    """LeNet-5 is too small for more, and other tests may be running."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def verdicts(table):
    return {row["claim"]: row["verdict"] for row in table}


@pytest.fixture
def trained(monkeypatch):
    """Train once for all tests but the first: what they are about comes after."""
    real = demo._train

    def train(model, digits, epochs, rate, step):
        return real(model, digits, min(epochs, 1), rate, step)

    monkeypatch.setattr(demo, "_train", train)


def test_all_claims_are_shown():
    table = demo.run(quick=True)
    assert not demo.failed(table), str(table)
    shown = [row for row in table if row["verdict"] == "shown"]
    assert len(shown) == 12
    accuracy = float(shown[0]["seen"].partition("%")[0])
    assert accuracy >= 97
    assert "on 360 it has not seen" in shown[0]["seen"]
    times = [row for row in table if row["verdict"].endswith("x as fast")]
    assert [row["claim"].partition(",")[0] for row in times] == ["forward", "forward", "training step"]
    assert all("swapped" in row["seen"] and "torch" in row["seen"] for row in times)
    commands = [note for note in table.notes if note.startswith("  pyconvx ")]
    assert len(commands) == 3


def test_the_split_is_stratified_and_the_same_every_time():
    one, other = demo.load_digits(), demo.load_digits()
    assert torch.equal(one.images, other.images) and torch.equal(one.test_labels, other.test_labels)
    assert one.images.shape == (1437, 1, 32, 32) and one.test_images.shape == (360, 1, 32, 32)
    assert one.test_labels.bincount(minlength=10).min() >= 34
    learned, held_out = ({image.numpy().tobytes() for image in images} for images in (one.images, one.test_images))
    assert not learned & held_out


def test_it_leaves_the_generator_of_torch_alone(trained):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    demo.run(quick=True)
    assert torch.equal(torch.rand(3), expected)


def test_a_wrong_convolution_fails_the_claims(trained, monkeypatch):
    right = functional.conv2d
    monkeypatch.setattr(functional, "conv2d", lambda *args, **kwargs: right(*args, **kwargs) * 1.01)
    table = demo.run(quick=True)
    assert demo.failed(table)
    assert verdicts(table)["the logits agree"] == "FAILED"
    assert "FAILED" in table.title
    assert verdicts(table)["restore() puts torch's classes back"] == "shown"


def test_a_wrong_gradient_fails_its_claim(trained, monkeypatch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * 1.5

    right = functional.max_pool2d
    monkeypatch.setattr(functional, "max_pool2d", lambda *args, **kwargs: Wrong.apply(right(*args, **kwargs)))
    found = verdicts(demo.run(quick=True))
    assert found["the logits agree"] == "shown"
    assert found["the gradients agree"] == "FAILED"


def test_training_that_goes_astray_fails_its_claim(trained, monkeypatch):
    right, calls = functional.max_pool2d, []

    def drifting(*args, **kwargs):
        calls.append(args)
        return right(*args, **kwargs) * (1 + len(calls) * 1e-3 * torch.is_grad_enabled())

    monkeypatch.setattr(functional, "max_pool2d", drifting)
    assert verdicts(demo.run(quick=True))["it trains on, 1 epoch, as torch's layers do"] == "FAILED"


def test_a_restore_that_leaves_a_layer_fails(trained, monkeypatch):
    from pyconvx import swap

    handle = sys.modules[swap.__module__].Handle
    right = handle.restore

    def restore(self):
        self._swapped = self._swapped[1:]
        right(self)

    monkeypatch.setattr(handle, "restore", restore)
    assert verdicts(demo.run(quick=True))["restore() puts torch's classes back"] == "FAILED"


def test_too_little_learning_fails(trained):
    table = demo.run(quick=True)
    claim = "LeNet-5 in plain torch.nn learns 1437 handwritten digits"
    assert verdicts(table)[claim] == "FAILED" and demo.failed(table)


def test_without_scikit_learn_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        demo.run(quick=True)
