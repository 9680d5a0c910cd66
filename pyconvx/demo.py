"""The main job on real input: ``pyconvx demo``.

LeNet-5 in plain torch.nn learns the 1,797 handwritten digits that scikit-learn ships. Then its layers are swapped, and
the demo shows what that changes (the time) and what it does not: logits, accuracy, training, and, once restored, a bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._progress import progress
from .bench.timing import interleaved
from .explain import explain
from .swap import swap
from .table import Table

_REQUIRED_ACCURACY = 0.97
_BATCH = 64
_AGREEMENT = 1e-5
"""How far logits and gradients may be from the original's, as a fraction of the largest: rounding, in another order."""

_TRAINED_APART = 1e-3
"""Likewise for the loss after further training, in which a difference in a last bit grows."""

_SHOWN, _FAILED = "shown", "FAILED"


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU, max pooling and every map of C3 connected: (N, 1, 32, 32) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = nn.MaxPool2d(2)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.s4 = nn.MaxPool2d(2)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x = self.s2(F.relu(self.c1(images)))
        x = self.s4(F.relu(self.c3(x)))
        x = F.relu(self.c5(x)).flatten(1)
        return self.output(F.relu(self.f6(x)))


class Digits(NamedTuple):
    """Images (N, 1, 32, 32) with mean zero and deviation one, and their labels: four fifths to learn, one to test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """Read scikit-learn's digits, 8 x 8, enlarge them to LeNet-5's 32 x 32, and split them, each digit alike.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install scikit-learn") from None
    pixels, labels = datasets.load_digits(return_X_y=True)
    small = torch.as_tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)
    images = F.interpolate(small, size=(32, 32), mode="bilinear")
    images = (images - images.mean()) / images.std()
    learn, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    digits = torch.as_tensor(labels)
    return Digits(images[learn], digits[learn], images[test], digits[test])


