"""Counts of kernels on the command line."""

import json

import pytest

from pyconvx import backends
from pyconvx.__main__ import main

EMULATOR = next(backend for backend in backends.registered() if backend.name == "emulator")

pytestmark = pytest.mark.skipif(EMULATOR.unavailable() is not None, reason=str(EMULATOR.unavailable()))


def count(capsys, *arguments):
    assert main(["kernels", "count", "conv2d", "--json", *arguments]) == 0
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
