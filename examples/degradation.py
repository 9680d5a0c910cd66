"""Plain networks against residual ones: does a deeper network train worse, and does a shortcut help?

The experiment of He et al. (2015, figure 4) in small: networks of 18 and 34 layers, with and without shortcuts, on
scikit-learn's digits in place of ImageNet, a quarter as wide. Writes their training losses as a picture and as a table.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from common import batches, curves, run

from pyconvx import models
from pyconvx.demo import load_digits
from pyconvx.table import Table


def main(out: Path, quick: bool = False) -> Table:
    """Train the four networks alike, and write ``degradation.png`` and ``degradation.txt``."""
    digits = load_digits()
    count, epochs = (256, 2) if quick else (len(digits.labels), 15)
    images = F.interpolate(digits.images[:count], (16, 16), mode="bilinear", antialias=True)
    lines = {}
    for name in ("plain34", "resnet34", "plain18", "resnet18"):
        torch.manual_seed(0)
        lines[name] = learn(
            models.create_model(name, num_classes=10, in_channels=1, width=16), images, digits.labels, epochs
        )
        print(f"{name}: training loss {lines[name][-1]:.3f} after {epochs} epochs", flush=True)
    curves(lines, "Training loss on scikit-learn's digits, by epoch", out / "degradation.png")
    rows = [(epoch + 1, *(f"{lines[name][epoch]:.3f}" for name in lines)) for epoch in range(epochs)]
    table = Table("Training loss by epoch", ("epoch", *lines), rows)
    (out / "degradation.txt").write_text(f"{table}\n")
    return table


def learn(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[float]:
    """Train as the paper does (section 3.4), SGD with momentum and weight decay; return every epoch's loss."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in batches(len(images), 128, generator):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(images))
    return losses


if __name__ == "__main__":
    run(main, __doc__)
