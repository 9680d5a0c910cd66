"""DistributedDataParallel: two processes train a swapped network exactly as they train the unswapped one."""

from __future__ import annotations

import json

import pytest
import torch
from distributed_training import STEPS, WORLD, work


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What the processes report, by rank."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("distributed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.spawn(work, (str(folder),), WORLD)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


@pytest.mark.parametrize("swapped", ["before wrapping", "after wrapping"])
def test_swapped_network_trains_to_the_very_loss_of_the_unswapped_one(outcomes, swapped):
    """Bit for bit: in float32 both compute by oneDNN, and what ours computes itself rounds as torch does."""
    for outcome in outcomes:
        assert len(outcome["never"]["losses"]) == STEPS
        assert outcome[swapped] == outcome["never"]


def test_training_changed_the_loss_and_processes_agree(outcomes):
    first, second = outcomes
    for swapped in first:
        assert first[swapped]["parameters"] == second[swapped]["parameters"]
        assert len(set(first[swapped]["losses"])) == STEPS
