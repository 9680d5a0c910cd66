"""SegNet and U-Net find the coins in scikit-image's photograph of coins from Pompeii.

Their labels are what scikit-image's watershed of the edges finds, the method of its own guide, and no human's. The
networks learn from random patches of the upper two thirds and are tested on the lower third, which they never see.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import beside, captioned, run
from skimage import data, filters, segmentation
from torch import Tensor

from pyconvx import models, visualize
from pyconvx.augment import CropAndFlip
from pyconvx.table import Table

PATCH = 96


def main(out: Path, quick: bool = False) -> Table:
    """Train both, and write ``segmentation.png`` and ``segmentation.txt``."""
    pixels = data.coins()
    labels = torch.from_numpy(watershed(pixels))
    photograph = torch.from_numpy(pixels).float() / 255
    image = (photograph - photograph.mean()) / photograph.std()
    border = 2 * len(image) // 3
    torch.manual_seed(0)
    networks = {
        "SegNet": models.SegNet(num_classes=2, in_channels=1, width=8),
        "U-Net": models.UNet(padding="same", width=8),
    }
    table = Table("Coins in the lower third", ("network", "parameters", "pixels right", "IoU of the coins"))
    shown = [captioned(photograph, "photograph"), captioned(labels.float(), "watershed")]
    for name, network in networks.items():
        learn(network, image[:border], labels[:border], steps=3 if quick else 200)
        with torch.no_grad():
            found = network.eval()(image[None, None])[0].argmax(0)
        right, union = (found == labels)[border:], (found | labels)[border:].sum().item()
        both = (found & labels)[border:].sum().item()
        size = sum(parameter.numel() for parameter in network.parameters())
        table.rows.append((name, size, f"{right.float().mean():.1%}", f"{both / max(union, 1):.3f}"))
        picture = found.float().expand(3, -1, -1).clone()
        picture[:, border - 1 : border + 1] = torch.tensor([1.0, 0.2, 0.2]).view(3, 1, 1)  # learned above, tested below
        shown.append(captioned(picture, name))
    table.show()
    (out / "segmentation.txt").write_text(f"{table}\n")
    visualize.save(beside(shown), out / "segmentation.png")
    return table


def watershed(pixels: np.ndarray) -> np.ndarray:
    """Label coins 1 and background 0: the watershed of the edges, from what is certainly dark and certainly bright."""
    markers = np.zeros(pixels.shape, dtype=int)
    markers[pixels < 30], markers[pixels > 150] = 1, 2
    return segmentation.watershed(filters.sobel(pixels), markers) - 1


def learn(network: torch.nn.Module, image: Tensor, labels: Tensor, steps: int) -> None:
    """Train on random patches of an image, four at a time; image and labels are cropped and mirrored together."""
    both = torch.stack([image, labels.to(image.dtype)]).expand(4, -1, -1, -1)
    crops = CropAndFlip(PATCH, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    network.train()
    for _ in range(steps):
        patches = crops(both)
        optimizer.zero_grad()
        F.cross_entropy(network(patches[:, :1]), patches[:, 1].long()).backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    run(main, __doc__)
