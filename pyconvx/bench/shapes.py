"""The layers of well-known networks as plain data: what ``pyconvx bench --shapes NETWORK`` runs through.

Only what runs in inference on the size of image that the paper uses; layers with the same sizes stand in one row.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidCall


class Conv(NamedTuple):
    """A convolution of C x H x W images with K filters of C/groups x R x S, ``times`` in the network.

    Padding is (vertical, horizontal).
    """

    times: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    @property
    def p(self) -> int:
        """Rows of the output."""
        return (self.h + 2 * self.padding[0] - self.r) // self.stride + 1

    @property
    def q(self) -> int:
        """Columns of the output."""
        return (self.w + 2 * self.padding[1] - self.s) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-adds of one such layer on one image."""
        return self.p * self.q * self.k * self.r * self.s * (self.c // self.groups)

    def __str__(self) -> str:
        text = f"C{self.c} H{self.h} W{self.w} K{self.k} R{self.r} S{self.s}"
        text += f" stride {self.stride}" if self.stride != 1 else ""
        text += f" pad {self.padding[0]},{self.padding[1]}" if self.padding != (0, 0) else ""
        return text + (f" groups {self.groups}" if self.groups != 1 else "")


class Pool(NamedTuple):
    """A max pooling of C x H x W images by windows of R x S, ``times`` in the network."""

    times: int
    c: int
    h: int
    w: int
    r: int
    s: int
    stride: int
    padding: int = 0

    def __str__(self) -> str:
        text = f"C{self.c} H{self.h} W{self.w} R{self.r} S{self.s} stride {self.stride}"
        return text + (f" pad {self.padding}" if self.padding else "")


class Residual(NamedTuple):
    """A residual add of C x H x W images, ``times`` in the network."""

    times: int
    c: int
    h: int
    w: int

    def __str__(self) -> str:
        return f"C{self.c} H{self.h} W{self.w}"


class Network(NamedTuple):
    """The layers of one network, in the order of their first use."""

    source: str
    conv: tuple[Conv, ...]
    pool: tuple[Pool, ...] = ()
    residual: tuple[Residual, ...] = ()


NETWORKS = {
    "lenet5": Network(
        "LeCun et al. 1998, with every map of C3 connected and max pooling; 1 x 32 x 32",
        conv=(
            Conv(1, 1, 32, 32, 6, 5, 5),
            Conv(1, 6, 14, 14, 16, 5, 5),
            Conv(1, 16, 5, 5, 120, 5, 5),
        ),
        pool=(
            Pool(1, 6, 28, 28, 2, 2, stride=2),
            Pool(1, 16, 10, 10, 2, 2, stride=2),
        ),
    ),
    "alexnet": Network(
        "Krizhevsky et al. 2012, in its two groups; 3 x 227 x 227",
        conv=(
            Conv(1, 3, 227, 227, 96, 11, 11, stride=4),
            Conv(1, 96, 27, 27, 256, 5, 5, padding=(2, 2), groups=2),
            Conv(1, 256, 13, 13, 384, 3, 3, padding=(1, 1)),
            Conv(1, 384, 13, 13, 384, 3, 3, padding=(1, 1), groups=2),
            Conv(1, 384, 13, 13, 256, 3, 3, padding=(1, 1), groups=2),
        ),
        pool=(
            Pool(1, 96, 55, 55, 3, 3, stride=2),
            Pool(1, 256, 27, 27, 3, 3, stride=2),
            Pool(1, 256, 13, 13, 3, 3, stride=2),
        ),
    ),
    "vgg16": Network(
        "Simonyan and Zisserman 2014, configuration D; 3 x 224 x 224",
        conv=(
            Conv(1, 3, 224, 224, 64, 3, 3, padding=(1, 1)),
            Conv(1, 64, 224, 224, 64, 3, 3, padding=(1, 1)),
            Conv(1, 64, 112, 112, 128, 3, 3, padding=(1, 1)),
            Conv(1, 128, 112, 112, 128, 3, 3, padding=(1, 1)),
            Conv(1, 128, 56, 56, 256, 3, 3, padding=(1, 1)),
            Conv(2, 256, 56, 56, 256, 3, 3, padding=(1, 1)),
            Conv(1, 256, 28, 28, 512, 3, 3, padding=(1, 1)),
            Conv(2, 512, 28, 28, 512, 3, 3, padding=(1, 1)),
            Conv(3, 512, 14, 14, 512, 3, 3, padding=(1, 1)),
        ),
        pool=(
            Pool(1, 64, 224, 224, 2, 2, stride=2),
            Pool(1, 128, 112, 112, 2, 2, stride=2),
            Pool(1, 256, 56, 56, 2, 2, stride=2),
            Pool(1, 512, 28, 28, 2, 2, stride=2),
            Pool(1, 512, 14, 14, 2, 2, stride=2),
        ),
    ),
    "inception_v3": Network(
        "Szegedy et al. 2015, without the auxiliary classifier; 3 x 299 x 299",
        conv=(
            Conv(1, 3, 299, 299, 32, 3, 3, stride=2),
            Conv(1, 32, 149, 149, 32, 3, 3),
            Conv(1, 32, 147, 147, 64, 3, 3, padding=(1, 1)),
            Conv(1, 64, 73, 73, 80, 1, 1),
            Conv(1, 80, 73, 73, 192, 3, 3),
            # 35 x 35: 5x5 and double 3x3
            Conv(2, 192, 35, 35, 64, 1, 1),
            Conv(1, 192, 35, 35, 48, 1, 1),
            Conv(3, 48, 35, 35, 64, 5, 5, padding=(2, 2)),
            Conv(4, 64, 35, 35, 96, 3, 3, padding=(1, 1)),
            Conv(3, 96, 35, 35, 96, 3, 3, padding=(1, 1)),
            Conv(1, 192, 35, 35, 32, 1, 1),
            Conv(3, 256, 35, 35, 64, 1, 1),
            Conv(1, 256, 35, 35, 48, 1, 1),
            Conv(4, 288, 35, 35, 64, 1, 1),
            Conv(1, 288, 35, 35, 48, 1, 1),
            Conv(1, 288, 35, 35, 384, 3, 3, stride=2),
            Conv(1, 96, 35, 35, 96, 3, 3, stride=2),
            # 17 x 17: factorized 7x7
            Conv(12, 768, 17, 17, 192, 1, 1),
            Conv(2, 768, 17, 17, 128, 1, 1),
            Conv(2, 128, 17, 17, 128, 1, 7, padding=(0, 3)),
            Conv(1, 128, 17, 17, 192, 7, 1, padding=(3, 0)),
            Conv(2, 128, 17, 17, 128, 7, 1, padding=(3, 0)),
            Conv(1, 128, 17, 17, 192, 1, 7, padding=(0, 3)),
            Conv(4, 768, 17, 17, 160, 1, 1),
            Conv(4, 160, 17, 17, 160, 1, 7, padding=(0, 3)),
            Conv(2, 160, 17, 17, 192, 7, 1, padding=(3, 0)),
            Conv(4, 160, 17, 17, 160, 7, 1, padding=(3, 0)),
            Conv(2, 160, 17, 17, 192, 1, 7, padding=(0, 3)),
            Conv(4, 192, 17, 17, 192, 1, 7, padding=(0, 3)),
            Conv(4, 192, 17, 17, 192, 7, 1, padding=(3, 0)),
            Conv(1, 192, 17, 17, 320, 3, 3, stride=2),
            Conv(1, 192, 17, 17, 192, 3, 3, stride=2),
            # 8 x 8: 1x3 beside 3x1
            Conv(1, 1280, 8, 8, 320, 1, 1),
            Conv(1, 1280, 8, 8, 384, 1, 1),
            Conv(4, 384, 8, 8, 384, 1, 3, padding=(0, 1)),
            Conv(4, 384, 8, 8, 384, 3, 1, padding=(1, 0)),
            Conv(1, 1280, 8, 8, 448, 1, 1),
            Conv(2, 448, 8, 8, 384, 3, 3, padding=(1, 1)),
            Conv(1, 1280, 8, 8, 192, 1, 1),
            Conv(1, 2048, 8, 8, 320, 1, 1),
            Conv(1, 2048, 8, 8, 384, 1, 1),
            Conv(1, 2048, 8, 8, 448, 1, 1),
            Conv(1, 2048, 8, 8, 192, 1, 1),
        ),
        pool=(
            Pool(1, 64, 147, 147, 3, 3, stride=2),
            Pool(1, 192, 71, 71, 3, 3, stride=2),
            Pool(1, 288, 35, 35, 3, 3, stride=2),
            Pool(1, 768, 17, 17, 3, 3, stride=2),
        ),
    ),
    "resnet50": Network(
        "He et al. 2015, with the stride in the 3x3 as in its later form; 3 x 224 x 224",
        conv=(
            Conv(1, 3, 224, 224, 64, 7, 7, stride=2, padding=(3, 3)),
            Conv(1, 64, 56, 56, 64, 1, 1),
            Conv(3, 64, 56, 56, 64, 3, 3, padding=(1, 1)),
            Conv(4, 64, 56, 56, 256, 1, 1),
            Conv(2, 256, 56, 56, 64, 1, 1),
            Conv(1, 256, 56, 56, 128, 1, 1),
            Conv(1, 128, 56, 56, 128, 3, 3, stride=2, padding=(1, 1)),
            Conv(4, 128, 28, 28, 512, 1, 1),
            Conv(1, 256, 56, 56, 512, 1, 1, stride=2),
            Conv(3, 512, 28, 28, 128, 1, 1),
            Conv(3, 128, 28, 28, 128, 3, 3, padding=(1, 1)),
            Conv(1, 512, 28, 28, 256, 1, 1),
            Conv(1, 256, 28, 28, 256, 3, 3, stride=2, padding=(1, 1)),
            Conv(6, 256, 14, 14, 1024, 1, 1),
            Conv(1, 512, 28, 28, 1024, 1, 1, stride=2),
            Conv(5, 1024, 14, 14, 256, 1, 1),
            Conv(5, 256, 14, 14, 256, 3, 3, padding=(1, 1)),
            Conv(1, 1024, 14, 14, 512, 1, 1),
            Conv(1, 512, 14, 14, 512, 3, 3, stride=2, padding=(1, 1)),
            Conv(3, 512, 7, 7, 2048, 1, 1),
            Conv(1, 1024, 14, 14, 2048, 1, 1, stride=2),
            Conv(2, 2048, 7, 7, 512, 1, 1),
            Conv(2, 512, 7, 7, 512, 3, 3, padding=(1, 1)),
        ),
        pool=(Pool(1, 64, 112, 112, 3, 3, stride=2, padding=1),),
        residual=(
            Residual(3, 256, 56, 56),
            Residual(4, 512, 28, 28),
            Residual(6, 1024, 14, 14),
            Residual(3, 2048, 7, 7),
        ),
    ),
}
"""Networks by the name that ``--shapes`` takes."""


def layers(name: str, kind: str) -> tuple[Conv, ...] | tuple[Pool, ...] | tuple[Residual, ...]:
    """Return the distinct layers of one kind, ``'conv'``, ``'pool'`` or ``'residual'``, of the network called ``name``.

    Raises:
        InvalidCall: there is no such network, or it has no layer of that kind.
    """
    if name not in NETWORKS:
        raise InvalidCall(f"bench: there are no shapes of {name!r}; there are those of {', '.join(NETWORKS)}")
    found = getattr(NETWORKS[name], kind)
    if not found:
        others = ", ".join(other for other, network in NETWORKS.items() if getattr(network, kind))
        raise InvalidCall(f"bench: {name} has no {kind} layers; these have: {others}")
    return found
