"""The command line: ``pyconvx`` and ``python -m pyconvx``.

Exit codes: 0 done; 1 the demo showed that something is wrong; 2 the arguments, or the machine, do not allow it, which
one sentence on stderr explains.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import BackendRefusal, InvalidCall

if TYPE_CHECKING:
    import torch

    from .swap import Handle
    from .table import Table

_DTYPES = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_MODEL = (
    "a model of torchvision, timm or pyconvx.models by name (resnet50), or module:factory, called without arguments"
)


class _CannotDo(Exception):
    """What the arguments ask for cannot be done; the message is the sentence for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (InvalidCall, BackendRefusal, _CannotDo) as error:
        print(f"pyconvx: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyconvx", description="Kernels for convolutional networks, on your machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what this installation and this machine have, and what they lack")
    info.set_defaults(run=_info)

    demo = commands.add_parser("demo", help="train LeNet-5 on handwritten digits, swap it, compare, and swap back")
    demo.add_argument("--quick", action="store_true", help="fewer epochs and timings")
    demo.set_defaults(run=_demo)

    swap = commands.add_parser("swap", help="which layers of a model pyconvx takes over, and why not the others")
    swap.add_argument("model", metavar="MODEL", help=_MODEL)
    swap.add_argument("--include", metavar="NAMES", action="append", help="only layers like 'features.*'; repeatable")
    swap.add_argument("--exclude", metavar="NAMES", action="append", help="no layers like 'features.0'; repeatable")
    swap.add_argument("--strict", action="store_true", help="fail if no layer is taken over")
    swap.set_defaults(run=_swap)

    explain = commands.add_parser("explain", help="which backend runs each call of a model, and why no other")
    explain.add_argument("model", metavar="MODEL", help=_MODEL)
    explain.add_argument("--input", metavar="N,C,H,W", type=_sizes, default=(1, 3, 224, 224), help="size of the input")
    explain.add_argument("--dtype", choices=_DTYPES, default="fp32", help="of model and input (default: %(default)s)")
    explain.add_argument("--channels-last", action="store_true", help="put model and input into that layout")
    explain.add_argument("--swap", action=argparse.BooleanOptionalAction, default=True, help="swap the model first")
    explain.set_defaults(run=_explain)

    bench = commands.add_parser("bench", help="time the kernels on the layers of a network, beside torch's")
    operations = bench.add_subparsers(dest="operation", required=True, metavar="OPERATION")
    for operation, summary, passes in (
        ("conv", "convolutions", "fprop dgrad wgrad all"),
        ("pool", "max poolings", "fprop dgrad all"),
        ("unpool", "max unpoolings, of the network's poolings", "fprop dgrad all"),
        ("residual", "residual adds with their ReLU", "fprop dgrad all"),
    ):
        _add_bench(operations.add_parser(operation, help=summary), operation, passes.split())

    kernels = commands.add_parser("kernels", help="what the CUDA kernels do, without a GPU")
    actions = kernels.add_subparsers(dest="action", required=True, metavar="ACTION")
    count = actions.add_parser(
        "count", help="run one in the PTX machine and count instructions, memory sectors and bank conflicts"
    )
    counted = count.add_subparsers(dest="operation", required=True, metavar="OPERATION")
    _add_counts(counted)

    report = actions.add_parser("report", help="compile some and read what the chip will issue")
    report.add_argument("words", metavar="WORD", nargs="*", help="only those with one of these in name or kernel")
    report.add_argument("--shape", metavar="SHAPE", help="the kernel of a convolution, such as c=64,h=56,k=64,r=3")
    report.add_argument("--tile", metavar="TILE", default="", help="its tile: one of the plan's, or all")
    report.add_argument("--dtype", choices=_DTYPES, default="fp16", help="of the shape (default: %(default)s)")
    report.add_argument("--tf32", action="store_true", help="fp32 multiplied as tf32")
    report.add_argument("--arch", metavar="SM", type=int, nargs="+", help="80 86 89 90 100 120 (default: all)")
    report.set_defaults(run=_report)

    plan = actions.add_parser("plan", help="which kernel and tile would run a convolution on a chip, and why")
    plan.add_argument("--shape", metavar="SHAPE", required=True, help="such as n=8,c=64,h=56,k=64,r=3,stride=2")
    plan.add_argument("--device", metavar="NAME", default="a100", help="a chip: a100, h100 ... (default: %(default)s)")
    plan.add_argument("--dtype", choices=_DTYPES, default="fp16", help="default: %(default)s")
    plan.add_argument("--tf32", action="store_true", help="fp32 multiplied as tf32")
    plan.add_argument("--contiguous", action="store_true", help="NCHW operands instead of channels_last")
    plan.add_argument("--tile", metavar="TILE", default="", help="this one instead of the best")
    plan.set_defaults(run=_plan)

    for command in (info, demo, swap, explain, report, plan, *operations.choices.values(), *counted.choices.values()):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_counts(counted: Any) -> None:
    image = (
        ("n", "images", 1), ("c", "channels", 64), ("h", "rows of the input", 56), ("w", "columns (default: h)", None),
    )  # fmt: skip
    window = (
        ("r", "rows of a window", 2), ("s", "columns of a window (default: r)", None),
        ("stride", "step of the window (default: r)", None), ("padding", "on each side", 0),
        ("dilation", "distance of taps", 1),
    )  # fmt: skip
    sizes = {
        "conv2d": (
            *image, ("k", "filters", 64), ("r", "rows of a filter", 3), ("s", "columns of a filter (default: r)", None),
            ("stride", "step of the window", 1), ("padding", "zeros on each side (default: half a filter)", None),
            ("dilation", "distance of taps", 1), ("groups", "slices of the channels", 1),
        ),
        "max_pool2d": (*image, *window),
        "max_unpool2d": (*image, *window),
        "residual_add": image,
    }  # fmt: skip
    summaries = {
        "conv2d": "a convolution",
        "max_pool2d": "a max pooling of an input of those sizes, or its gradient",
        "max_unpool2d": "the max unpooling that gives an output of those sizes, or its gradient",
        "residual_add": "the sum of two tensors, or the gradient of its ReLU",
    }
    for operation, letters in sizes.items():
        parser = counted.add_parser(operation, help=summaries[operation])
        for letter, what, default in letters:
            text = what if default is None else f"{what} (default: %(default)s)"
            parser.add_argument(f"--{letter}", metavar="N", type=int, default=default, help=text)
        parser.add_argument("--dtype", choices=_DTYPES, default="fp16", help="default: %(default)s")
        if operation != "residual_add":
            parser.add_argument("--contiguous", action="store_true", help="NCHW operands instead of channels_last")
        if operation in ("max_pool2d", "max_unpool2d"):
            kinds = ("uint8", "int32", "int64", *(("none",) if operation == "max_pool2d" else ()))
            parser.add_argument(
                "--index", choices=kinds, default="uint8", help="how a winner is remembered (default: %(default)s)"
            )
        if operation in ("max_pool2d", "residual_add"):
            where = "before the pooling" if operation == "max_pool2d" else "of the sum"
            parser.add_argument("--relu", action="store_true", help=f"a ReLU {where}")
        if operation == "residual_add":
            parser.add_argument(
                "--mask", action="store_true", help="with a bit an element for the gradient of the ReLU"
            )
        if operation != "conv2d":
            parser.add_argument("--backward", action="store_true", help="the gradient")
        parser.set_defaults(run=_count)


