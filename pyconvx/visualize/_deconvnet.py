"""The deconvnet of Zeiler and Fergus: a unit's activation, projected back to the pixels that made it.

Forward, hooks write down every call of a layer. Backward, from the unit's layer on, each layer that was passed hands
its map to the one whose output it took: which one that is, is told by the numbers themselves, so that what a
model's own forward does in between (a flattening, a ReLU by function) is either recognized or refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import functional, ops
from .. import nn as ours
from ..errors import InvalidCall
from ._maps import Layer, evaluating, find, one_image, run_until
from ._picture import around_grey, save

Span = tuple[int, int]
"""First and last row, or column, of a part of a map."""


class Projection(NamedTuple):
    """What of an image made a unit fire.

    Attributes:
        image: the projection, of the image's shape; zero where nothing did.
        unit: the unit: (channel, row, column), or (number,) in a linear layer.
        value: its activation.
        region: the part of the image that it sees: first row, last row, first column, last column.
    """

    image: Tensor
    unit: tuple[int, ...]
    value: float
    region: tuple[int, int, int, int]


def deconvnet(
    model: nn.Module,
    layer: Layer,
    unit: int | tuple[int, int, int],
    image: Tensor,
    path: str | os.PathLike[str] | None = None,
    magnify: int = 1,
) -> Projection:
    """Project a unit's activation back to pixels (Zeiler and Fergus 2013, section 2.1 and figure 1).

    The image runs through the model as far as the layer. There, everything but the unit is set to zero, and the map
    goes back the way it came, layer by layer:

    - a max pooling is *unpooled*: every value returns to where its maximum stood, by the switches of the forward pass,
      one byte each; what windows that overlap return to one place is added up;
    - a ReLU *rectifies*: max(y, 0), of the map that goes back;
    - a convolution *filters* with the transpose of its own filters, without bias; a transposed one with theirs;
    - other linear layers (average pooling, linear layers, batch norms in evaluation, upsampling) pass it through their
      transposes;
    - response normalization, dropout and flattening let it pass: the paper undoes none of them.

    But for the ReLUs, and for what is let pass, this is the gradient (Simonyan et al. 2013, section 4).

    Args:
        model: any module in which the way from the image to the layer is one chain of such layers: AlexNet, ZFNet, VGG,
            LeNet-5, Network in Network, stems and first branches of others. It is run in evaluation mode.
        layer: the name of a module, as ``'features.7'``, or the module; of several calls the first counts.
        unit: a channel, of which the strongest place is taken, or (channel, row, column); of a linear layer the number.
        image: (C, H, W), or a batch of one.
        path: where to write the projection as a picture, with zero as mid-grey; nowhere if None.
        magnify: see :func:`pyconvx.visualize.save`.

    Returns:
        A :class:`Projection`. A unit that does not fire gives zeros.

    Raises:
        InvalidCall: there is no such layer or unit, or on the way stands a layer, or something between two layers, that
            cannot be undone.
        ModuleNotFoundError: there is a path but no Pillow.
    """
    name, target = find("deconvnet", model, layer)
    batch = one_image("deconvnet", image)
    with evaluating(model):
        steps, output = _forward(model, target, batch)
        place = _place(unit, output)
        value = output[0][place].item()
        y = torch.zeros_like(output)
        y[0][place] = max(value, 0.0)
        rows, columns = ((at, at) for at in place[1:]) if len(place) == 3 else ((0, 0), (0, 0))
        end = f"the end of {name!r}" if name else "the model's end"
        for step, between in _way_back(steps, output, batch, end):
            were_maps, y = y.dim() == 4, between(y)
            if y.dim() == 4 and not were_maps:  # a unit of what was flattened sees all of it
                rows, columns = (0, y.shape[2] - 1), (0, y.shape[3] - 1)
            if step is not None:
                rule = _rule(step)
                y = rule.project(step, y)
                rows, columns = rule.seen(step, 0, rows), rule.seen(step, 1, columns)
    y = y.reshape(image.shape)
    projection = Projection(y, place, value, (*rows, *columns))
    if path is not None:
        picture = y.reshape(batch.shape)[0]
        save(around_grey(picture if picture.shape[0] == 3 else picture.sum(0)), path, magnify)
    return projection


def _place(unit: Any, output: Tensor) -> tuple[int, ...]:
    """Return the place of a unit in a layer's output, without the batch."""
    sizes = tuple(output.shape[1:])
    numbers = unit if isinstance(unit, tuple) else (unit,)
    if not all(type(number) is int for number in numbers) or len(numbers) not in {1, len(sizes)}:
        form = "a channel, or (channel, row, column)" if len(sizes) == 3 else "the number of a unit"
        raise InvalidCall(f"deconvnet: unit is {unit!r}, expected {form}")
    for number, size in zip(numbers, sizes, strict=False):  # a channel alone, or all
        if not 0 <= number < size:
            raise InvalidCall(f"deconvnet: unit is {unit!r}, which is outside the layer's {'x'.join(map(str, sizes))}")
    if len(numbers) == len(sizes):
        return numbers
    row, column = divmod(int(output[0, numbers[0]].argmax()), sizes[-1])
    return numbers[0], row, column