def run(quick: bool = False, show_progress: bool = False) -> Table:
    """Train, swap, compare, train on, time and restore.

    Args:
        quick: fewer epochs and fewer timings; what is shown is the same.
        show_progress: whether to show a progress bar, if stderr is a terminal.

    Returns:
        A row for each claim, with what was seen and whether it holds (see :func:`failed`), and for each time.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    digits = load_digits()
    epochs, epochs_on, repeat = (12, 1, 10) if quick else (20, 2, 60)
    claims: list[tuple[str, str, str]] = []

    def claim(text: str, seen: str, holds: bool) -> None:
        claims.append((text, seen, _SHOWN if holds else _FAILED))

    with torch.random.fork_rng(devices=[]), progress("pyconvx demo", epochs + 2 * epochs_on + 3, show_progress) as step:
        torch.manual_seed(0)
        model = LeNet5()
        _train(model, digits, epochs, 4e-3, step)
        accuracy, logits = _test(model, digits)
        claim(
            f"LeNet-5 in plain torch.nn learns {len(digits.labels)} handwritten digits",
            f"{accuracy:.2%} right on {len(digits.test_labels)} it has not seen",
            accuracy >= _REQUIRED_ACCURACY,
        )

        twin = copy.deepcopy(model)  # is never swapped
        classes = {name: type(module) for name, module in model.named_modules()}
        handle = swap(model)
        claim("swap(model) takes its convolutions and poolings", f"{handle.count} of 5 layers", handle.count == 5)
        calls = [row["backend"] for row in explain(model, digits.test_images)]
        by_torch = calls.count("torch")
        claim("they run on pyconvx", f"{len(calls)} calls, {by_torch} past it", len(calls) == 5 and not by_torch)

        swapped_accuracy, swapped_logits = _test(model, digits)
        apart = (swapped_logits - logits).abs().max().item()
        claim(
            "the logits agree",
            f"at most {apart:.2g} apart, at sizes up to {logits.abs().max():.3g}",
            apart <= _AGREEMENT * logits.abs().max().item(),
        )
        changed = int((swapped_logits.argmax(1) != logits.argmax(1)).sum())
        claim("every digit is read the same", f"{changed} of {len(logits)} changed", changed == 0)
        claim(
            "the accuracy is the same", f"{swapped_accuracy:.2%}, before {accuracy:.2%}", swapped_accuracy == accuracy
        )
        step("compared")

        grads, twin_grads = (_gradients(net, digits) for net in (model, twin))
        off = max(
            ((grad - expected).abs().max() / expected.abs().max()).item()
            for grad, expected in zip(grads, twin_grads, strict=True)
        )
        claim(
            "the gradients agree",
            f"of {len(grads)} parameters, at most {off:.2g} of the largest apart",
            off <= _AGREEMENT,
        )

        times = _times(twin, model, digits, repeat)
        step("timed")

        loss, twin_loss = (_train(net, digits, epochs_on, 1e-3, step) for net in (model, twin))
        claim(
            f"it trains on, {epochs_on} epoch{'s' if epochs_on > 1 else ''}, as torch's layers do",
            f"loss {loss:.6g}, torch's {twin_loss:.6g}",
            math.isclose(loss, twin_loss, rel_tol=_TRAINED_APART, abs_tol=1e-6),
        )
        accuracy_on, _ = _test(model, digits)
        claim("and still knows the digits", f"{accuracy_on:.2%} right", accuracy_on >= _REQUIRED_ACCURACY)

        trained = {name: value.clone() for name, value in model.state_dict().items()}
        handle.restore()
        back = {name: type(module) for name, module in model.named_modules()}
        claim("restore() puts torch's classes back", f"{sum(back[n] is classes[n] for n in classes)} of {len(classes)} "
              "modules", back == classes)  # fmt: skip
        state = model.state_dict()
        same = [name for name, value in trained.items() if name in state and torch.equal(state[name], value)]
        claim(
            "with the same parameters, bit for bit",
            f"{len(same)} of {len(trained)} tensors",
            len(same) == len(trained) == len(state),
        )
        fresh = LeNet5()  # a model that never met pyconvx
        fresh.load_state_dict(trained)
        equal = torch.equal(_test(model, digits)[1], _test(fresh, digits)[1])
        claim("and the logits of a model that was never swapped", "equal" if equal else "different", equal)
        step("restored")

    failures = sum(verdict == _FAILED for _, _, verdict in claims)
    outcome = f"all {len(claims)} claims shown" if not failures else f"{failures} of {len(claims)} claims FAILED"
    return Table(
        f"pyconvx demo: {outcome}",
        ("claim", "seen", "verdict"),
        claims + times,
        [
            "Next:",
            "  pyconvx info                                            what this machine has, and what it lacks",
            "  pyconvx explain pyconvx.demo:LeNet5 --input 1,1,32,32   what ran where, and why",
            "  pyconvx bench conv --shapes lenet5 --pass all           its convolutions, beside torch's",
        ],
    )


def failed(table: Table) -> bool:
    """Whether a claim of the demo does not hold."""
    return any(row["verdict"] == _FAILED for row in table)


def _train(model: nn.Module, digits: Digits, epochs: int, rate: float, step: Callable[[str], None]) -> float:
    """Train, in an order of the images that is the same in every call; return the last epoch's mean loss.

    Each batch is shifted by up to two pixels, which is what lets 1,437 images be enough.
    """
    random = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters())
    batches = math.ceil(len(digits.labels) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs=epochs, steps_per_epoch=batches)
    model.train()
    loss = 0.0
    for epoch in range(epochs):
        loss = 0.0
        for batch in torch.randperm(len(digits.labels), generator=random).split(_BATCH):
            shift = torch.randint(-2, 3, (2,), generator=random).tolist()
            images = digits.images[batch].roll(shift, (2, 3))
            loss += _training_step(model, optimizer, images, digits.labels[batch]) * len(batch)
            schedule.step()
        loss /= len(digits.labels)
        step(f"epoch {epoch + 1}, loss {loss:.3f}")
    return loss


def _training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _test(model: nn.Module, digits: Digits) -> tuple[float, Tensor]:
    """Return the accuracy and the logits on the digits that were held out."""
    model.eval()
    logits = model(digits.test_images)
    return (logits.argmax(1) == digits.test_labels).float().mean().item(), logits


def _gradients(model: nn.Module, digits: Digits) -> tuple[Tensor, ...]:
    """Return the gradients of the loss on one batch."""
    loss = F.cross_entropy(model(digits.images[:_BATCH]), digits.labels[:_BATCH])
    return torch.autograd.grad(loss, tuple(model.parameters()))


def _times(original: nn.Module, swapped: nn.Module, digits: Digits, repeat: int) -> list[tuple[str, str, str]]:
    """Time forward passes and a training step of both, in turns; training is on copies."""

    def forward(model: nn.Module, number: int) -> Callable[[], object]:
        images = digits.images[:number]

        def call() -> None:
            with torch.no_grad():
                model(images)

        return call

    def training(model: nn.Module) -> Callable[[], object]:
        pupil = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(pupil.parameters(), lr=0.0)
        return lambda: _training_step(pupil, optimizer, digits.images[:_BATCH], digits.labels[:_BATCH])

    rows = []
    for what, make in (
        ("forward, 1 image", lambda model: forward(model, 1)),
        (f"forward, {_BATCH} images", lambda model: forward(model, _BATCH)),
        (f"training step, {_BATCH} images", training),
    ):
        theirs, ours = interleaved((make(original), make(swapped)), repeat, torch.device("cpu"))
        seen = f"swapped {ours.median * 1e6:.0f} us, torch {theirs.median * 1e6:.0f} us"
        rows.append((what, seen, f"{theirs.median / ours.median:.2f} x as fast"))
    return rows
