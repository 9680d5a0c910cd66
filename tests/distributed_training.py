"""What each process of test_distributed runs: it stands apart because processes that are spawned import it by name."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pyconvx

WORLD = 2
STEPS = 5


class LeNet(nn.Sequential):
    """LeNet-5 in plain torch.nn, for images of 16 x 16."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip


def train(rank: int, swapped: str) -> dict[str, list[float]]:
    """Train one network on this process's half of seeded batches; return its losses and the sums of its parameters."""
    torch.manual_seed(0)
    model = LeNet()
    if swapped == "before wrapping":
        pyconvx.swap(model)
    parallel = DistributedDataParallel(model)
    if swapped == "after wrapping":
        pyconvx.swap(parallel)
    expected = nn.Conv2d if swapped == "never" else pyconvx.nn.Conv2d
    assert type(model[0]) is expected
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        images = torch.randn(16, 1, 16, 16, generator=generator).chunk(WORLD)[rank]
        labels = torch.randint(10, (16,), generator=generator).chunk(WORLD)[rank]
        loss = F.cross_entropy(parallel(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dist.all_reduce(loss.detach())
        losses.append(loss.item())
    return {"losses": losses, "parameters": [p.double().sum().item() for p in model.parameters()]}


def work(rank: int, folder: str) -> None:
    """Run all forms of training in this process, and leave what came out in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    outcomes = {swapped: train(rank, swapped) for swapped in ("never", "before wrapping", "after wrapping")}
    Path(folder, f"{rank}.json").write_text(json.dumps(outcomes))
    dist.destroy_process_group()
