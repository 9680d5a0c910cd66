"""What the tests of the emulator share: small PTX kernels around a snippet, and CUDA compiled by whatever is there."""

from __future__ import annotations

import numpy as np
import pytest

emulator = pytest.importorskip("pyconvx.emulator", reason="pyconvx._emulator is not built (PYCONVX_EMULATOR=ON)")

HEADER = ".version 8.6\n.target {target}\n.address_size 64\n"


def ptx_entry(body: str, params: str = "", *, target: str = "sm_80", before: str = "") -> str:
    """A PTX text with one kernel, "k"."""
    return f"{HEADER.format(target=target)}{before}\n.visible .entry k({params})\n{{\n{body}\nret;\n}}\n"


def elementwise(
    code: str, inputs: list[np.ndarray], out_dtype, *, target: str = "sm_80", check: bool = True
) -> np.ndarray:
    """One thread for each element: registers %a, %b, %c, ... hold the inputs, ``code`` leaves its result in %d.

    %p and %q are predicates, %lane is the thread's number in its warp, %t0 to %t3 are b32 registers, %u0 to %u3 b64.
    """
    out = np.zeros(inputs[0].size, out_dtype)
    names = "abcef"[: len(inputs)]
    params = ", ".join(f".param .u64 p{n}" for n in "d" + names)

    def register(name: str, array: np.ndarray) -> str:
        return f".reg .b{8 * max(array.itemsize, 2)} %{name};"

    def load(name: str, array: np.ndarray) -> str:
        size = array.itemsize
        return (
            f"ld.param.u64 %address, [p{name}]; mad.wide.u32 %address, %index, {size}, %address;"
            f" ld.global.b{8 * size} %{name}, [%address];"
        )

    size = out.itemsize
    body = "\n".join(
        [
            ".reg .b64 %address, %u<4>; .reg .b32 %index, %lane, %t<4>; .reg .pred %p, %q;",
            "mov.u32 %t0, %ctaid.x; mov.u32 %t1, %ntid.x; mov.u32 %t2, %tid.x; mad.lo.u32 %index, %t0, %t1, %t2;",
            "and.b32 %lane, %t2, 31;",
            register("d", out),
            *(register(n, a) for n, a in zip(names, inputs, strict=True)),
            *(load(n, a) for n, a in zip(names, inputs, strict=True)),
            code,
            f"ld.param.u64 %address, [pd]; mad.wide.u32 %address, %index, {size}, %address;",
            f"st.global.b{8 * size} [%address], %d;",
        ]
    )
    kernel = emulator.Module(ptx_entry(body, params, target=target)).kernel("k")
    threads = min(out.size, 256)
    assert out.size % threads == 0
    kernel.launch(out.size // threads, threads, [out, *inputs], check=check, workers=1)
    return out


@pytest.fixture(name="elementwise")
def elementwise_fixture():
    return elementwise


@pytest.fixture(name="ptx_entry")
def ptx_entry_fixture():
    return ptx_entry


@pytest.fixture(scope="session")
def cuda(tmp_path_factory):
    """A function: CUDA source -> Module. Skips where there is neither NVRTC nor nvcc."""
    from pyconvx.emulator import compile

    missing = compile.nvrtc_missing(), compile.nvcc_missing()

    def build(source: str, *, target: str = "sm_80", names: tuple[str, ...] = (), **defines: object) -> emulator.Module:
        source = "".join(f"#define {name} {value}\n" for name, value in defines.items()) + source
        if missing[0] is None:
            return emulator.Module(compile.nvrtc(source, target=target, names=names))
        if missing[1] is None and not names:
            return emulator.Module(compile.nvcc(source, target=target))
        pytest.skip(f"no CUDA compiler: {missing[0]}; {missing[1]}")

    return build


@pytest.fixture
def random():
    return np.random.default_rng(0)
