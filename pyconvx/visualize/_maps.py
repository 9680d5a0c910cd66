"""What a layer makes of images, as numbers and as pictures, and a network's first filters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidCall
from ._picture import around_grey, save, tiles, to_range

Layer = str | nn.Module


class _Reached(Exception):
    """Ends a forward pass at the layer that was looked for."""


def find(function: str, model: nn.Module, layer: Layer) -> tuple[str, nn.Module]:
    """Return a layer, given by its name or as the module itself, with its name.

    Raises:
        InvalidCall: the model does not hold it.
    """
    if not isinstance(model, nn.Module):
        raise InvalidCall(f"{function}: model is a {type(model).__name__}, expected a torch.nn.Module")
    modules = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name, module
        raise InvalidCall(
            f"{function}: this {type(layer).__name__} is no part of the model; pass one of its own modules"
        )
    if not isinstance(layer, str) or layer not in modules:
        names = ", ".join(name for name, module in modules.items() if name and not any(module.children()))
        raise InvalidCall(f"{function}: layer is {layer!r}, expected the name of one of the model's modules: {names}")
    return layer, modules[layer]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back at the end."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training


def run_until(model: nn.Module, target: nn.Module, images: Tensor) -> Tensor:
    """Run a model as far as ``target``; return what that gives, the first of several."""
    found: list[Tensor] = []

    def reached(module: nn.Module, args: Any, output: Any) -> None:
        found.append((output[0] if isinstance(output, tuple) else output).clone())
        raise _Reached

    hook = target.register_forward_hook(reached)
    try:
        model(images)
    except _Reached:
        return found[0]
    finally:
        hook.remove()
    raise InvalidCall(f"this {type(target).__name__} is never called by the model's forward; look at another layer")


def activations(model: nn.Module, layer: Layer, images: Tensor) -> Tensor:
    """Return what a layer gives, in evaluation mode: of its first call, and of several results the first.

    The forward pass ends there.

    Args:
        model: any module.
        layer: the name of one of its modules, as ``'features.2'``, or the module.
        images: what the model takes.

    Returns:
        (N, K, P, Q) of a convolution or a pooling, (N, features) of a linear layer.

    Raises:
        InvalidCall: the model does not hold the layer, or never calls it.
    """
    _, module = find("activations", model, layer)
    with evaluating(model):
        return run_until(model, module, images)


def strongest(model: nn.Module, layer: Layer, unit: int, images: Tensor, count: int = 9) -> Tensor:
    """Return which images a unit fires most on, strongest first: the rows of Zeiler and Fergus (2013), figure 2.

    Args:
        model, layer: as in :func:`activations`.
        unit: a channel, whose largest value in the image counts, or a linear layer's unit.
        images: (N, C, H, W).
        count: how many to return.

    Returns:
        At most ``count`` numbers of images.

    Raises:
        InvalidCall: the model does not hold the layer, or the layer not the unit.
    """
    values = activations(model, layer, images)
    if type(unit) is not int or not 0 <= unit < values.shape[1]:
        raise InvalidCall(f"strongest: unit is {unit!r}, expected 0 to {values.shape[1] - 1}")
    return values[:, unit].reshape(len(values), -1).amax(1).topk(min(count, len(values))).indices


def activation_maps(
    model: nn.Module, layer: Layer, image: Tensor, path: str | os.PathLike[str] | None = None, magnify: int = 1
) -> Tensor:
    """Show every map that a layer makes of an image, in grey, in the order of its channels.

    All share one scale, from 0 or the smallest value to the largest, so that a dark map is a quiet one.

    Args:
        model, layer: as in :func:`activations`.
        image: (C, H, W), or a batch of one.
        path: where to write the picture, if anywhere.
        magnify: see :func:`save`.

    Returns:
        The picture, (H', W').

    Raises:
        InvalidCall: the model does not hold the layer, or it gives no maps.
        ModuleNotFoundError: there is a path but no Pillow.
    """
    batch = one_image("activation_maps", image)
    maps = activations(model, layer, batch)
    if maps.dim() != 4:
        raise InvalidCall(
            f"activation_maps: the layer gives {tuple(maps.shape)}, expected maps, (N, K, P, Q); look at its numbers "
            f"with visualize.activations"
        )
    low, high = maps.min().clamp(max=0), maps.max()
    picture = tiles((maps[0].float() - low) / torch.where(high > low, high - low, 1))
    if path is not None:
        save(picture, path, magnify)
    return picture


def filters(
    model: nn.Module, layer: Layer | None = None, path: str | os.PathLike[str] | None = None, magnify: int = 4
) -> Tensor:
    """Show a convolution's filters (Krizhevsky et al. 2012, figure 3).

    Filters of three channels are shown in colours, each stretched to the whole range. Others are shown in grey, zero
    being mid-grey: a tile for each filter that sees one channel, a row of tiles for each that sees more.

    Args:
        model: any module.
        layer: the name of a convolution, or the module; the model's first if None.
        path: where to write the picture, if anywhere.
        magnify: see :func:`save`.

    Returns:
        The picture, (3, H', W') or (H', W').

    Raises:
        InvalidCall: there is no such convolution.
        ModuleNotFoundError: there is a path but no Pillow.
    """
    if layer is None:
        layer = next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), None)
        if layer is None:
            raise InvalidCall(f"filters: this {type(model).__name__} holds no torch.nn.Conv2d whose filters to show")
    name, module = find("filters", model, layer)
    if not isinstance(module, nn.Conv2d):
        raise InvalidCall(f"filters: {name!r} is a {type(module).__name__}, expected a torch.nn.Conv2d")
    weight = module.weight.detach()
    if weight.shape[1] == 3:
        picture = tiles(to_range(weight, (1, 2, 3)))
    elif weight.shape[1] == 1:
        picture = tiles(around_grey(weight, (1, 2, 3))[:, 0])
    else:
        picture = tiles(around_grey(weight, (1, 2, 3)).flatten(0, 1), columns=weight.shape[1])
    if path is not None:
        save(picture, path, magnify)
    return picture


def one_image(function: str, image: Tensor) -> Tensor:
    """Return an image as a batch of one.

    Raises:
        InvalidCall: it is not one image.
    """
    if isinstance(image, Tensor) and image.dim() == 3:
        return image[None]
    if not isinstance(image, Tensor) or image.dim() != 4 or image.shape[0] != 1:
        got = tuple(image.shape) if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise InvalidCall(f"{function}: image is {got}, expected one image, (C, H, W) or (1, C, H, W)")
    return image
