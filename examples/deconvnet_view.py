"""What the units of a trained LeNet-5 have learned to see, by the deconvnet of Zeiler and Fergus.

For some units of each convolution, the digits that they fire most on, of those not learned, and beside each what of it
made them fire: the rows of the paper's figure 2. The red frame is the part of the image that the unit sees.
"""

from pathlib import Path

import torch
from common import beside, captioned, draw, run, train
from torch import Tensor

from pyconvx import models, visualize
from pyconvx.demo import load_digits

UNITS, DIGITS, ENLARGED = 6, 4, 2


def main(out: Path, quick: bool = False) -> dict[str, int]:
    """Train LeNet-5 and write ``deconvnet.png``; return how many units of each layer were shown."""
    digits = load_digits()
    torch.manual_seed(0)
    lenet = models.LeNet5()
    train(lenet, digits.images, digits.labels, 1 if quick else 20)
    columns, counts = [], {}
    for layer in ("relu1", "relu3", "relu5"):
        maps = visualize.activations(lenet, layer, digits.test_images)
        busiest = maps.flatten(2).amax(2).mean(0).argsort(descending=True)[:UNITS].tolist()
        rows = [row(lenet, layer, unit, digits.test_images) for unit in busiest]
        columns.append(captioned(torch.cat(rows, 1), f"{layer}: {', '.join(map(str, busiest))}"))
        counts[layer] = len(rows)
    visualize.save(beside(columns), out / "deconvnet.png")
    return counts


def row(model: torch.nn.Module, layer: str, unit: int, images: Tensor) -> Tensor:
    """Show the images that a unit fires most on, each beside its projection."""
    pictures = []
    for number in visualize.strongest(model, layer, unit, images, DIGITS).tolist():
        image = images[number]
        projection = visualize.deconvnet(model, layer, unit, image)
        top, bottom, left, right = (ENLARGED * line for line in projection.region)
        frame = (left, top, right + ENLARGED - 1, bottom + ENLARGED - 1)
        seen = draw(
            enlarged(visualize.to_range(image)), lambda pen, box=frame: pen.rectangle(box, outline=(214, 39, 40))
        )
        pictures += [seen, enlarged(visualize.around_grey(projection.image))]
    return visualize.tiles(torch.stack(pictures), columns=2 * DIGITS)


def enlarged(picture: Tensor) -> Tensor:
    """Return a grey picture of one channel in colours, twice as large each way."""
    return picture.expand(3, -1, -1).repeat_interleave(ENLARGED, 1).repeat_interleave(ENLARGED, 2)


if __name__ == "__main__":
    run(main, __doc__)
