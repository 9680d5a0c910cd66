"""Auxiliary losses, and that torch's label smoothing is the paper's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyconvx import InvalidCall, models
from pyconvx.losses import AuxiliaryLoss


def test_label_smoothing_is_the_formula_of_the_paper(rng):
    """q'(k) = (1 - e) [k = y] + e / K (Szegedy et al. 2015, section 7)."""
    logits, labels = torch.randn(6, 5, generator=rng), torch.randint(5, (6,), generator=rng)
    smooth = 0.9 * F.one_hot(labels, 5) + 0.1 / 5
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels), expected)
    torch.testing.assert_close(AuxiliaryLoss(nn.CrossEntropyLoss(label_smoothing=0.1))(logits, labels), expected)


def test_auxiliary_losses_are_added_with_their_weight(rng):
    logits, one, two = torch.randn(3, 4, 5, generator=rng)
    labels = torch.randint(5, (4,), generator=rng)
    loss = F.cross_entropy
    expected = loss(logits, labels) + 0.3 * loss(one, labels) + 0.3 * loss(two, labels)
    torch.testing.assert_close(AuxiliaryLoss()((logits, one, two), labels), expected)
    torch.testing.assert_close(
        AuxiliaryLoss(F.mse_loss, weight=0.4)((logits, one), two), F.mse_loss(logits, two) + 0.4 * F.mse_loss(one, two)
    )
    torch.testing.assert_close(AuxiliaryLoss()(logits, labels), loss(logits, labels))
    assert repr(AuxiliaryLoss(weight=0.4)).startswith("AuxiliaryLoss(\n  weight=0.4")


def test_googlenets_heads_bring_gradients_to_the_middle():
    torch.manual_seed(0)
    network = models.GoogLeNet(5, aux_logits=True)
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([1, 4])
    AuxiliaryLoss()(network(images), labels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    torch.testing.assert_close(AuxiliaryLoss()(network(images), labels), F.cross_entropy(network(images), labels))


@pytest.mark.parametrize("outputs", [None, (), [torch.zeros(2, 3)], (torch.zeros(2, 3), None)])
def test_other_outputs_are_refused(outputs):
    with pytest.raises(
        InvalidCall, match=r"outputs are a \w+, expected a tensor of logits, or a tuple of it and the aux"
    ):
        AuxiliaryLoss()(outputs, torch.zeros(2, dtype=torch.long))
