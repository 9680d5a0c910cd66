"""A localiser says which digit is in a picture, and where.

Scikit-learn's digits are pasted, at random sizes and places, into noise of 64 x 64; a small ResNet's features give ten
scores and one box (x, y, w, h). Writes a table, and a picture of boxes: green the digit's own, red the network's.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from common import captioned, draw, run
from torch import Tensor

from pyconvx import models, visualize
from pyconvx.demo import load_digits
from pyconvx.evaluate import topk_error
from pyconvx.models.resnet import BasicBlock
from pyconvx.table import Table

SIZE = 64


def main(out: Path, quick: bool = False) -> Table:
    """Train the localiser, and write ``localization.png`` and ``localization.txt``."""
    digits = load_digits()
    torch.manual_seed(0)
    localizer = models.Localizer(10, backbone=models.ResNet(BasicBlock, (1, 1, 1, 1), in_channels=1, width=16))
    learn(localizer, digits.images, digits.labels, steps=4 if quick else 600)
    scenes, boxes = paste(digits.test_images, torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits, found = localizer.eval()(scenes)
    overlap = iou(found, boxes)
    table = Table(
        "360 digits that were not learned, each at a random place",
        ("top-1 error", "mean IoU of the boxes", "boxes with IoU above 1/2"),
        [(f"{topk_error(logits, digits.test_labels, (1,))[0]:.2%}", f"{overlap.mean():.3f}",
          f"{(overlap > 0.5).float().mean():.1%}")],
    )  # fmt: skip
    table.show()
    (out / "localization.txt").write_text(f"{table}\n")
    shown = [
        framed(scene, box, guess, f"{label} read {score.argmax()}")
        for scene, box, guess, label, score in zip(scenes[:12], boxes, found, digits.test_labels, logits, strict=False)
    ]
    visualize.save(visualize.tiles(torch.stack(shown), columns=6, gap=4), out / "localization.png")
    return table


def paste(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Put each digit at its own size and place; return the scenes, and boxes (x, y, w, h) as shares of a scene."""
    scenes = 0.3 * torch.randn(len(images), 1, SIZE, SIZE, generator=generator)
    boxes = torch.empty(len(images), 4)
    for scene, box, image in zip(scenes, boxes, images, strict=True):
        side = int(torch.randint(20, 41, (), generator=generator))
        x, y = torch.randint(SIZE - side + 1, (2,), generator=generator).tolist()
        digit = F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]
        scene[:, y : y + side, x : x + side] += digit - images.min()
        box.copy_(torch.tensor([x, y, side, side]) / SIZE)
    return scenes, boxes


def learn(localizer: models.Localizer, images: Tensor, labels: Tensor, steps: int) -> None:
    """Train on new scenes at every step: cross entropy for the class, absolute differences for the box."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(localizer.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    localizer.train()
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,), generator=generator)
        scenes, boxes = paste(images[batch], generator)
        logits, found = localizer(scenes)
        optimizer.zero_grad()
        (F.cross_entropy(logits, labels[batch]) + 5 * F.l1_loss(found, boxes)).backward()
        optimizer.step()
        schedule.step()


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the area that boxes share, as a share of what they cover together."""
    low = torch.maximum(one[:, :2], other[:, :2])
    high = torch.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    return shared / (one[:, 2:].clamp(min=0).prod(1) + other[:, 2:].prod(1) - shared)


def framed(scene: Tensor, box: Tensor, guess: Tensor, text: str) -> Tensor:
    """Show a scene twice as large, with the digit's box in green and the network's in red."""
    picture = visualize.to_range(scene).expand(3, -1, -1).repeat_interleave(2, 1).repeat_interleave(2, 2)

    def on(pen):
        for (x, y, w, h), colour in (
            ((2 * SIZE * box).tolist(), (44, 160, 44)),
            ((2 * SIZE * guess).tolist(), (214, 39, 40)),
        ):
            pen.rectangle((x, y, max(x + w - 1, x), max(y + h - 1, y)), outline=colour, width=2)

    return captioned(draw(picture, on), text)


if __name__ == "__main__":
    run(main, __doc__)
