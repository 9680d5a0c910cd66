"""One source, several compilers: nvcc ahead of time, NVRTC for all problems, NVRTC for the exact problem. All must give
the same bits, and exact integers."""

from __future__ import annotations

import itertools
import random
import subprocess

import pytest
import torch

from kernels.convolution import Case
from kernels.harness import DTYPES, emulator, run
from pyconvx import _C
from pyconvx.backends._compiled import kernels_folder
from pyconvx.emulator import compile

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
SAME = (1, 1, 1, 1)

CASES = {
    "3x3": dict(n=1, c=40, h=9, w=8, k=40, r=3, s=3, padding=SAME, dtype=F16),
    "resident patch": dict(n=1, c=64, h=17, w=18, k=40, r=3, s=3, padding=SAME, dtype=F16),
    "small map": dict(n=2, c=264, h=7, w=7, k=40, r=3, s=3, padding=SAME, dtype=F16),
    "1x1": dict(n=2, c=72, h=5, w=7, k=40, r=1, s=1, dtype=BF16),
    "1x7": dict(n=1, c=24, h=9, w=9, k=32, r=1, s=7, padding=(0, 0, 3, 3), dtype=F16),
    "any window": dict(n=1, c=24, h=9, w=8, k=40, r=2, s=4, padding=(1, 0, 2, 1), stride=(2, 1), dtype=F16),
    "odd channels": dict(n=1, c=13, h=8, w=9, k=11, r=3, s=3, padding=SAME, dtype=F16),
    "groups": dict(n=1, c=48, h=6, w=8, k=24, r=3, s=3, padding=SAME, dtype=BF16, groups=3),
    "resident patch, f32": dict(n=1, c=32, h=17, w=18, k=40, r=3, s=3, padding=SAME, dtype=F32),
    "two taps": dict(n=1, c=64, h=17, w=18, k=24, r=2, s=1, dtype=F16),
    "tf32": dict(n=1, c=40, h=9, w=8, k=40, r=3, s=3, padding=SAME, dtype=F32, tf32=True),
    "ffma": dict(n=1, c=40, h=9, w=8, k=40, r=3, s=3, padding=SAME, dtype=F32),
    "few channels": dict(n=1, c=3, h=21, w=20, k=40, r=7, s=7, padding=(3, 3, 3, 3), stride=(2, 2), dtype=F16),
    "stem": dict(n=1, c=3, h=21, w=21, k=40, r=5, s=5, padding=(2, 2, 2, 2), dtype=BF16),
    "depthwise": dict(n=1, c=40, h=9, w=8, k=40, r=3, s=3, padding=SAME, groups=40, dtype=F16),
    "plain": dict(n=1, c=10, h=6, w=5, k=9, r=3, s=3, padding=SAME, dtype=F64),
    "NCHW": dict(n=1, c=16, h=6, w=5, k=24, r=3, s=3, padding=SAME, dtype=F16, layout="nchw"),
}


def run_case(case, plan, **options):
    tensors = case.buffers()
    run(plan, tensors, **options)
    output = tensors["output"]
    return output.permute(0, 3, 1, 2) if case.layout == "nhwc" else output


@pytest.mark.parametrize(
    "name, target",
    [
        *[(name, "sm_80") for name in CASES],
        *[(name, target) for target in ("sm_90", "sm_120") for name in ("3x3", "ffma", "depthwise")],
    ],
)
def test_kernels_for_the_exact_problem(name, target):
    """What backend cupy compiles: its source and its options, for three generations of chips."""
    case = Case(**CASES[name], bias=True, relu=True)
    plan = case.plan()
    output = run_case(case, plan, exact=True, target=target)
    assert torch.equal(output, case.expected().to(case.dtype)), case.difference(output, case.expected(), plan)


@pytest.mark.parametrize("name", ["3x3", "tf32", "ffma", "few channels", "depthwise"])
def test_constants_do_not_change_a_bit(name):
    case = Case(**CASES[name], integers=False)
    plan = case.plan()
    assert torch.equal(run_case(case, plan), run_case(case, plan, exact=True))


def test_constants_leave_less_to_do():
    """Otherwise compiling for the exact problem would be pointless."""
    case = Case(**CASES["any window"])
    plan = case.plan()
    counted = [
        sum(launch.counts.total.warp_instructions for launch in run(plan, case.buffers(), exact=exact))
        for exact in (False, True)
    ]
    assert counted[1] < 0.9 * counted[0]


