"""Tensors as pictures: brought into the range from 0 to 1, laid out side by side, and written to a file."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from ..errors import InvalidCall


def to_range(x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """Stretch numbers to the range from 0 to 1: (x - min) / (max - min).

    Args:
        x: any tensor.
        dims: the dimensions that share a minimum and a maximum; all if None. Equal numbers give zeros.
    """
    x = x.detach().float()
    dims = tuple(range(x.dim())) if dims is None else dims
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return (x - low) / torch.where(high > low, high - low, 1)


def around_grey(x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """Bring signed numbers into the range from 0 to 1 with zero at mid-grey: 1/2 + x / (2 max|x|).

    Args:
        x: any tensor.
        dims: the dimensions that share a largest magnitude; all if None. Zeros give grey.
    """
    x = x.detach().float()
    dims = tuple(range(x.dim())) if dims is None else dims
    most = x.abs().amax(dims, keepdim=True)
    return 0.5 + x / (2 * torch.where(most > 0, most, 1))


def tiles(pictures: Tensor, columns: int | None = None, gap: int = 1, background: float = 1.0) -> Tensor:
    """Lay pictures of one size out in rows, from left to right.

    Args:
        pictures: (T, H, W), or (T, 3, H, W) in colours.
        columns: pictures in a row; as many as make the whole nearly square if None.
        gap: pixels between two and around all.
        background: what they stand on, from 0, black, to 1.

    Returns:
        (H', W') or (3, H', W').

    Raises:
        InvalidCall: they are not pictures, or there are none.
    """
    if not isinstance(pictures, Tensor) or pictures.dim() not in (3, 4) or pictures.dim() == 4 != pictures.shape[1] + 1:
        got = tuple(pictures.shape) if isinstance(pictures, Tensor) else f"a {type(pictures).__name__}"
        raise InvalidCall(f"tiles: pictures are {got}, expected a tensor of (T, H, W) or (T, 3, H, W)")
    count, height, width = pictures.shape[0], pictures.shape[-2], pictures.shape[-1]
    if count == 0:
        raise InvalidCall("tiles: there are no pictures to lay out, expected at least one")
    columns = math.ceil(math.sqrt(count * height / width)) if columns is None else columns
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    size = (rows * (height + gap) + gap, columns * (width + gap) + gap)
    sheet = pictures.new_full((*pictures.shape[1:-2], *size), background)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[..., top : top + height, left : left + width] = picture
    return sheet


def save(picture: Tensor, path: str | os.PathLike[str], magnify: int = 1) -> None:
    """Write a picture to a file, by Pillow.

    Args:
        picture: numbers from 0 to 1, which what lies outside is cut to: (H, W), (1, H, W) or, in colours, (3, H, W).
        path: where to; the suffix says the format, ``.png`` for one that loses nothing.
        magnify: pixels, each way, that one of the picture becomes.

    Raises:
        InvalidCall: it is not a picture.
        ModuleNotFoundError: Pillow is not installed.
    """
    if not isinstance(picture, Tensor) or not (
        picture.dim() == 2 or (picture.dim() == 3 and picture.shape[0] in (1, 3))
    ):
        got = tuple(picture.shape) if isinstance(picture, Tensor) else f"a {type(picture).__name__}"
        raise InvalidCall(f"save: picture is {got}, expected a tensor of (H, W), (1, H, W) or (3, H, W)")
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "pictures are written by Pillow, which is not installed: pip install pyconvx[visualize], or pip install "
            "pillow"
        ) from None
    pixels = (picture.detach().float().cpu().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(magnify, -2).repeat_interleave(magnify, -1)
    if pixels.dim() == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().numpy()).save(path, optimize=True)
