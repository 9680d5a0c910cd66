"""The backends: who can run an operation, and which of them does.

One registry in one fixed order. A backend says of a problem ``None`` (it can run it) or one sentence (why not), and has
one method per operation, named like it, taking the problem and then the operation's arguments. Unless one is forced,
with ``PYCONVX_BACKEND`` at import or ``with pyconvx.backend(name)``, the first that can run the problem does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import BackendRefusal, InvalidCall


class Backend:
    """What every backend is: a name, the devices whose tensors it takes, and the two questions it answers."""

    name: str
    summary: str
    devices: frozenset[str] | None = None
    """Device types whose tensors it takes; None means all."""
    by_request: bool = False
    """Whether it runs only what it is forced to."""
    why_by_request: str = ""
    """The reason, which is told where its devices' tensors go elsewhere; empty if nobody would expect it to run."""

    masks_gradients: bool = False
    """Whether its gradients of a convolution with a ReLU apply the ReLU's mask while they load the output's gradient,
    so that it is not written once more."""

    def unavailable(self) -> str | None:
        """Return None if the backend works in this process, else the sentence that says what is missing."""
        return None

    def can_run(self, operation: str, problem: Any, device: torch.device) -> str | None:
        """Return None if the backend can run the operation on tensors of ``device``, which is of a type that it takes,
        else one sentence that says why not."""
        raise NotImplementedError

    def details(self) -> dict[str, str]:
        """Return what ``pyconvx info`` shows of the backend."""
        return {}


_registry: dict[str, Backend] = {}
_forced: str | None = None

choices: list[dict[Any, Any]] = []
"""What operations have chosen so far; emptied when another answer may be due."""


def register(backend: Backend) -> Backend:
    """Add a backend at the end of the order in which backends are asked."""
    _registry[backend.name] = backend
    return backend


def registered() -> tuple[Backend, ...]:
    """Return the backends in the order in which they are asked."""
    return tuple(_registry.values())


def forced_name() -> str | None:
    """Return the name of the backend that is forced at the moment, None if none is."""
    return _forced


def force(name: str | None) -> None:
    """Force the backend called ``name`` for the whole process; None lifts it."""
    global _forced
    if name is not None and name not in _registry:
        raise InvalidCall(f"backend: there is no backend {name!r}; there are {', '.join(map(repr, _registry))}")
    _forced = name
    for chosen in choices:
        chosen.clear()


@contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Force one backend inside the ``with`` block, for all threads of the process (autograd's own included).

    Args:
        name: a backend's name, as ``pyconvx info`` lists them, or None to let the order decide again.

    Raises:
        InvalidCall: there is no backend of that name.
        BackendRefusal: by the operations inside the block, where that backend cannot run them.
    """
    before = _forced
    force(name)
    try:
        yield
    finally:
        force(before)


def refusal(candidate: Backend, operation: str, problem: Any, device: torch.device) -> str | None:
    """Return None if ``candidate`` can run the operation on tensors of ``device``, else why it cannot."""
    missing = candidate.unavailable()
    if missing is not None:
        return missing
    if candidate.devices is not None and device.type not in candidate.devices:
        return f"runs on {' and '.join(sorted(candidate.devices))} tensors, these are on {device}"
    return candidate.can_run(operation, problem, device)


def choose(operation: str, problem: Any, device: torch.device) -> tuple[Backend, dict[str, str]]:
    """Return the backend that runs the operation, and the refusals of those asked before it, by name.

    Raises:
        BackendRefusal: the forced backend, or every one there is, refuses; with its sentences.
    """
    candidates = [_registry[_forced]] if _forced is not None else registered()
    refusals: dict[str, str] = {}
    for candidate in candidates:
        if candidate.by_request and _forced is None:
            if candidate.why_by_request and device.type in (candidate.devices or ()):
                refusals[candidate.name] = candidate.unavailable() or candidate.why_by_request
            continue
        reason = refusal(candidate, operation, problem, device)
        if reason is None:
            return candidate, refusals
        refusals[candidate.name] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
    if _forced is not None:
        raise BackendRefusal(
            f"{operation}: backend {_forced!r} is forced and cannot run [{problem}]: {reasons}. Lift it with "
            f"pyconvx.backend(None), or unset PYCONVX_BACKEND"
        )
    raise BackendRefusal(f"{operation}: no backend can run [{problem}]: {reasons}")


def check_indices() -> None:
    """Wait for all unpooling on GPUs, and raise InvalidCall if an index of one led out of its plane; see
    ``_bad_index``."""
    for candidate in registered():
        if hasattr(candidate, "bad_indices"):
            candidate.bad_indices.raise_unread(wait=True)


def runs_on_ours(operation: str, problem: Any, device: torch.device) -> bool:
    """Return whether a kernel of ours would run the operation, rather than torch or nothing."""
    try:
        return choose(operation, problem, device)[0].name != "aten"
    except BackendRefusal:
        return False


_masking: dict[Any, bool] = {}
choices.append(_masking)


def masks_gradients(problem: Any, device: torch.device) -> bool:
    """Return whether the backend that would run ``conv2d_dgrad_relu`` masks what it loads; ``problem`` is any such
    call's, and what was found for one counts for all of a device."""
    found = _masking.get(device)
    if found is None:
        try:
            found = choose("conv2d_dgrad_relu", problem, device)[0].masks_gradients
        except BackendRefusal:
            found = False
        _masking[device] = found
    return found


def _register_all() -> None:
    from .aten import Aten
    from .cpu import Cpu
    from .cuda import Cuda
    from .cupy import Cupy
    from .emulator import Emulator

    register(Cpu())
    register(Cuda())
    register(Cupy())
    register(Emulator())
    register(Aten())
    force(os.environ.get("PYCONVX_BACKEND") or None)


_register_all()
