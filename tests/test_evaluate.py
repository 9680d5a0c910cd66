"""Errors, crops and ensembles, against what is counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyconvx import InvalidCall
from pyconvx.evaluate import CropAverage, Ensemble, five_crops, ten_crops, topk_error


def test_topk_error_counts():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1], [0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 0.5, 0.2]])
    labels = torch.tensor([1, 2, 0, 1])  # places 1, 3, 4, 4
    assert topk_error(scores, labels, (1, 2, 3, 4)) == (0.75, 0.75, 0.5, 0.0)
    ten = torch.eye(10)
    assert topk_error(ten, torch.arange(10)) == (0.0, 0.0)
    assert topk_error(ten, (torch.arange(10) + 1) % 10) == (1.0, pytest.approx(0.5, abs=0.11))


def test_topk_error_agrees_with_topk(rng):
    scores = torch.randn(200, 17, generator=rng)
    labels = torch.randint(17, (200,), generator=rng)
    for k in (1, 5, 17):
        wrong = (scores.topk(k, 1).indices != labels[:, None]).all(1).double().mean().item()
        assert topk_error(scores, labels, (k,))[0] == pytest.approx(wrong)
        assert topk_error(scores.to(torch.bfloat16), labels, (k,))[0] == pytest.approx(wrong, abs=0.05)


def test_of_equal_scores_the_lower_class_is_better_and_nan_is_never_right():
    assert topk_error(torch.zeros(3, 4), torch.tensor([0, 1, 3]), (1, 2, 4)) == pytest.approx((2 / 3, 1 / 3, 0.0))
    broken = torch.full((2, 3), float("nan"))
    assert topk_error(broken, torch.tensor([0, 2]), (1, 3)) == (1.0, 1.0)
    assert topk_error(torch.tensor([[float("nan"), 0.0, float("-inf")]]), torch.tensor([1]), (1,)) == (0.0,)


def test_crops_are_the_corners_and_the_centre(rng):
    images = torch.randn(2, 3, 7, 8, generator=rng)
    crops = five_crops(images, (4, 5))
    expected = [
        images[..., :4, :5],
        images[..., :4, 3:],
        images[..., 3:, :5],
        images[..., 3:, 3:],
        images[..., 1:5, 1:6],
    ]
    assert all(torch.equal(crop, patch) for crop, patch in zip(crops, expected, strict=True))
    ten = ten_crops(images, (4, 5))
    assert ten.shape == (10, 2, 3, 4, 5)
    assert torch.equal(ten[:5], crops) and torch.equal(ten[5:], crops.flip(4))
    assert torch.equal(ten_crops(images[0], (4, 5)), ten[:, 0])


def linear(rng, inputs, classes=4):
    layer = nn.Linear(inputs, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, inputs, generator=rng))
    return nn.Sequential(nn.Flatten(), layer)


@pytest.mark.parametrize("crops", [5, 10])
def test_crop_average_is_the_mean_of_the_softmaxes(crops, rng):
    model, images = linear(rng, 3 * 4 * 4), torch.randn(2, 3, 6, 7, generator=rng)
    with torch.no_grad():
        probabilities = CropAverage(model, 4, crops)(images)
        expected = sum(F.softmax(model(crop), 1) for crop in ten_crops(images, 4)[:crops]) / crops
    torch.testing.assert_close(probabilities, expected)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


class Says(nn.Module):
    """A classifier that has made up its mind."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, x):
        return self.logits.expand(len(x), -1)


IMAGES = torch.zeros(2, 1, 4, 4)


def test_the_average_and_the_vote_can_differ():
    models = [Says(0.4, 0.35, 0.25), Says(0.4, 0.35, 0.25), Says(0.01, 0.98, 0.01)]
    average, vote = Ensemble(models)(IMAGES), Ensemble(models, how="vote")(IMAGES)
    torch.testing.assert_close(average[0], torch.tensor([0.81, 1.68, 0.51]) / 3)
    assert average.argmax(1).tolist() == [1, 1] and vote.argmax(1).tolist() == [0, 0]
    torch.testing.assert_close(vote.sum(1), torch.ones(2))


def test_ties_go_to_the_higher_average_and_never_past_a_vote():
    tie = Ensemble([Says(0.6, 0.39, 0.01), Says(0.3, 0.69, 0.01)], how="vote")(IMAGES)[0]
    assert tie.argsort(descending=True).tolist() == [1, 0, 2]
    # Two votes that are hardly meant against one that is certain, which has the higher average.
    narrow = Ensemble([Says(0.501, 0.499), Says(0.501, 0.499), Says(0.001, 0.999)], how="vote")(IMAGES)[0]
    assert narrow.argmax() == 0


def test_an_ensemble_makes_fewer_errors_than_its_models(rng):
    """Classifiers that are right more often than not, and err independently: 'many could be better than all'."""
    labels = torch.randint(10, (2000,), generator=rng)
    logits = [2 * F.one_hot(labels, 10) + torch.randn(2000, 10, generator=rng) for _ in range(7)]
    singles = [topk_error(one, labels, (1,))[0] for one in logits]

    class Given(nn.Module):
        def __init__(self, values):
            super().__init__()
            self.values = values

        def forward(self, x):
            return self.values

    for how in ("average", "vote"):
        together = topk_error(Ensemble(map(Given, logits), how)(IMAGES), labels, (1,))[0]
        assert together < 0.5 * min(singles)


def test_ensembles_hold_their_models():
    ensemble = Ensemble([nn.Linear(2, 3), nn.Linear(2, 3)], "vote")
    assert len(ensemble.state_dict()) == 4 and "how='vote'" in repr(ensemble)
    assert "size=(4, 4), crops=5" in repr(CropAverage(nn.Linear(2, 3), 4, 5))


SCORES, LABELS = torch.zeros(2, 3), torch.tensor([0, 2])

REFUSED = {
    "labels of another batch": (
        lambda: topk_error(SCORES, LABELS[:1]),
        r"topk_error: scores are \(2, 3\) and labels \(1,\), expected \(N, classes\) and \(N,\), N at least 1",
    ),
    "no images": (lambda: topk_error(SCORES[:0], LABELS[:0]), "N at least 1"),
    "no such class": (lambda: topk_error(SCORES, LABELS + 1), "labels are outside 0 to 2, or no integers"),
    "labels that are no integers": (
        lambda: topk_error(SCORES, LABELS.float()),
        "or no integers; expected class numbers",
    ),
    "k of 5 in 3": (lambda: topk_error(SCORES, LABELS), "k is 5, expected 1 to 3, the number of classes"),
    "k of 0": (lambda: topk_error(SCORES, LABELS, (0,)), "k is 0, expected 1 to 3"),
    "too small": (lambda: five_crops(IMAGES, 5), "images are 4 x 4, smaller than the patches of 5 x 5; resize them"),
    "no size": (lambda: ten_crops(IMAGES, "a"), "size is 'a', expected a positive int or two of them"),
    "six crops": (lambda: CropAverage(nn.Identity(), 4, 6), "crops is 6, expected 5 or 10"),
    "no models": (lambda: Ensemble([]), "there are no models, expected at least one"),
    "no way": (lambda: Ensemble([nn.Identity()], "sum"), "how is 'sum', expected 'average' or 'vote'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, sentence = REFUSED[case]
    with pytest.raises(InvalidCall, match=sentence):
        call()
