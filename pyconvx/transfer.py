"""Transfer learning: a trained network's layers kept as they are, and a new head on top of them.

head = pyconvx.transfer.replace_head(model, num_classes=5)
with pyconvx.transfer.freeze(model, exclude=head):
    train(model)                                    # only the head learns
train(model)                                        # now, gently, everything does
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import InvalidCall

Part = str | nn.Module


def replace_head(model: nn.Module, num_classes: int, layer: Part | None = None) -> nn.Module:
    """Put a new, untrained layer of ``num_classes`` in the place of the last, and of those of auxiliary heads.

    The last layer is the last linear one in the order of construction or, in a network without any (Network in Network,
    U-Net, SegNet), the last convolution. Heads whose names begin with ``aux``, in whatever case, get a new one as well:
    their loss takes the same labels. Everything else keeps its weights (Yosinski et al. 2014, section 2).

    Args:
        model: a network, changed in place. One that makes scores in several places (FCN) has more to replace.
        num_classes: of the new layer.
        layer: the layer to replace, a name or the module, if it is not the last.

    Returns:
        The new layer.

    Raises:
        InvalidCall: there is no linear layer and no convolution to replace, or ``layer`` is none of the model's.
    """
    if type(num_classes) is not int or num_classes < 1:
        raise InvalidCall(f"replace_head: num_classes is {num_classes!r}, expected a positive int")
    heads = [module for name, module in model.named_children() if name.lower().startswith("aux")]
    inside = {module for head in heads for module in head.modules()}
    layers = [(name, module) for name, module in model.named_modules() if module not in inside]
    last = _last(layers if layer is None else [pair for pair in layers if layer in pair])
    if last is None and layer is not None:
        raise InvalidCall(f"replace_head: layer is {layer!r}, expected a linear layer or convolution of the model's")
    if last is None or not last[0]:
        raise InvalidCall(
            f"replace_head: this {type(model).__name__} holds no linear layer and no convolution to replace; wrap it "
            f"in torch.nn.Sequential with a torch.nn.Linear of its features"
        )
    new = _like(last[1], num_classes)
    model.set_submodule(last[0], new)
    for head in heads:
        found = _last(list(head.named_modules()))
        if found is not None:
            head.set_submodule(found[0], _like(found[1], num_classes))
    return new


def _last(layers: list[tuple[str, nn.Module]]) -> tuple[str, nn.Module] | None:
    """Return the last linear layer or, where there is none, the last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        found = [(name, module) for name, module in layers if isinstance(module, kind)]
        if found:
            return found[-1]
    return None


def _like(layer: Any, num_classes: int) -> nn.Module:
    """Return a new layer like this one, but for the number of its outputs."""
    weight, bias = layer.weight, layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, num_classes, bias, device=weight.device, dtype=weight.dtype)
    return type(layer)(
        layer.in_channels, num_classes, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=bias,
        padding_mode=layer.padding_mode, device=weight.device, dtype=weight.dtype,
    )  # fmt: skip


class Freeze:
    """What :func:`freeze` did, and the way back; usable with ``with``, which undoes it at its end."""

    def __init__(self, parameters: list[nn.Parameter], norms: list[_BatchNorm]) -> None:
        self._parameters = parameters
        self._norms = [(norm, norm.training, norm.register_forward_pre_hook(_keep_statistics)) for norm in norms]
        for parameter in parameters:
            parameter.requires_grad_(False)
        for norm in norms:
            norm.eval()

    @property
    def count(self) -> int:
        """How many parameters this has frozen, as numbers and not as tensors."""
        return sum(parameter.numel() for parameter in self._parameters)

    def undo(self) -> None:
        """Let what this has frozen learn again."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        for norm, training, hook in self._norms:
            hook.remove()
            norm.train(training)
        self._parameters, self._norms = [], []

    def __enter__(self) -> Freeze:
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<Freeze: {self.count:,} parameters, the statistics of {len(self._norms)} batch norms>"


def freeze(model: nn.Module, exclude: Part | Iterable[Part] = ()) -> Freeze:
    """Keep a network's weights as they are while the rest of it learns.

    Frozen parameters take no gradient. The batch norms among frozen layers keep their statistics too, and use them:
    they stay in evaluation mode, also behind ``model.train()``. An optimizer is given those that learn: ``[p for p in
    model.parameters() if p.requires_grad]``.

    Args:
        model: the network.
        exclude: what goes on learning: modules, as :func:`replace_head` returns one, or names, as ``'fc'`` or
            ``'layer4.*'``, with all that they hold.

    Returns:
        A handle, with ``count``, ``undo()`` and the protocol of ``with``.

    Raises:
        InvalidCall: a name or a module to exclude is not in the model.
    """
    parts = [exclude] if isinstance(exclude, (str, nn.Module)) else list(exclude)
    learning: set[nn.Module] = set()
    for part in parts:
        found = [
            module
            for name, module in model.named_modules()
            if module is part or (isinstance(part, str) and name and fnmatchcase(name, part))
        ]
        if not found:
            what = repr(part) if isinstance(part, str) else f"this {type(part).__name__}"
            raise InvalidCall(f"freeze: {what} in exclude is no module of the model; see model.named_modules()")
        learning.update(inner for module in found for inner in module.modules())
    kept = {id(parameter) for module in learning for parameter in module.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module not in learning]
    return Freeze(parameters, norms)


def _keep_statistics(norm: nn.Module, args: object) -> None:
    """A hook, called before a frozen batch norm: ``model.train()`` has put it into training mode, perhaps."""
    norm.training = False