class _Step(NamedTuple):
    """A call of a layer, with the options that it was given beside the image."""

    name: str
    module: nn.Module
    input: Tensor
    output: Tensor
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name!r} ({type(self.module).__name__})"


def _forward(model: nn.Module, target: nn.Module, batch: Tensor) -> tuple[list[_Step], Tensor]:
    """Run the model as far as ``target``; return the calls of layers, in order, and what ``target`` gave."""
    steps: list[_Step] = []
    taken: dict[nn.Module, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if any(module.children()):
            continue

        def take(module: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor):
                taken[module] = args[0].clone()  # the layer, or the next, may write over it

        def give(module: nn.Module, args: Any, options: Any, output: Any, name: str = name) -> None:
            output = output[0] if isinstance(output, tuple) and output else output
            if module in taken and isinstance(output, Tensor):
                steps.append(_Step(name, module, taken.pop(module), output.clone(), options))

        hooks += [module.register_forward_pre_hook(take), module.register_forward_hook(give, with_kwargs=True)]
    try:
        return steps, run_until(model, target, batch)
    finally:
        for hook in hooks:
            hook.remove()


_Between = Callable[[Tensor], Tensor]


def _way_back(steps: list[_Step], output: Tensor, image: Tensor, end: str) -> list[tuple[_Step | None, _Between]]:
    """Return the layers from ``output`` back to the image, each with what takes a map back to its output."""
    way: list[tuple[_Step | None, _Between]] = []
    value, after, last = output, end, len(steps)
    while True:
        for number in range(last - 1, -1, -1):
            between = _link(steps[number].output, value)
            if between is not None:
                break
        else:
            between = _link(image, value)
            if between is not None:
                return [*way, (None, between)]
            raise InvalidCall(
                f"deconvnet: what comes into {after} is not what a layer before it gave: the model adds or "
                f"concatenates branches there, or calls a function, which cannot be undone; choose an earlier layer"
            )
        step = steps[number]
        way.append((step, between))
        value, after, last = step.input, str(step), number


def _link(before: Tensor, after: Tensor) -> _Between | None:
    """Return what takes a map of ``after`` back to ``before``, if ``after`` is it, reshaped or rectified; else None."""
    if before.numel() != after.numel() or before.shape[:1] != after.shape[:1]:
        return None
    straight = before.reshape(after.shape)
    if torch.equal(straight, after):
        return lambda y: y.reshape(before.shape)
    if torch.equal(F.relu(straight), after):
        return lambda y: F.relu(y).reshape(before.shape)
    return None


class _Rule(NamedTuple):
    """How a layer is undone.

    Attributes:
        project: takes a map back through the layer.
        seen: takes a span of its output, along axis 0 (rows) or 1 (columns), to the span of the input that it sees.
    """

    project: Callable[[_Step, Tensor], Tensor]
    seen: Callable[[_Step, int, Span], Span]


def _rule(step: _Step) -> _Rule:
    # By forward and not by class: a subclass with a forward of its own is another layer.
    rule = _RULES.get(type(step.module).forward)
    if rule is None:
        raise InvalidCall(
            f"deconvnet: {step} is a layer that it cannot undo; it knows convolutions, poolings, ReLUs, linear layers, "
            f"batch and response norms, dropout, flattening and upsampling"
        )
    return rule


def _unfilter(step: _Step, y: Tensor) -> Tensor:
    conv: Any = step.module
    if conv.padding_mode != "zeros" or step.options.get("residual") is not None:
        why = "adds a residual" if conv.padding_mode == "zeros" else f"pads by {conv.padding_mode!r}"
        raise InvalidCall(f"deconvnet: {step} {why}, which it cannot undo; choose an earlier layer")
    y = F.relu(y) if step.options.get("activation") == "relu" else y
    sides = _conv_sides(step)
    rest = tuple(
        step.input.shape[2 + axis] - _span_of(conv, axis, y.shape[2 + axis], sides[2 * axis] + sides[2 * axis + 1])
        for axis in (0, 1)
    )
    return functional.conv_transpose2d(y, conv.weight, None, conv.stride, sides, rest, conv.groups, conv.dilation)


def _span_of(conv: Any, axis: int, outputs: int, padding: int) -> int:
    """Return how much of the input so many outputs of a convolution need."""
    return (outputs - 1) * conv.stride[axis] + conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1 - padding


def _conv_sides(step: _Step) -> tuple[int, int, int, int]:
    conv: Any = step.module
    return functional.window_padding(
        "deconvnet", conv.padding, step.input.shape[2:], conv.kernel_size, conv.stride, conv.dilation
    )


def _seen_by_conv(step: _Step, axis: int, span: Span) -> Span:
    conv: Any = step.module
    return _window(step, axis, span, conv.kernel_size, conv.stride, _conv_sides(step), conv.dilation)


def _window(step: _Step, axis: int, span: Span, size: Any, stride: Any, sides: Any, dilation: Any) -> Span:
    """Return what windows see that slide over the input."""
    first = span[0] * stride[axis] - sides[2 * axis]
    last = span[1] * stride[axis] - sides[2 * axis] + dilation[axis] * (size[axis] - 1)
    return max(first, 0), min(last, step.input.shape[2 + axis] - 1)


def _filter(step: _Step, y: Tensor) -> Tensor:
    """Undo a transposed convolution."""
    conv: Any = step.module
    return functional.conv2d(y, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)


def _seen_by_transposed(step: _Step, axis: int, span: Span) -> Span:
    """Input p reaches the outputs p * stride - padding + dilation * r, with r below the filter's size."""
    conv: Any = step.module
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    first = -(-(span[0] + conv.padding[axis] - reach) // conv.stride[axis])
    last = (span[1] + conv.padding[axis]) // conv.stride[axis]
    return max(first, 0), min(last, step.input.shape[2 + axis] - 1)


def _unpool(step: _Step, y: Tensor) -> Tensor:
    pool: Any = step.module
    window = (*_pooling(step), pool.ceil_mode)
    index_dtype = ops.offset_dtype(window[0])
    _, switches = functional.max_pool2d(step.input, *window, return_indices=True, index_dtype=index_dtype)
    # max_unpool2d would let a zero of the last window that names a place erase what an earlier one puts there.
    return ops.max_pool2d_backward(y, switches, step.input.shape[2:], *window)


def _pooling(step: _Step) -> tuple[Any, Any, Any, Any]:
    """Return kernel size, stride, padding and dilation of a pooling, each for all its axes or sides."""
    pool: Any = step.module
    size = functional.pair("deconvnet", "kernel_size", pool.kernel_size)
    stride = functional.pair("deconvnet", "stride", pool.stride)
    dilation = functional.pair("deconvnet", "dilation", getattr(pool, "dilation", 1))
    sides = functional.window_padding("deconvnet", pool.padding, step.input.shape[2:], size, stride, dilation)
    return size, stride, sides, dilation


def _seen_by_pooling(step: _Step, axis: int, span: Span) -> Span:
    return _window(step, axis, span, *_pooling(step))


def _rectify(step: _Step, y: Tensor) -> Tensor:
    return F.relu(y)


def _transpose(step: _Step, y: Tensor) -> Tensor:
    """Take a map back through the transpose of a linear, or affine, layer, which is its derivative."""
    with torch.enable_grad():
        x = step.input.detach().requires_grad_()
        (back,) = torch.autograd.grad(step.module(x), x, y)
    return back


def _pass(step: _Step, y: Tensor) -> Tensor:
    return y.reshape(step.input.shape)


def _same_place(step: _Step, axis: int, span: Span) -> Span:
    return span


def _seen_by_adaptive(step: _Step, axis: int, span: Span) -> Span:
    size, outputs = step.input.shape[2 + axis], step.output.shape[2 + axis]
    return span[0] * size // outputs, -(-(span[1] + 1) * size // outputs) - 1


def _seen_by_cell(step: _Step, axis: int, span: Span) -> Span:
    size = step.output.shape[2 + axis] // step.input.shape[2 + axis]
    return span[0] // size, span[1] // size


def _everything(step: _Step, axis: int, span: Span) -> Span:
    return (0, step.input.shape[2 + axis] - 1) if step.input.dim() == 4 else (0, 0)


_CONV = _Rule(_unfilter, _seen_by_conv)
_CONV_TRANSPOSE = _Rule(_filter, _seen_by_transposed)
_MAX_POOL = _Rule(_unpool, _seen_by_pooling)
_PASSED = _Rule(_pass, _same_place)
_LINEAR = _Rule(_transpose, _everything)

_RULES: dict[Callable[..., Any], _Rule] = {
    nn.Conv2d.forward: _CONV,
    ours.Conv2d.forward: _CONV,
    nn.ConvTranspose2d.forward: _CONV_TRANSPOSE,
    ours.ConvTranspose2d.forward: _CONV_TRANSPOSE,
    nn.MaxPool2d.forward: _MAX_POOL,
    ours.MaxPool2d.forward: _MAX_POOL,
    nn.ReLU.forward: _Rule(_rectify, _same_place),
    nn.AvgPool2d.forward: _Rule(_transpose, _seen_by_pooling),
    nn.AdaptiveAvgPool2d.forward: _Rule(_transpose, _seen_by_adaptive),
    nn.BatchNorm2d.forward: _Rule(_transpose, _same_place),
    nn.BatchNorm1d.forward: _Rule(_transpose, _same_place),
    nn.Linear.forward: _LINEAR,
    nn.Flatten.forward: _Rule(_pass, _everything),
    nn.Unflatten.forward: _Rule(_pass, _everything),
    nn.Upsample.forward: _LINEAR,
    nn.UpsamplingNearest2d.forward: _LINEAR,
    nn.UpsamplingBilinear2d.forward: _LINEAR,
    nn.ZeroPad2d.forward: _LINEAR,
    ours.NearestUnpool2d.forward: _Rule(_transpose, _seen_by_cell),
    nn.LocalResponseNorm.forward: _PASSED,
    nn.Dropout.forward: _PASSED,
    nn.Dropout2d.forward: _PASSED,
    nn.Identity.forward: _PASSED,
}
"""The layers that can be undone, by their forward."""