def _add_bench(parser: argparse.ArgumentParser, operation: str, passes: list[str]) -> None:
    networks = "resnet50 only" if operation == "residual" else "lenet5, alexnet, vgg16, inception_v3 or resnet50"
    parser.add_argument("--shapes", metavar="NETWORK", default="resnet50", help=f"{networks} (default: %(default)s)")
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="images (default: %(default)s)")
    parser.add_argument("--dtype", choices=_DTYPES, default="fp32", help="default: %(default)s")
    parser.add_argument("--pass", dest="pass_", choices=passes, default="fprop", help="default: %(default)s")
    parser.add_argument("--channels-last", action="store_true", help="operands in that layout")
    if operation in ("pool", "unpool"):
        forms = ["uint8", "int64"] + ["none"] * (operation == "pool")
        parser.add_argument(
            "--index", choices=forms, default="uint8", help="form of our indices (default: %(default)s)"
        )
    if operation == "conv":
        parser.add_argument("--frozen", action="store_true", help="ours in pyconvx.frozen_filters()")
    parser.add_argument("--threads", metavar="N", type=int, help="threads of the CPU (default: torch's)")
    parser.add_argument("--backend", metavar="NAME", help="force a backend for ours")
    parser.add_argument(
        "--device", metavar="DEVICE", help="such as cpu or cuda:0 (default: the first GPU, else the CPU)"
    )
    parser.add_argument("--repeat", metavar="N", type=int, default=30, help="samples of a time (default: %(default)s)")
    parser.add_argument("--limit", metavar="N", type=int, help="the first N shapes only")
    parser.set_defaults(run=_bench)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 1,3,224,224")
    return sizes


