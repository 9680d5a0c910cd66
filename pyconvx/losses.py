"""The loss of networks with auxiliary heads. Label smoothing is torch's: ``CrossEntropyLoss(label_smoothing=0.1)``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .errors import InvalidCall


class AuxiliaryLoss(nn.Module):
    """loss(logits) + weight * sum of loss(auxiliary logits) (Szegedy et al. 2014, section 5).

    A classifier on a map in the middle of a network brings gradients there that the last one's have lost on the way.
    The paper adds the losses of GoogLeNet's two with the weight 0.3 and drops both in evaluation, which is when the
    networks here return a tensor, whose loss alone this then is.

    Args:
        criterion: the loss of one output; ``torch.nn.CrossEntropyLoss()`` if None. Inception v3 was trained with
            ``label_smoothing=0.1`` (Szegedy et al. 2015, section 7).
        weight: of each auxiliary loss.

    Shape: a tensor or a tuple of tensors, the logits first, as ``GoogLeNetOutputs``; then what the criterion takes.

    Raises:
        InvalidCall: the outputs are neither.
    """

    def __init__(self, criterion: Callable[..., Tensor] | None = None, weight: float = 0.3) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.weight = weight

    def forward(self, outputs: Tensor | tuple[Tensor, ...], *target: Tensor) -> Tensor:
        """Return the loss."""
        if isinstance(outputs, Tensor):
            return self.criterion(outputs, *target)
        if not isinstance(outputs, tuple) or not all(isinstance(output, Tensor) for output in outputs) or not outputs:
            raise InvalidCall(
                f"AuxiliaryLoss: outputs are a {type(outputs).__name__}, expected a tensor of logits, or a tuple of it "
                f"and the auxiliary ones"
            )
        logits, *auxiliary = outputs
        loss = self.criterion(logits, *target)
        for output in auxiliary:
            loss = loss + self.weight * self.criterion(output, *target)
        return loss

    def extra_repr(self) -> str:
        return f"weight={self.weight}"
