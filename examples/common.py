"""What the examples share: their command line, a training loop, and captions and curves for their pictures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from pyconvx import visualize

COLOURS = ((214, 39, 40), (31, 119, 180), (255, 152, 150), (158, 202, 225))


def run(example: Callable[[Path, bool], Any], description: str | None) -> None:
    """Run an example as a script: ``--out`` says where its files go, ``--quick`` takes a short form of it."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of what is written (default: here)")
    parser.add_argument("--quick", action="store_true", help="a short form, to see that it runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    example(options.out, options.quick)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the numbers of a new order of ``count`` examples, ``size`` at a time."""
    yield from torch.randperm(count, generator=generator).split(size)


def train(
    model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float = 4e-3, size: int = 64, seed: int = 1
) -> list[float]:
    """Train a classifier by AdamW with one cycle of the rate; return every epoch's mean loss."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters())
    steps = math.ceil(len(labels) / size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs=epochs, steps_per_epoch=steps)
    losses = []
    for _ in range(epochs):
        model.train()
        total = 0.0
        for batch in batches(len(labels), size, generator):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        losses.append(total / len(labels))
    model.eval()
    return losses


def captioned(picture: Tensor, text: str) -> Tensor:
    """Return a picture in colours with a line of text above it, as wide as it needs."""
    colours = picture.expand(3, *picture.shape[-2:])
    width = max(colours.shape[2], int(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text)) + 4)
    sheet = torch.ones(3, colours.shape[1] + 14, width)
    sheet[:, 14:, : colours.shape[2]] = colours
    return draw(sheet, lambda pen: pen.text((2, 1), text, fill=(0, 0, 0)))


def draw(picture: Tensor, on: Callable[[Any], None]) -> Tensor:
    """Return a picture in colours that ``on`` has drawn on, with a pen of Pillow's."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    sheet = Image.fromarray(pixels.contiguous().numpy())
    on(ImageDraw.Draw(sheet))
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(*pixels.shape).permute(2, 0, 1) / 255


def beside(pictures: list[Tensor], gap: int = 6) -> Tensor:
    """Lay pictures in colours out in a row, on white."""
    height = max(picture.shape[1] for picture in pictures)
    sheet = torch.ones(3, height + 2 * gap, gap + sum(picture.shape[2] + gap for picture in pictures))
    left = gap
    for picture in pictures:
        sheet[:, gap : gap + picture.shape[1], left : left + picture.shape[2]] = picture
        left += picture.shape[2] + gap
    return sheet


def curves(lines: dict[str, list[float]], title: str, path: Path) -> None:
    """Draw a line for every list of numbers, each with its name, from zero to the largest, and save the picture."""
    width, height, left, top = 560, 320, 40, 24
    most = max(max(line) for line in lines.values())
    unit = 10 ** math.floor(math.log10(most))
    ticks = [tick * unit / 2 for tick in range(1, int(2 * most / unit) + 1)]
    longest = max(len(line) for line in lines.values())

    def place(step: float, value: float) -> tuple[float, float]:
        return left + step / max(longest - 1, 1) * (width - left - 90), height - 24 - value / most * (height - top - 32)

    def on(pen: Any) -> None:
        pen.text((left, 4), title, fill=(0, 0, 0))
        pen.line([place(0, most), place(0, 0), place(longest - 1, 0)], fill=(0, 0, 0))
        for tick in ticks:
            pen.line([place(0, tick), place(longest - 1, tick)], fill=(225, 225, 225))
            pen.text((4, place(0, tick)[1] - 6), f"{tick:.3g}", fill=(0, 0, 0))
        for epoch in range(0, longest, max(1, longest // 10)):
            pen.text((place(epoch, 0)[0] - 3, height - 20), str(epoch + 1), fill=(0, 0, 0))
        names = sorted(lines, key=lambda name: -lines[name][-1])
        at = [place(0, lines[name][-1])[1] - 6 for name in names]
        below = height - 24.0
        for number in reversed(range(len(at))):  # above the axis, and above each other where lines end together
            below = at[number] = min(at[number], below - 12)
        for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
            pen.line([place(step, value) for step, value in enumerate(line)], fill=colour, width=2)
            pen.text((place(longest - 1, 0)[0] + 6, at[names.index(name)]), name, fill=colour)

    visualize.save(draw(torch.ones(3, height, width), on), path)