# The commands. Each imports what it needs: `pyconvx --help` should not wait for it.


def _info(args: argparse.Namespace) -> int:
    from . import info

    found = info.collect()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for table in info.tables(found):
            table.show()
    return 0


def _demo(args: argparse.Namespace) -> int:
    from . import demo

    try:
        table = demo.run(quick=args.quick, show_progress=not args.json)
    except ModuleNotFoundError as error:
        raise _CannotDo(str(error)) from None
    _print(table, args.json)
    return 1 if demo.failed(table) else 0


def _swap(args: argparse.Namespace) -> int:
    handle = _exchange(_build(args.model), include=args.include, exclude=args.exclude, strict=args.strict)
    _print(handle.report(), args.json)
    return 0


def _explain(args: argparse.Namespace) -> int:
    import torch

    from .explain import explain

    model = _build(args.model)
    dtype = getattr(torch, _DTYPES[args.dtype])
    layout = torch.channels_last if args.channels_last else torch.preserve_format
    if args.channels_last and len(args.input) != 4:
        raise _CannotDo(f"--channels-last needs an input of four sizes, got {len(args.input)}")
    model.to(dtype)
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack this form
    x = torch.randn(args.input, dtype=dtype).to(memory_format=layout)
    if args.swap:
        _exchange(model)
    try:
        table = explain(model, x)
    except (RuntimeError, ValueError, TypeError) as error:
        size = ",".join(map(str, args.input))
        raise _CannotDo(
            f"{args.model} does not run on an input of {size} (--input): {type(error).__name__}: {error}"
        ) from None
    _print(table, args.json)
    return 0


def _bench(args: argparse.Namespace) -> int:
    import torch

    from . import bench

    options: dict[str, Any] = {}
    if hasattr(args, "index"):
        options["index_dtype"] = None if args.index == "none" else getattr(torch, args.index)
    if hasattr(args, "frozen"):
        options["frozen"] = args.frozen
    table = bench.run(
        args.operation,
        args.shapes,
        args.batch,
        getattr(torch, _DTYPES[args.dtype]),
        args.pass_,
        channels_last=args.channels_last,
        threads=args.threads,
        backend=args.backend,
        device=args.device,
        repeat=args.repeat,
        limit=args.limit,
        show_progress=not args.json,
        **options,
    )
    _print(table, args.json)
    return 0


