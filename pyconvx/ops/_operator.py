"""How an operation meets PyTorch: one class per operation, registered once as ``pyconvx::<name>``.

A subclass of :class:`Operator` states an operation's schema, its problem, its fake (shapes and strides), what it saves,
its backward, its forward derivative and its batching rule, each once. :class:`Operator` derives from them

* the dispatcher's registrations (kernel, fake, autograd, vmap) that torch.compile, torch.export and opcheck see;
* two ``autograd.Function`` classes: one that is the dispatcher's autograd, at any level of functorch and of forward AD;
  and one for plain training, which goes past the dispatcher and is several times cheaper per call;
* the route: a call takes the cheapest of these roads that is right for it.

    compiling, exporting, functorch, forward AD   -> the op, with its registered autograd
    a gradient is wanted                          -> the Function for training
    otherwise                                     -> the kernel

The kernel is called straight, past the dispatcher, when the operands are plain tensors and nobody listens (no mode, no
subclass, no tracer); else the op is called below autograd, so that modes and subclasses see it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._C import (
    _any_requires_grad,
    _are_functorch_transforms_active,
    _AutoDispatchBelowAutograd,
    _get_tracing_state,
    _len_torch_dispatch_stack,
)
from torch._C._functorch import unwrap_if_dead
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function, forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.compiler import is_compiling

from .. import backends
from ._checks import check_tensor, refuse, show
from ._vmap import is_legacy_vmap

LIBRARY = torch.library.Library("pyconvx", "DEF")
_PLAIN = frozenset({Tensor, torch.nn.Parameter, type(None)})
_MAX_CHOICES = 4096


@dataclass(frozen=True)
class Choice:
    """The backend that runs one signature of an operation, and the reasons of those before it that cannot."""

    problem: Any
    backend: backends.Backend
    refusals: dict[str, str]
    run: Callable[..., Any]


class Operator:
    """Base of every operation; see the module's docstring. Subclasses are instantiated once, in their module."""

    schema: ClassVar[str]
    """The schema, tensors first."""
    tensors: ClassVar[int]
    """The number of leading tensor arguments, optional ones included."""

    observer: ClassVar[Callable[[str, Choice, tuple[Any, ...]], Any] | None] = None
    """While set, called with the name, the choice and the arguments of every kernel run, which it must then run and
    return the results of; see ``pyconvx.explain``."""

    # What a subclass states.

    def check(self, *args: Any) -> None:
        """Raise InvalidCall unless the tensors fit together; sizes may be symbolic."""
        raise NotImplementedError

    def problem(self, *args: Any) -> Any:
        """Return the problem that backends are asked about; raise InvalidCall where its geometry makes no sense."""
        raise NotImplementedError

    def fake(self, *args: Any) -> Any:
        """Return empty results with the exact shapes and strides that the kernel gives; sizes may be symbolic."""
        raise NotImplementedError

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> tuple[Tensor | None, ...]:
        """Keep on ``ctx`` what backward and jvp need, and return the tensors that they find in ctx.saved_tensors."""
        raise NotImplementedError

    def backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the tensor arguments, in terms of operations that have gradients themselves."""
        raise NotImplementedError

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Any:
        """Return the tangents of the results; ``tangents`` belong to the tensor arguments."""
        raise NotImplementedError

    def vmap(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        """Run a batch of calls as one: return the results and the position of their batch dimension."""
        raise NotImplementedError

    # What follows from it.

    def __init__(self) -> None:
        self.name = self.schema.partition("(")[0]
        qualified = f"pyconvx::{self.name}"
        LIBRARY.define(self.schema, tags=(torch.Tag.pt2_compliant_tag,))
        LIBRARY.impl(self.name, self._kernel_of_dispatcher, "CompositeExplicitAutograd")
        self.op = getattr(torch.ops.pyconvx, self.name).default
        options = len(self.op._schema.arguments) - self.tensors
        no_gradients = (None,) * options

        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            if all(grad is None for grad in grads):
                return (None,) * (self.tensors + options)
            return self.backward(ctx, *grads) + no_gradients

        def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*self.save(ctx, inputs, output))

        def run_and_save(ctx: Any, *args: Any) -> Any:
            output = self._forward(*args)
            save(ctx, args, output)
            return output

        def dispatch_and_save(ctx: Any, *args: Any) -> Any:
            with _for_other_levels(), _AutoDispatchBelowAutograd():
                output = self.op(*args)
            save(ctx, args, output)
            ctx.save_for_forward(*ctx.to_save)
            return output

        title = "".join(word.capitalize() for word in self.name.split("_"))
        training: Any = type(
            f"{title}Training",
            (Function,),
            {"forward": staticmethod(run_and_save), "backward": staticmethod(backward)},
        )
        # Past Function.apply itself, which looks for functorch's wrappers: on this road there are none.
        self._train = super(Function, training).apply  # type: ignore[misc]
        # The form that functorch makes of every Function, one for each of its levels: here the dispatcher does that.
        dispatched: Any = type(
            f"{title}Dispatched",
            (_SingleLevelFunction,),
            {
                "forward": staticmethod(dispatch_and_save),
                "backward": staticmethod(lambda ctx, *grads: backward(_Outlived(ctx), *grads)),
                "jvp": staticmethod(lambda ctx, *tangents: self.jvp(ctx, *tangents[: self.tensors])),
                "_compiled_autograd_key": staticmethod(Function._compiled_autograd_key),
            },
        )

        def autograd(*args: Any) -> Any:
            with enable_single_level_autograd_function():
                return dispatched.apply(*_hashable(args))

        LIBRARY.impl(self.name, autograd, "Autograd")
        torch.library.register_fake(qualified, self._checked_fake, lib=LIBRARY)
        torch.library.register_vmap(qualified, self.vmap, lib=LIBRARY)
        self._signature = _signature_function(self.op._schema.arguments[: self.tensors])
        self._choices: dict[Any, Choice] = {}
        backends.choices.append(self._choices)

    def __call__(self, *args: Any) -> Any:
        """Run the operation by the cheapest road that is right; see the module's docstring."""
        if is_compiling() or is_transformed():
            return self.op(*args)
        if torch.is_grad_enabled() and _any_requires_grad(*args):
            return self.train(*args)
        return self._forward(*args)

    def train(self, *args: Any) -> Any:
        """Run a call whose gradient is wanted, by plain autograd; an operation may have another do it that keeps less
        for the backward pass."""
        return self._train(*args)

    def _forward(self, *args: Any) -> Any:
        if _len_torch_dispatch_stack() == 0 and _get_tracing_state() is None and not is_legacy_vmap():
            try:
                signature = self._signature(*args)
            except (AttributeError, RuntimeError):  # what is no tensor, or a tensor without strides
                self._check_arguments(args)
                raise
            choice = self._choices.get(signature)
            if choice is not None and Operator.observer is None:
                return choice.run(*args)
            if all(type(x) in _PLAIN and not (x is not None and x.is_meta) for x in args[: self.tensors]):
                return self._run(signature, args)
        with _AutoDispatchBelowAutograd():
            return self.op(*args)

    def _run(self, signature: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        """Run the operation on the backend chosen for arguments of this signature."""
        choice = self._choices.get(signature) or self._choose(signature, args)
        if Operator.observer is not None:
            return Operator.observer(self.name, choice, args)
        return choice.run(*args)

    def _choose(self, signature: tuple[Any, ...], args: tuple[Any, ...]) -> Choice:
        self._check_arguments(args)
        problem = self.problem(*args)
        backend, refusals = backends.choose(self.name, problem, args[0].device)
        choice = Choice(problem, backend, refusals, partial(getattr(backend, self.name), problem))
        if all(type(x) in _PLAIN for x in args[: self.tensors]):
            if len(self._choices) >= _MAX_CHOICES:  # shapes without end: start over rather than grow without bound
                self._choices.clear()
            self._choices[signature] = choice
        return choice

    def _checked_fake(self, *args: Any) -> Any:
        self._check_arguments(args)
        if _is_concrete(args):
            self.problem(*args)
        return self.fake(*args)

    def _kernel_of_dispatcher(self, *args: Any) -> Any:
        args = _hashable(args)
        try:
            signature = self._signature(*args)
        except RuntimeError:  # a tensor without strides
            self._check_arguments(args)
            raise
        return self._run(signature, args)

    def _check_arguments(self, args: tuple[Any, ...]) -> None:
        """Raise unless tensors are tensors, lists as long as the schema says (neither calls past the dispatcher nor it
        look), and the tensors fit together."""
        for argument, value in zip(self.op._schema.arguments, args, strict=True):
            if argument.N is not None and len(value) != argument.N:
                refuse(self.name, f"{argument.name} is {show(value)}, expected {argument.N} numbers")
        for argument, value in zip(self.op._schema.arguments[: self.tensors], args, strict=False):
            if value is not None or not isinstance(argument.type, torch.OptionalType):
                check_tensor(self.name, argument.name, value)
        self.check(*args)


def _for_other_levels() -> AbstractContextManager[Any]:
    """Turn derivatives back on for functorch's levels below: a Function turns them off in its forward pass."""
    if not _are_functorch_transforms_active():
        return nullcontext()
    levels = ExitStack()
    levels.enter_context(torch.enable_grad())
    levels.enter_context(forward_ad._set_fwd_grad_enabled(True))
    return levels


class _Outlived:
    """The context of a backward pass that may run when its transform has ended, as that of ``torch.func.vjp`` does: the
    tensors that were saved are then wrappers of that transform, which have no memory of their own."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self.saved_tensors = tuple(None if tensor is None else unwrap_if_dead(tensor) for tensor in ctx.saved_tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def _signature_function(operands: list[Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a function of an operation's arguments that gives what decides how they are run, as a hashable key.

    Written out for its operands and compiled, as namedtuple does, because a loop over them takes as long as the rest of
    a call. The class is among the facts so that a signature with a choice is one of plain tensors: only those get one.
    """
    facts = "{0}.__class__, {0}.shape, {0}.stride(), {0}.dtype, {0}.device"
    keys = [
        f"None if {operand.name} is None else ({facts.format(operand.name)})"
        if isinstance(operand.type, torch.OptionalType)
        else facts.format(operand.name)
        for operand in operands
    ]
    names = ", ".join(operand.name for operand in operands)
    return eval(f"lambda {names}, *options: ({', '.join(keys)}, options)")


def _hashable(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with the lists, as which the dispatcher hands sizes over, as tuples."""
    return tuple(tuple(value) if isinstance(value, list) else value for value in args)


def is_transformed() -> bool:
    """Whether a functorch transform or a level of forward-mode AD is active."""
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


def _is_concrete(args: tuple[Any, ...]) -> bool:
    sizes = (size for value in args for size in (value.shape if isinstance(value, Tensor) else _as_tuple(value)))
    return not any(isinstance(size, torch.SymInt) for size in sizes)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
