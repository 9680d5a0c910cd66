"""The distinct convolutions of known networks: channels, windows, strides and paddings as they are, on small maps."""

from __future__ import annotations

import pytest
import torch

from kernels.convolution import Case

SAME, NONE = (1, 1, 1, 1), (0, 0, 0, 0)
WIDE, TALL = (0, 0, 3, 3), (3, 3, 0, 0)

# C, K, (R, S), stride, padding
RESNET_50 = [
    (3, 64, (7, 7), 2, (3, 3, 3, 3)),
    *[(c, k, (1, 1), 1, NONE) for c, k in [(64, 64), (64, 256), (256, 64), (256, 128), (128, 512), (512, 128)]],
    *[
        (c, k, (1, 1), 1, NONE)
        for c, k in [(512, 256), (256, 1024), (1024, 256), (1024, 512), (512, 2048), (2048, 512)]
    ],
    *[(c, k, (1, 1), 2, NONE) for c, k in [(256, 512), (512, 1024), (1024, 2048)]],
    *[(c, c, (3, 3), 1, SAME) for c in (64, 128, 256, 512)],
    *[(c, c, (3, 3), 2, SAME) for c in (128, 256, 512)],
]
VGG_16 = [
    *[(c, k, (3, 3), 1, SAME) for c, k in [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]],
    *[(c, k, (3, 3), 1, SAME) for c, k in [(256, 512), (512, 512)]],
]
INCEPTION_V3 = [
    (3, 32, (3, 3), 2, NONE),
    (32, 32, (3, 3), 1, NONE),
    (32, 64, (3, 3), 1, SAME),
    (64, 80, (1, 1), 1, NONE),
    (80, 192, (3, 3), 1, NONE),
    *[
        (c, k, (1, 1), 1, NONE)
        for c, k in [(192, 32), (192, 48), (192, 64), (256, 48), (256, 64), (288, 48), (288, 64)]
    ],
    (48, 64, (5, 5), 1, (2, 2, 2, 2)),
    (64, 96, (3, 3), 1, SAME),
    (96, 96, (3, 3), 1, SAME),
    (96, 96, (3, 3), 2, NONE),
    (288, 384, (3, 3), 2, NONE),
    *[(768, k, (1, 1), 1, NONE) for k in (128, 160, 192)],
    *[(c, k, (1, 7), 1, WIDE) for c, k in [(128, 128), (128, 192), (160, 160), (160, 192), (192, 192)]],
    *[(c, k, (7, 1), 1, TALL) for c, k in [(128, 128), (128, 192), (160, 160), (160, 192), (192, 192)]],
    (192, 320, (3, 3), 2, NONE),
    (192, 192, (3, 3), 2, NONE),
    *[(c, k, (1, 1), 1, NONE) for c in (1280, 2048) for k in (192, 320, 384, 448)],
    (448, 384, (3, 3), 1, SAME),
    (384, 384, (1, 3), 1, (0, 0, 1, 1)),
    (384, 384, (3, 1), 1, (1, 1, 0, 0)),
]
MOBILENET_V2 = [  # its depthwise ones
    *[(c, c, (3, 3), stride, SAME) for c in (32, 96, 144, 192, 384, 576, 960) for stride in (1, 2)],
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("network", [RESNET_50, VGG_16, INCEPTION_V3], ids=["ResNet-50", "VGG-16", "Inception-v3"])
def test_dense(network, dtype):
    for c, k, (r, s), stride, padding in network:
        size = 17 if c == 3 else 8
        case = Case(
            **dict(n=1, c=c, h=size, w=size, k=k, r=r, s=s, stride=(stride, stride), padding=padding),
            **dict(bias=True, relu=True, dtype=dtype),
        )
        case.check(case.plan())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_depthwise(dtype):
    for c, k, (r, s), stride, padding in MOBILENET_V2:
        case = Case(
            **dict(n=2, c=c, h=8, w=8, k=k, r=r, s=s, stride=(stride, stride), padding=padding, groups=c),
            **dict(bias=True, relu=True, dtype=dtype),
        )
        case.check(case.plan())
