"""LeNet-5 and a small ResNet learn scikit-learn's handwritten digits.

1,437 images to learn from, 360 to test; prints and writes a table of top-1 and top-2 errors, of each network and of
both together, and saves LeNet-5's first filters and what they make of a digit.
"""

from pathlib import Path

import torch
from common import run, train

from pyconvx import models, visualize
from pyconvx.demo import load_digits
from pyconvx.evaluate import Ensemble, topk_error
from pyconvx.models.resnet import BasicBlock
from pyconvx.table import Table


def main(out: Path, quick: bool = False) -> Table:
    """Train both, test them, and write ``digits.txt``, ``digits-filters.png`` and ``digits-maps.png``."""
    digits = load_digits()
    torch.manual_seed(0)
    lenet = models.LeNet5()
    resnet = models.ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10, in_channels=1, width=16)
    train(lenet, digits.images, digits.labels, 2 if quick else 20)
    train(resnet, digits.images, digits.labels, 1 if quick else 20)

    table = Table("Errors on 360 digits that were not learned", ("network", "parameters", "top-1", "top-2"))
    networks = {"LeNet-5": lenet, "ResNet of 10 layers": resnet, "both, averaged": Ensemble([lenet, resnet])}
    for name, network in networks.items():
        with torch.no_grad():
            errors = topk_error(network(digits.test_images), digits.test_labels, (1, 2))
        size = sum(parameter.numel() for parameter in network.parameters())
        table.rows.append((name, size, *(f"{error:.2%}" for error in errors)))
    table.show()
    (out / "digits.txt").write_text(f"{table}\n")
    visualize.filters(lenet, path=out / "digits-filters.png", magnify=12)
    visualize.activation_maps(lenet, "relu1", digits.test_images[0], out / "digits-maps.png", magnify=4)
    return table


if __name__ == "__main__":
    run(main, __doc__)