def _count(args: argparse.Namespace) -> int:
    import torch

    from . import kernel_counts

    image = args.n, args.c, args.h, args.w or args.h
    dtype = getattr(torch, _DTYPES[args.dtype])
    if args.operation == "residual_add":
        table = kernel_counts.count_residual_add(image, args.relu, args.mask, args.backward, dtype)
        _print(table, args.json)
        return 0
    s = args.s or args.r
    layout = torch.contiguous_format if args.contiguous else torch.channels_last
    dilation = (args.dilation,) * 2
    if args.operation == "conv2d":
        pad = (args.r // 2, s // 2) if args.padding is None else (args.padding, args.padding)
        table = kernel_counts.count_conv2d(
            *image, args.k, args.r, s, (args.stride,) * 2, (pad[0], pad[0], pad[1], pad[1]), dilation, args.groups,
            dtype, layout,
        )  # fmt: skip
    else:
        stride = (args.r, s) if args.stride is None else (args.stride,) * 2
        index: Any = None if args.index == "none" else getattr(torch, args.index)
        window = (args.r, s), stride, (args.padding,) * 4, dilation
        if args.operation == "max_pool2d":
            table = kernel_counts.count_max_pool2d(image, *window, index, args.relu, args.backward, dtype, layout)
        else:
            table = kernel_counts.count_max_unpool2d(image, *window, index, args.backward, dtype, layout)
    _print(table, args.json)
    return 0


def _report(args: argparse.Namespace) -> int:
    import torch

    from . import kernel_report

    architectures = args.arch or kernel_report.ARCHITECTURES
    for arch in architectures:
        if arch not in kernel_report.ARCHITECTURES:
            known = ", ".join(map(str, kernel_report.ARCHITECTURES))
            raise _CannotDo(f"the kernels are not compiled for sm_{arch}; they are for {known}")
    dtype = getattr(torch, _DTYPES[args.dtype])
    subjects = kernel_report.subjects(args.words, args.shape, args.tile, dtype, args.tf32)
    if not subjects:
        names = ", ".join(subject.name for subject in kernel_report.CATALOGUE)
        raise _CannotDo(f"no kernel has {' or '.join(args.words)} in its name; there are {names}")
    _print(kernel_report.report(subjects, architectures), args.json)
    return 0


def _plan(args: argparse.Namespace) -> int:
    import torch

    from .kernel_plan import plan

    layout = torch.contiguous_format if args.contiguous else torch.channels_last
    dtype = getattr(torch, _DTYPES[args.dtype])
    _print(plan(args.shape, args.device, dtype, tf32=args.tf32, layout=layout, tile=args.tile), args.json)
    return 0


def _print(table: Table, as_json: bool) -> None:
    if as_json:
        print(json.dumps(table.as_dict(), indent=2))
    else:
        table.show()


def _exchange(model: torch.nn.Module, **options: Any) -> Handle:
    """Swap the model; warnings become sentences on stderr, without the place in the code that Python adds."""
    from .swap import swap

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        handle = swap(model, **options)
    for warning in caught:
        print(f"pyconvx: {warning.message}", file=sys.stderr)
    return handle


# Models by name.


def _build(name: str) -> torch.nn.Module:
    """Build the model that a MODEL argument names, with random weights."""
    import torch

    model = _from_factory(*name.split(":", 1)) if ":" in name else _from_collections(name)
    if not isinstance(model, torch.nn.Module):
        raise _CannotDo(f"{name} gave a {type(model).__name__}, expected a torch.nn.Module")
    return model


def _from_factory(module: str, factory: str) -> Any:
    import importlib

    sys.path.insert(0, "")  # the current directory: `python -m` puts it there, the script `pyconvx` does not
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise _CannotDo(f"cannot import {module!r}: {error}; it is looked for here and where Python looks") from None
    finally:
        sys.path.remove("")
    make = getattr(found, factory, None)
    if not callable(make):
        own = (name for name, value in vars(found).items() if getattr(value, "__module__", None) == module)
        names = ", ".join(name for name in own if callable(vars(found)[name]) and not name.startswith("_"))
        raise _CannotDo(f"{module} has no factory {factory!r}; it has: {names or 'none'}")
    return make()


def _from_collections(name: str) -> Any:
    """Build a model of torchvision or, if it has none of that name, of timm or of pyconvx.models."""
    from . import models

    missing = []
    for library in ("torchvision", "timm"):
        try:
            model = _from_torchvision(name) if library == "torchvision" else _from_timm(name)
        except ModuleNotFoundError as error:
            missing.append(f"{library} is not installed" if error.name == library else f"{library}: {error}")
        except RuntimeError as error:  # a torchvision that was built for another torch
            missing.append(f"{library} does not work: {error}")
        else:
            if model is not None:
                return model
            missing.append(f"{library} has no such model")
    if name in models.list_models():
        return models.create_model(name)
    raise _CannotDo(
        f"there is no model {name!r}: {', '.join(missing)}, pyconvx.models has no such model; install one that has "
        f"it, or name a function or class of your own as module:factory"
    )


def _from_torchvision(name: str) -> Any:
    from torchvision import models

    return models.get_model(name, weights=None) if name in models.list_models() else None


def _from_timm(name: str) -> Any:
    import timm

    return timm.create_model(name, pretrained=False) if timm.is_model(name) else None


if __name__ == "__main__":
    sys.exit(main())
