"""How the networks' weights begin."""

from __future__ import annotations

from torch import nn


def initialize(network: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. (2015, "Delving deep into rectifiers") and set biases to zero.

    The deviation sqrt(2 / (K * R * S / groups)) keeps the size of gradients through any number of convolutions with
    ReLUs. Linear layers begin with N(0, 0.01), and batch norms as torch's do, with the identity.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
