"""Times of calls that are compared: interleaved, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

_WARM_UP = 0.02
"""Seconds for which each call is repeated before it counts."""
_SHORTEST = 200e-6
"""Seconds that a sample takes at least: calls that are shorter are timed several at once."""


class Timing(NamedTuple):
    """Seconds per call: the median, and the distance of the quartiles as a fraction of it."""

    median: float
    spread: float


def interleaved(calls: Sequence[Callable[[], object]], repeat: int, device: torch.device) -> list[Timing]:
    """Time several calls against each other.

    In each of ``repeat`` rounds every call is sampled once, in an order that is turned round each time. The operands
    stay where a call leaves them: in the caches, if they fit.

    Args:
        calls: what is timed; results are dropped.
        repeat: rounds, at least 2.
        device: where the calls run; on a GPU a sample ends when the device has finished.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    numbers = [_calls_per_sample(call, wait) for call in calls]
    samples: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeat):
            for index in order:
                samples[index].append(_sample(calls[index], numbers[index], wait))
            order.reverse()
    finally:
        if collecting:
            gc.enable()
    return [_summary(times) for times in samples]


def _nothing() -> None:
    pass


def _sample(call: Callable[[], object], number: int, wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(number):
        call()
    wait()
    return (time.perf_counter() - start) / number


def _calls_per_sample(call: Callable[[], object], wait: Callable[[], None]) -> int:
    """Warm the call up and return how many of it make a sample."""
    quickest, end = float("inf"), time.perf_counter() + _WARM_UP
    for done in range(1_000_000):
        if done >= 2 and time.perf_counter() > end:
            break
        quickest = min(quickest, _sample(call, 1, wait))
    return max(1, round(_SHORTEST / quickest))


def _summary(times: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, (upper - lower) / median)
