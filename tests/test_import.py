"""Importing pyconvx: quick, alone, and possible where there is no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, time
import torch
torchs, start = set(sys.modules), time.perf_counter()
import pyconvx
seconds = time.perf_counter() - start
import torch.nn.functional as F
image, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
right = torch.allclose(pyconvx.conv2d(image, weight), F.conv2d(image, weight), atol=1e-5)
packages = sorted({name.partition(".")[0] for name in set(sys.modules) - torchs})
print(json.dumps({"seconds": seconds, "packages": packages, "right": right}))
"""


@pytest.fixture(scope="module")
def imports():
    """What three fresh interpreters say that see no GPU."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "error::DeprecationWarning:pyconvx", "-c", PROGRAM]
    return [
        json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]


def test_import_adds_less_than_a_second_to_torchs(imports):
    assert min(one["seconds"] for one in imports) < 1


@pytest.mark.parametrize("package", ["triton", "cupy", "sklearn", "rich", "torchvision", "timm", "pytest"])
def test_import_brings_no_package_that_is_optional_or_slow(imports, package):
    assert package not in imports[0]["packages"]


def test_import_works_without_a_gpu(imports):
    assert all(one["right"] for one in imports)