# Ahead of time.


def names(plan):
    return {step.kernel for step in plan.launches}


PASSES = {
    _C.Pass.fprop: _C.plan_conv2d,
    _C.Pass.dgrad: _C.plan_conv2d_dgrad,
    _C.Pass.wgrad: _C.plan_conv2d_wgrad,
}


def test_plans_ahead_of_time_keep_to_what_is_compiled():
    compiled = {kernel.name for kernel in _C.ahead_of_time_kernels() if kernel.header.startswith("conv/")}
    draw = random.Random(0)
    seen = set()
    for dtype, tf32 in [(F16, False), (BF16, False), (F32, False), (F32, True), (F64, False)]:
        for c, (r, s), stride in itertools.product(
            (1, 3, 4, 13, 22, 36, 64, 640),
            ((1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (2, 4), (20, 20)),
            (1, 2, 19),
        ):
            fields = dict(
                n=draw.choice([1, 8, 128]), c=c, h=draw.choice([24, 20]), w=20, k=c * draw.choice([1, 2]), r=r, s=s,
                groups=draw.choice([1, 1, c]), stride=(stride, stride), padding=draw.choice([(0, 0, 0, 0), SAME]),
                dtype=DTYPES[dtype], layout=draw.choice([_C.Layout.nhwc, _C.Layout.nchw]), bias=draw.random() < 0.5,
            )  # fmt: skip
            for device, (pass_, planner) in itertools.product(("a100", "rtx4090", "h100"), PASSES.items()):
                problem = _C.Conv2dProblem(**fields, pass_=pass_)
                alignment = draw.choice([16, 8])
                plan = planner(problem, device, tf32=tf32, alignment=alignment, ahead_of_time=True)
                assert names(plan) <= compiled, problem
                seen |= names(plan)
    families = {name.partition("<")[0] for name in compiled}
    assert {name.partition("<")[0] for name in seen} == families


@pytest.mark.parametrize(
    "name",
    [
        *(
            "3x3",
            "resident patch",
            "resident patch, f32",
            "two taps",
            "small map",
            "any window",
            "odd channels",
            "tf32",
        ),
        *("few channels", "stem", "depthwise"),
    ],
)
def test_kernels_ahead_of_time_give_the_same_bits(name):
    case = Case(**CASES[name], integers=False, bias=True)
    general, special = case.plan(ahead_of_time=True), case.plan()
    assert names(general) <= {kernel.name for kernel in _C.ahead_of_time_kernels()}
    assert torch.equal(run_case(case, general), run_case(case, special))


@pytest.mark.skipif(compile.nvcc_missing() is not None, reason=str(compile.nvcc_missing()))
def test_nvccs_ptx_is_exact():
    """nvcc's PTX of the kernels that a plan ahead of time launches, several in one file, as a build compiles them."""
    names = (
        "3x3",
        "resident patch",
        "resident patch, f32",
        "small map",
        "ffma",
        "few channels",
        "depthwise",
        "plain",
        "NCHW",
    )
    cases = [Case(**CASES[name]) for name in names]
    plans = [case.plan(ahead_of_time=True) for case in cases]
    steps = {step.kernel: step for plan in plans for step in plan.launches}
    source = "".join(f'#include "{header}"\n' for header in sorted({step.header for step in steps.values()}))
    source += "const void* const kernels[] = {\n"
    source += "".join(f"    reinterpret_cast<const void*>(&{kernel}),\n" for kernel in steps)
    module = emulator.Module(compile.nvcc(source + "};\n", include=[kernels_folder()]))
    spelled = subprocess.run(["c++filt"], input="\n".join(module.kernels), capture_output=True, text=True, check=True)

    texts = [text.removeprefix("void ").partition("(")[0].replace(" ", "") for text in spelled.stdout.splitlines()]
    mangled = dict(zip(texts, module.kernels, strict=True))

    def kernel(step):  # whose last arguments a plan may leave out, and c++filt spells
        name = step.kernel.replace("pyconvx::f64", "double").replace("pyconvx::f32", "float").replace(" ", "")
        return module.kernel(mangled[min((text for text in texts if text.startswith(name[:-1])), key=len)])

    for case, plan in zip(cases, plans, strict=True):
        output = run_case(case, plan, kernel=kernel)
        assert torch.equal(output, case.expected().to(case.dtype)), case.difference(output, case.expected(), plan)
