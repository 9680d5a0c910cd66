"""The filters that convolution is explained with, on a photograph: blurring, sharpening and edges.

Every picture is one call of ``pyconvx.conv2d`` with filters written by hand. A Gaussian is the product of a row and a
column, so two thin convolutions do what a square one does, with 2 n multiplications a pixel in place of n * n.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from common import captioned, run
from skimage import data
from torch import Tensor

import pyconvx
from pyconvx import visualize
from pyconvx.table import Table

SOBEL = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
PREWITT = torch.tensor([[1.0, 0, -1], [1, 0, -1], [1, 0, -1]])
LAPLACE = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
SHARPEN = torch.tensor([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]])
BOX = torch.full((5, 5), 1 / 25)


def main(out: Path, quick: bool = False) -> Table:
    """Filter the photograph, compare the two ways to blur it, and write ``filters.png`` and ``filters.txt``."""
    photograph = torch.from_numpy(data.camera()).float() / 255
    photograph = photograph[:128, 128:256] if quick else photograph[:256, 100:356]
    line = gaussian(sigma=3.0)
    blurred = apply(photograph, line[:, None] * line)
    thin = apply(apply(photograph, line[None]), line[:, None])
    across, down = apply(photograph, SOBEL), apply(photograph, SOBEL.T)
    pictures = {
        "photograph": photograph,
        "box, 5 x 5": apply(photograph, BOX),
        "Gaussian, sigma 3": blurred,
        "sharpened": apply(photograph, SHARPEN),
        "Sobel across": visualize.around_grey(across),
        "Sobel down": visualize.around_grey(down),
        "Sobel, magnitude": visualize.to_range(torch.hypot(across, down)),
        "Prewitt across": visualize.around_grey(apply(photograph, PREWITT)),
        "Laplace": visualize.around_grey(apply(photograph, LAPLACE)),
        "Laplace of Gaussian": visualize.around_grey(
            apply(apply(photograph, gaussian(1.5)[:, None] * gaussian(1.5)), LAPLACE)
        ),
    }
    shown = torch.stack([captioned(picture, name)[0] for name, picture in pictures.items()])  # all is grey
    visualize.save(visualize.tiles(shown, columns=5, gap=4), out / "filters.png")

    n = len(line)
    table = Table(
        f"A Gaussian of {n} x {n}, two ways",
        ("filters", "multiplications a pixel", "farthest from the square one"),
        [(f"{n} x {n}", n * n, 0.0), (f"1 x {n}, then {n} x 1", 2 * n, (thin - blurred).abs().max().item())],
    )
    table.show()
    (out / "filters.txt").write_text(f"{table}\n")
    return table


def apply(image: Tensor, weights: Tensor) -> Tensor:
    """Filter a grey image and keep its size: beyond its border stand the border's own pixels again."""
    down, across = (size // 2 for size in weights.shape)
    around = F.pad(image[None], (across, across, down, down), mode="replicate")
    return pyconvx.conv2d(around, weights[None, None])[0]


def gaussian(sigma: float) -> Tensor:
    """Return a row of a Gaussian that reaches three sigma, with the sum 1."""
    places = torch.arange(-round(3 * sigma), round(3 * sigma) + 1)
    line = torch.exp(-(places**2) / (2 * sigma**2))
    return line / line.sum()


if __name__ == "__main__":
    run(main, __doc__)
