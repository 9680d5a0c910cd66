"""Run a model once and say of every call what ran it, and why nothing before it in the order could."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from .ops._operator import Choice, Operator
from .table import Table
from .use import OURS

COLUMNS = ("module", "operation", "problem", "backend", "why not another")


def explain(model: Any, *args: Any, **kwargs: Any) -> Table:
    """Run ``model(*args, **kwargs)`` once, in evaluation mode without gradients, and list its calls.

    One row per convolution, pooling, unpooling and residual add: the module that made it, the operation, its problem
    (sizes, geometry, dtype, layout), the backend that took it, and the reasons of the backends asked before it. A call
    that went to torch past pyconvx, because the layer is not swapped or the function is called directly, is listed
    with the backend ``torch``.

    Raises:
        Whatever the model raises.
    """
    listener = _Listener(model)
    before = {module: module.training for module in model.modules()} if isinstance(model, torch.nn.Module) else {}
    if before:
        model.eval()
    try:
        with listener, torch.no_grad():
            model(*args, **kwargs)
    finally:
        for module, training in before.items():
            module.training = training
    counts: dict[str, int] = {}
    for row in listener.rows:
        counts[row[3]] = counts.get(row[3], 0) + 1
    took = ", ".join(f"{backend} took {count}" for backend, count in counts.items()) or "none that pyconvx knows"
    return Table(f"pyconvx.explain: {len(listener.rows)} calls: {took}", COLUMNS, listener.rows)


class _Listener(TorchFunctionMode):
    """Hears the kernels that operations choose, torch's functions that are called past them, and who calls."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.rows: list[tuple[str, str, str, str, str]] = []
        self._names = (
            {id(module): name for name, module in model.named_modules()} if hasattr(model, "named_modules") else {}
        )
        self._calling = [""]
        self._depth = 0

    def __enter__(self) -> Any:
        self._hooks = (
            register_module_forward_pre_hook(lambda module, _: self._calling.append(self._names.get(id(module), "?"))),
            register_module_forward_hook(self._left, always_call=True),
        )
        Operator.observer = self._heard
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        Operator.observer = None
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)

    def _left(self, module: Any, args: Any, output: Any) -> None:
        self._calling.pop()

    def _heard(self, operation: str, choice: Choice, args: tuple[Any, ...]) -> Any:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in choice.refusals.items())
        self.rows.append((self._calling[-1], operation, str(choice.problem), choice.backend.name, reasons))
        self._depth += 1
        try:
            return choice.run(*args)
        finally:
            self._depth -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.rows)
        result = func(*args, **(kwargs or {}))
        if func in OURS and self._depth == 0 and len(self.rows) == before:
            shapes = " ".join("x".join(map(str, arg.shape)) for arg in args if isinstance(arg, torch.Tensor))
            reason = "called past pyconvx: swap the layer, or run under `with pyconvx.use():`"
            self.rows.append((self._calling[-1], func.__name__, shapes, "torch", reason))
        return result
