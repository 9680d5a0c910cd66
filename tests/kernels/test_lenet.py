"""A network as a whole on the CUDA kernels: LeNet-5 reads the digits as the demo does."""

from __future__ import annotations

import pytest
import torch

import pyconvx
from kernels import harness  # noqa: F401 - skips where there is no emulator
from pyconvx import demo

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


@pytest.fixture(scope="module")
def trained():
    """The demo's network, trained by torch; its test digits, and the logits that it gives them."""
    digits = demo.load_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = demo.LeNet5()
        demo._train(model, digits, 8, 4e-3, lambda text: None)
    return model, digits, demo._test(model, digits)


def test_float32_reads_every_digit_the_same(trained):
    model, digits, (accuracy, logits) = trained
    assert accuracy >= demo._REQUIRED_ACCURACY
    with pyconvx.swap(model), pyconvx.backend("emulator"):
        calls = [row["backend"] for row in pyconvx.explain(model, digits.test_images[:1])]
        emulated_accuracy, emulated = demo._test(model, digits)
    assert calls == ["emulator"] * 5
    assert emulated_accuracy == accuracy
    assert torch.equal(emulated.argmax(1), logits.argmax(1))
    torch.testing.assert_close(emulated, logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_tensor_cores_keep_the_accuracy(trained, dtype):
    model, digits, _ = trained
    digits = digits._replace(test_images=digits.test_images[:120], test_labels=digits.test_labels[:120])
    accuracy, _ = demo._test(model, digits)
    with pyconvx.swap(model), pyconvx.backend("emulator"), torch.autocast("cpu", dtype):
        emulated_accuracy, _ = demo._test(model, digits)
    assert abs(emulated_accuracy - accuracy) <= 0.01
