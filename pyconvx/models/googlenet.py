"""GoogLeNet, the first Inception network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn import Conv2d, ConvBNReLU, MaxPool2d, Sequential
from ._initialize import initialize
from ._registry import register
from ._transform import to_symmetric_range
from .alexnet import response_norm

_Conv = Callable[..., nn.Module]


class GoogLeNetOutputs(NamedTuple):
    """What a GoogLeNet with auxiliary heads returns in training, with torchvision's names."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class Inception(nn.Module):
    """An Inception module with dimension reductions (figure 2 b): four branches, side by side in the output.

    Args:
        in_channels: of the input.
        one, reduce3, three, reduce5, five, pool: channels, the columns of table 1.
        conv: what a convolution is made by.
        size: of the third branch's filters, 5 in the paper.
    """

    def __init__(
        self, in_channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int, *,
        conv: _Conv, size: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.branch1 = conv(in_channels, one, 1)
        self.branch2 = nn.Sequential(conv(in_channels, reduce3, 1), conv(reduce3, three, 3, padding=1))
        self.branch3 = nn.Sequential(conv(in_channels, reduce5, 1), conv(reduce5, five, size, padding=size // 2))
        self.branch4 = nn.Sequential(MaxPool2d(3, stride=1, padding=1), conv(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs, concatenated."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier on a map in the middle, whose loss carries gradients there (section 5, last list)."""

    def __init__(self, in_channels: int, num_classes: int, conv: _Conv, pool: nn.Module, dropout: float) -> None:
        super().__init__()
        self.pool = pool
        self.conv = conv(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.conv(self.pool(x))
        x = self.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc2(self.dropout(x))


class GoogLeNet(nn.Module):
    """Szegedy et al. (2014, "Going deeper with convolutions", table 1).

    ``batch_norm`` chooses between the paper's network and the form with batch norm that torchvision has: no response
    normalization, 3 x 3 filters in place of 5 x 5, the last pooling 2 x 2, and torchvision's names in the state_dict.

    Input 3 x 224 x 224.

    | network      |                      | parameters | multiply-adds |
    |--------------|----------------------|------------|---------------|
    | inception_v1 | the paper's          |  6,998,552 |        1.58 G |
    | inception_v1 | with auxiliary heads | 13,378,280 | in training   |
    | googlenet    | torchvision's        |  6,624,904 |        1.50 G |
    | googlenet    | with auxiliary heads | 13,004,888 | in training   |

    Args:
        num_classes, in_channels: of output and input.
        batch_norm: the form, see above.
        aux_logits: whether there are auxiliary heads on 4a and 4d; in training the network then returns
            :class:`GoogLeNetOutputs`. The paper weighs their losses by 0.3.
        dropout: before the linear layer.
        dropout_aux: in the auxiliary heads.
        transform_input: whether pixels come normalized by ImageNet's mean and deviation, which torchvision's weights,
            trained on [-1, 1], need to know.

    Shape: (N, in_channels, H, W) -> (N, num_classes); H and W at least 15, in the paper's form 31, in training with its
    auxiliary heads 224.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        batch_norm: bool = True,
        aux_logits: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        transform_input: bool = False,
    ) -> None:
        super().__init__()
        self.transform_input = transform_input
        conv: _Conv = partial(ConvBNReLU, eps=1e-3) if batch_norm else _conv_relu
        self.conv1 = conv(in_channels, 64, 7, stride=2, padding=3)
        self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.Identity() if batch_norm else response_norm()
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.norm2 = nn.Identity() if batch_norm else response_norm()
        self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)

        module = partial(Inception, conv=conv, size=3 if batch_norm else 5)
        # fmt: off
        #                      input  1x1 (reduce 3x3) (reduce 5x5) pool
        self.inception3a = module(192,  64,  96, 128,   16,  32,   32)
        self.inception3b = module(256, 128, 128, 192,   32,  96,   64)
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = module(480, 192,  96, 208,   16,  48,   64)
        self.inception4b = module(512, 160, 112, 224,   24,  64,   64)
        self.inception4c = module(512, 128, 128, 256,   24,  64,   64)
        self.inception4d = module(512, 112, 144, 288,   32,  64,   64)
        self.inception4e = module(528, 256, 160, 320,   32, 128,  128)
        self.maxpool4 = MaxPool2d(2 if batch_norm else 3, stride=2, ceil_mode=True)
        self.inception5a = module(832, 256, 160, 320,   32, 128,  128)
        self.inception5b = module(832, 384, 192, 384,   48, 128,  128)
        # fmt: on

        pool_aux = nn.AdaptiveAvgPool2d(4) if batch_norm else nn.AvgPool2d(5, stride=3)
        head = partial(AuxiliaryHead, num_classes=num_classes, conv=conv, dropout=dropout_aux)
        self.aux1 = head(512, pool=pool_aux) if aux_logits else None
        self.aux2 = head(528, pool=pool_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Any:
        """Return logits; in training with auxiliary heads :class:`GoogLeNetOutputs`."""
        if self.transform_input:
            x = to_symmetric_range(x)
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.inception3b(self.inception3a(x))
        x = mixed4a = self.inception4a(self.maxpool3(x))
        x = mixed4d = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.inception4e(x)
        x = self.inception5b(self.inception5a(self.maxpool4(x)))
        logits = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutputs(logits, self.aux2(mixed4d), self.aux1(mixed4a))
        return logits


def _conv_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0) -> Sequential:
    return Sequential(Conv2d(in_channels, out_channels, kernel_size, stride, padding), nn.ReLU(inplace=True))


@register
def inception_v1(**options: Any) -> GoogLeNet:
    """GoogLeNet as in the paper."""
    return GoogLeNet(**{"batch_norm": False, "dropout": 0.4, **options})


@register
def googlenet(**options: Any) -> GoogLeNet:
    """GoogLeNet as in torchvision."""
    return GoogLeNet(**options)
