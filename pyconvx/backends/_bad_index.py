"""Indices that lead out of their plane, found by a kernel while it unpools.

The kernels check every index as they read it, and write nothing where one is bad. They leave the place of the first in
a flag on the device, of 8 bytes: 0, or ~place in the memory of the indices. On a CPU the flag is read when the call
returns. On a GPU reading it would make the host wait for the device, so by default that is left to whoever waits
anyway: a flag is read by the first unpooling, or the first :func:`pyconvx.backends.check_indices`, that finds its
kernels done, and the error then says that it belongs to an earlier call. With PYCONVX_CHECK=1 in the environment each
call waits for its flag. In a CUDA graph no flag is read.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidCall

_MOST_UNREAD = 64


class _Unread(NamedTuple):
    operation: str
    problem: Any
    flag: Tensor
    done: Any  # an event


class BadIndices:
    """The flags of one backend."""

    def __init__(self) -> None:
        self._unread: deque[_Unread] = deque(maxlen=_MOST_UNREAD)

    def new_flag(self, device: torch.device) -> Tensor:
        """Return a flag for a call that is about to be launched."""
        return torch.zeros(1, dtype=torch.int64, device=device)

    def watch(self, operation: str, problem: Any, indices: Tensor, flag: Tensor) -> None:
        """Raise if the call that was launched with the flag found a bad index, now or, on a GPU, later on."""
        if flag.device.type == "cpu" or os.environ.get("PYCONVX_CHECK") == "1":
            place = ~int(flag.item())
            if place >= 0:
                n, c, p, q = _where(problem, place)
                raise InvalidCall(problem.bad_index(operation, int(indices[n, c, p, q].item()), n, c, p, q))
        elif not self.capturing():
            self._unread.append(_Unread(operation, problem, flag, self.event(flag.device)))

    def raise_unread(self, wait: bool = False) -> None:
        """Raise if a call found a bad index whose flag has not been read yet; look at calls that are done, or wait."""
        if not self._unread or self.capturing():
            return
        unread, self._unread = self._unread, deque(maxlen=_MOST_UNREAD)
        while unread:
            call = unread.popleft()
            if not (wait or call.done.query()):
                self._unread.append(call)
                continue
            place = ~int(call.flag.item())
            if place >= 0:
                self._unread.extend(unread)
                raise InvalidCall(
                    f"{call.operation}: an index of an earlier call [{call.problem}] lies outside the output plane, at "
                    f"[n, c, p, q] = {list(_where(call.problem, place))}; set PYCONVX_CHECK=1 to have each call wait "
                    f"for its check"
                )

    # What a test without a GPU replaces.

    def capturing(self) -> bool:
        """Return whether the current stream is being captured into a graph."""
        return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()

    def event(self, device: torch.device) -> Any:
        """Return an event behind what has been put into the device's current stream."""
        with torch.cuda.device(device):
            event = torch.cuda.Event()
            event.record()
        return event


def _where(problem: Any, place: int) -> tuple[int, int, int, int]:
    """Return n, c, p, q of a place in the memory of the indices."""
    if problem.channels_last:
        place, c = divmod(place, problem.c)
    place, q = divmod(place, problem.q)
    place, p = divmod(place, problem.p)
    if problem.channels_last:
        return place, c, p, q
    n, c = divmod(place, problem.c)
    return n, c, p, q
