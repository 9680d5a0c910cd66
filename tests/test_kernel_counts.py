"""Counts of kernels on the command line."""

import json

import pytest

from pyconvx import backends
from pyconvx.__main__ import main

EMULATOR = next(backend for backend in backends.registered() if backend.name == "emulator")

pytestmark = pytest.mark.skipif(EMULATOR.unavailable() is not None, reason=str(EMULATOR.unavailable()))


def count(capsys, *arguments, operation="conv2d"):
    assert main(["kernels", "count", operation, "--json", *arguments]) == 0
    return {row["what"].strip(): row for row in json.loads(capsys.readouterr().out)["rows"]}


def test_aligned_half_precision_has_no_bank_conflict_and_writes_each_sector_once(capsys):
    rows = count(capsys, "--c", "32", "--h", "16", "--k", "32")
    assert rows["shared wavefronts"]["counted / fewest"] == 1
    assert rows["sectors written"]["counted / fewest"] == 1
    assert rows["sectors read"]["counted / fewest"] >= 1
    assert rows["multiply-adds"]["counted / fewest"] >= 1


def test_float32_multiplies_on_fma(capsys):
    rows = count(capsys, "--c", "16", "--h", "8", "--k", "16", "--r", "1", "--dtype", "fp32")
    assert rows["multiply-adds"]["fewest"] == 8 * 8 * 16 * 16
    assert rows["multiply-adds"]["counted"] >= rows["multiply-adds"]["fewest"]


def test_bad_geometry_is_a_sentence(capsys):
    assert main(["kernels", "count", "conv2d", "--stride", "0"]) == 2
    assert "stride must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("direction", [[], ["--backward"]], ids=str)
@pytest.mark.parametrize("operation", ["max_pool2d", "max_unpool2d"])
@pytest.mark.parametrize("layout", [[], ["--contiguous"]], ids=str)
def test_a_pooling_of_bytes_moves_every_sector_once(capsys, operation, layout, direction):
    rows = count(capsys, "--c", "32", "--h", "32", "--dtype", "bf16", *layout, *direction, operation=operation)
    for what in ("sectors read", "sectors written"):
        assert rows[what]["counted"] >= rows[what]["fewest"] > 0
        assert rows[what]["counted / fewest"] <= (1.2 if layout else 1)
    fewest = {
        ("max_pool2d", False): (8, 3), ("max_pool2d", True): (3, 8),
        ("max_unpool2d", False): (3, 8), ("max_unpool2d", True): (9, 2),
    }[operation, bool(direction)]  # fmt: skip
    assert (rows["sectors read"]["fewest"], rows["sectors written"]["fewest"]) == tuple(16 * 16 * x for x in fewest)


def test_a_relu_before_a_pooling_is_a_read_of_its_output(capsys):
    sizes = ["--c", "16", "--h", "16", "--r", "3", "--stride", "2", "--padding", "1", "--backward"]
    plain, relu = (count(capsys, *sizes, *more, operation="max_pool2d") for more in ([], ["--relu"]))
    assert 32 * (relu["sectors read"]["fewest"] - plain["sectors read"]["fewest"]) == 2 * 16 * 8 * 8


@pytest.mark.parametrize(
    "options, bytes_read, bytes_written",
    [([], 4, 2), (["--relu", "--mask"], 4, 2.125), (["--relu", "--backward"], 4, 2),
     (["--relu", "--mask", "--backward"], 2.125, 2)],
    ids=str,
)  # fmt: skip
def test_a_residual_add_moves_every_sector_once(capsys, options, bytes_read, bytes_written):
    rows = count(capsys, "--c", "16", "--h", "32", *options, operation="residual_add")
    for what, each in (("sectors read", bytes_read), ("sectors written", bytes_written)):
        assert rows[what]["counted"] == rows[what]["fewest"] == 16 * 32 * 32 * each / 32


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["max_pool2d", "--stride", "0"], "stride must be at least 1"),
        (["max_pool2d", "--index", "none", "--backward"], "a gradient needs to know who won; pass --index uint8"),
        (["max_unpool2d", "--h", "1"], "max_pool2d: "),
        (["residual_add", "--mask"], "without a ReLU there is no mask and nothing to compute backward; pass --relu"),
        (["residual_add", "--c", "0"], "has no elements; pass sizes of at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_a_sentence(capsys, arguments, sentence):
    assert main(["kernels", "count", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("operation", ["conv2d", "max_pool2d", "max_unpool2d", "residual_add"])
def test_help_tells_every_option(capsys, operation):
    with pytest.raises(SystemExit):
        main(["kernels", "count", operation, "--help"])
    said = capsys.readouterr().out
    assert "rows of the input" in said and "--dtype" in said and "--json" in said
    assert ("--index" in said) == ("pool" in operation) and ("--k " in said) == (operation == "conv2d")
