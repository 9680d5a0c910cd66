"""The examples run, in their short forms, and leave the files that they say they do."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

PIL = pytest.importorskip("PIL.Image")
pytest.importorskip("sklearn")
pytest.importorskip("skimage")

EXAMPLES = Path(__file__).parent.parent / "examples"

FILES = {
    "digits": ["digits.txt", "digits-filters.png", "digits-maps.png"],
    "degradation": ["degradation.png", "degradation.txt"],
    "segmentation": ["segmentation.png", "segmentation.txt"],
    "deconvnet_view": ["deconvnet.png"],
    "localization": ["localization.png", "localization.txt"],
    "filters_on_a_photograph": ["filters.png", "filters.txt"],
}
"""What each example writes."""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that runs an example in its short form and returns what it returns."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("common", *FILES):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def call(name):
        with torch.random.fork_rng():
            return importlib.import_module(name).main(tmp_path, quick=True)

    return call


def percent(cell):
    return float(cell.removesuffix("%"))


def rows_of_digits(table):
    assert [row["network"] for row in table] == ["LeNet-5", "ResNet of 10 layers", "both, averaged"]
    assert all(percent(row["top-2"]) <= percent(row["top-1"]) < 60 for row in table)


def rows_of_degradation(table):
    assert [row["epoch"] for row in table] == [1, 2]
    for name in ("plain18", "plain34", "resnet18", "resnet34"):
        assert float(table.rows[1][table.columns.index(name)]) < 2.5


def rows_of_segmentation(table):
    assert [row["network"] for row in table] == ["SegNet", "U-Net"]


def rows_of_deconvnet(counts):
    assert counts == {"relu1": 6, "relu3": 6, "relu5": 6}


def rows_of_localization(table):
    assert len(table) == 1


def rows_of_filters(table):
    square, thin = table
    assert (square["multiplications a pixel"], thin["multiplications a pixel"]) == (19 * 19, 2 * 19)
    assert thin["farthest from the square one"] < 1e-5


CHECKS = {
    "digits": rows_of_digits,
    "degradation": rows_of_degradation,
    "segmentation": rows_of_segmentation,
    "deconvnet_view": rows_of_deconvnet,
    "localization": rows_of_localization,
    "filters_on_a_photograph": rows_of_filters,
}


@pytest.mark.parametrize("name", FILES)
def test_example(name, run, tmp_path):
    CHECKS[name](run(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES[name])
    for path in tmp_path.glob("*.png"):
        picture = PIL.open(path)
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        assert min(picture.size) >= 32 and pixels.float().std() > 10, f"{path.name} shows nothing"
    for path in tmp_path.glob("*.txt"):
        assert len(path.read_text().splitlines()) >= 4


def test_every_example_is_tested_and_listed():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"common"}
    assert scripts == FILES.keys() == CHECKS.keys()
    listed = set(re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text()))
    assert listed == scripts


def test_the_localizers_measure(run, monkeypatch):
    iou = importlib.import_module("localization").iou
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2], [0.0, 0.0, -1.0, 1.0]])
    own = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.0, 0.5, 0.5], [0.6, 0.6, 0.2, 0.2], [0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(iou(boxes, own), torch.tensor([1.0, 1 / 3, 0.0, 0.0]))
