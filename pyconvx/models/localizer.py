"""Classification and localization: what it is, and where."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ._head import Features
from ._registry import register
from .resnet import resnet18


class Localization(NamedTuple):
    """The logits of the classes, and the box (x, y, w, h) around the object."""

    logits: Tensor
    boxes: Tensor


class Localizer(nn.Module):
    """Class scores and one box, by two linear layers on any classifier's features (Sermanet et al. 2013, section 4).

    Train with cross entropy on the logits and a squared or absolute difference on the boxes.

    Input 3 x 224 x 224; 11,691,564 parameters, 1.81 G multiply-adds with ResNet-18.

    Args:
        num_classes, in_channels: of output and input.
        backbone: the classifier, which makes way for the two layers with its last one; ResNet-18 if None.
        features: what the backbone gives, if it has no linear layer.

    Shape: what the backbone takes -> :class:`Localization` of (N, num_classes) and (N, 4).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        backbone: nn.Module | None = None,
        features: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = Features(backbone or resnet18(in_channels=in_channels), features)
        self.classes = nn.Linear(self.backbone.features, num_classes)
        self.box = nn.Linear(self.backbone.features, 4)

    def forward(self, x: Tensor) -> Localization:
        """Return logits and boxes."""
        x = self.backbone(x)
        return Localization(self.classes(x), self.box(x))


@register
def localizer(**options: Any) -> Localizer:
    """Class and box, on any backbone."""
    return Localizer(**options)
