"""How classifiers are judged: top-k error, predictions averaged over crops, and ensembles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .augment import check_images, crop, patch_size
from .errors import InvalidCall


def topk_error(scores: Tensor, labels: Tensor, topk: Sequence[int] = (1, 5)) -> tuple[float, ...]:
    """Return the shares of images whose label is not among the k best scores: top-1 and top-5 error.

    Of equal scores those of lower classes are taken to be better. A label whose score is NaN is among none, so that a
    network that has broken down is not right by chance.

    Args:
        scores: logits, probabilities or votes, (N, classes).
        labels: the right classes, (N,).
        topk: the values of k, as in ImageNet's two errors (Krizhevsky et al. 2012, section 2).

    Returns:
        The error, from 0 to 1, for every k.

    Raises:
        InvalidCall: shapes do not fit, there are no images, a label or a k is out of range.
    """
    if scores.dim() != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise InvalidCall(
            f"topk_error: scores are {tuple(scores.shape)} and labels {tuple(labels.shape)}, expected (N, classes) and "
            f"(N,), N at least 1"
        )
    classes = scores.shape[1]
    if labels.dtype.is_floating_point or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InvalidCall(f"topk_error: labels are outside 0 to {classes - 1}, or no integers; expected class numbers")
    for k in topk:
        if not 1 <= k <= classes:
            raise InvalidCall(f"topk_error: k is {k!r}, expected 1 to {classes}, the number of classes")
    broken = scores.gather(1, labels[:, None].long())[:, 0].isnan()
    order = torch.where(scores.isnan(), float("-inf"), scores).argsort(dim=1, descending=True, stable=True)
    place = torch.where(broken, classes, (order == labels[:, None]).int().argmax(1))
    return tuple((place >= k).float().mean().item() for k in topk)


def five_crops(images: Tensor, size: int | Sequence[int]) -> Tensor:
    """Return the four corner patches and the centre one (Krizhevsky et al. 2012, section 4.1).

    Args:
        images: (N, C, H, W) or (C, H, W).
        size: of a patch, an int or (height, width).

    Returns:
        (5, N, C, *size), or without N: top left, top right, bottom left, bottom right, centre.

    Raises:
        InvalidCall: the images are smaller than the patches.
    """
    check_images("five_crops", images)
    height, width = patch_size("five_crops", size)
    down, across = images.shape[-2] - height, images.shape[-1] - width
    if down < 0 or across < 0:
        raise InvalidCall(
            f"five_crops: images are {images.shape[-2]} x {images.shape[-1]}, smaller than the patches of {height} x "
            f"{width}; resize them first"
        )
    places = ((0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2))
    return torch.stack([crop(images, (height, width), top, left) for top, left in places])


def ten_crops(images: Tensor, size: int | Sequence[int]) -> Tensor:
    """Return the :func:`five_crops`, then the same mirrored: (10, N, C, *size), or without N."""
    crops = five_crops(images, size)
    return torch.cat([crops, crops.flip(-1)])


class CropAverage(nn.Module):
    """A classifier whose probabilities are averaged over five or ten crops (Krizhevsky et al. 2012, section 4.1).

    Args:
        model: the classifier; evaluation mode is up to the caller, as ever.
        size: of the patches that the model sees, an int or (height, width).
        crops: 5, or 10 with the mirrored ones.

    Shape: (N, C, H, W) -> (N, classes), probabilities: the mean of the softmax of each crop's logits.

    Raises:
        InvalidCall: crops are not 5 or 10, or the images are smaller than the patches.
    """

    def __init__(self, model: nn.Module, size: int | Sequence[int], crops: int = 10) -> None:
        super().__init__()
        if crops not in (5, 10):
            raise InvalidCall(f"CropAverage: crops is {crops!r}, expected 5 or 10")
        self.model = model
        self.size = patch_size("CropAverage", size)
        self.crops = crops

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities."""
        crops = (five_crops if self.crops == 5 else ten_crops)(images, self.size)
        # One crop at a time: a batch of all would take ten times the memory.
        return torch.stack([F.softmax(self.model(patch), 1) for patch in crops]).mean(0)

    def extra_repr(self) -> str:
        return f"size={self.size}, crops={self.crops}"


class Ensemble(nn.Module):
    """Several classifiers as one, by the average of their probabilities or by majority vote.

    ``'average'`` takes the mean of softmax(logits), as ensembles of ImageNet's winners do (Krizhevsky et al. 2012,
    section 6; Szegedy et al. 2014, section 7). ``'vote'`` gives every model one vote, for its best class; the class
    with most wins, and of classes with equally many the one with the higher average probability.

    Args:
        models: the classifiers, all of the same classes; evaluation mode is up to the caller, as ever.
        how: ``'average'`` or ``'vote'``.

    Shape: what the models take -> (N, classes), scores from 0 to 1 that :func:`topk_error` takes: probabilities, or
    shares of the votes with what decides ties added, less than a vote's half.

    Raises:
        InvalidCall: there is no model, or no such way to combine them.
    """

    def __init__(self, models: Iterable[nn.Module], how: str = "average") -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        if not len(self.models):
            raise InvalidCall("Ensemble: there are no models, expected at least one")
        if how not in ("average", "vote"):
            raise InvalidCall(f"Ensemble: how is {how!r}, expected 'average' or 'vote'")
        self.how = how

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return scores."""
        logits = torch.stack([model(*inputs) for model in self.models])
        average = F.softmax(logits, 2).mean(0)
        return average if self.how == "average" else _votes(logits, average)

    def extra_repr(self) -> str:
        return f"how={self.how!r}"


def _votes(logits: Tensor, average: Tensor) -> Tensor:
    """Return shares of (models, N, classes)' votes, less than half a vote of which comes from the average."""
    votes = F.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
    return (votes + average / 3) / (len(logits) + 1 / 3)
