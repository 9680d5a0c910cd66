"""Networks as feature extractors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidCall


class Features(nn.Module):
    """What a network gives before its last linear layer, as vectors: (N, features).

    Args:
        network: one of :mod:`pyconvx.models`, of torchvision or of timm, or any module, which this one then owns. Its
            last linear layer is replaced by the identity. Maps, of a network that ends in them, are averaged.
        features: their number; needed only if there is no linear layer, and then nothing is replaced.

    Raises:
        InvalidCall: there is no linear layer, and ``features`` is not given.
    """

    def __init__(self, network: nn.Module, features: int | None = None) -> None:
        super().__init__()
        self.network = network
        if features is None:
            linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
            if not linear or not linear[-1][0]:
                raise InvalidCall(
                    f"this {type(network).__name__} holds no linear layer to take features from; say how many channels "
                    f"it gives, with features=..."
                )
            name, head = linear[-1]
            features = head.in_features
            network.set_submodule(name, nn.Identity())
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        x = self.network(x)
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1) if x.dim() == 4 else x
