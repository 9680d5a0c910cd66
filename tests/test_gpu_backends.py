"""The backends that launch on a GPU, as far as they can be tested without one: which kernels they put into which
stream, with which grid, block, shared memory and arguments. Tensors are fake, and the launcher only writes down."""

import contextlib
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from checking import LAYOUTS
from torch._subclasses import FakeTensorMode

from pyconvx import _C, BackendRefusal, backends
from pyconvx._problem import DTYPES, ElementwiseProblem
from pyconvx._problem import LAYOUTS as LAYOUT_NAMES
from pyconvx.backends._compiled import kernels_folder
from pyconvx.backends.cuda import Cuda
from pyconvx.backends.cupy import Cupy

A100 = dict(name="A100", major=8, minor=0, multi_processor_count=108, shared_memory_per_block_optin=163 << 10,
            shared_memory_per_multiprocessor=164 << 10, max_threads_per_multi_processor=2048)  # fmt: skip
T4 = dict(name="T4", major=7, minor=5, multi_processor_count=40, shared_memory_per_block_optin=64 << 10,
          shared_memory_per_multiprocessor=64 << 10, max_threads_per_multi_processor=1024)  # fmt: skip
GEOMETRY = ((1, 1), (1, 1, 1, 1), (1, 1), 1, "none")


def recording(backend, gpus=(A100, T4)):
    """The backend on machines that have these GPUs, with a launcher that only writes down."""

    class Recording(backend):
        def __init__(self):
            super().__init__()
            self.launched, self.places, self.entered = [], {}, None

        def unavailable(self):
            return None

        def properties(self, device):
            return types.SimpleNamespace(**gpus[device.index])

        def stream(self, device):
            assert self.entered == device
            return 0xABC0 + device.index

        @contextlib.contextmanager
        def current(self, device):
            self.entered = device
            yield
            self.entered = None

        def address(self, tensor):
            with warnings.catch_warnings(action="ignore"):
                storage = tensor.untyped_storage()._cdata
            start = self.places.setdefault(storage, (len(self.places) + 1) << 32)
            return start + tensor.storage_offset() * tensor.itemsize

        def launch(self, step, arguments, device, stream):
            self.launched.append((step, arguments, device, stream))

    return Recording()


def problem(dtype=torch.float16, layout=torch.channels_last, **changes):
    sizes = dict(n=2, c=64, h=14, w=14, k=96, r=3, s=3, padding=(1, 1, 1, 1)) | changes
    return _C.Conv2dProblem(**sizes, dtype=DTYPES[dtype], layout=LAYOUT_NAMES[layout])


def convolve(backend, dtype=torch.float16, layout=torch.channels_last, device="cuda:0", offset=0, **changes):
    """Run conv2d on fake tensors; return the plan's launches and the operands by name."""
    x = problem(dtype, layout, **changes)

    def tensor(*shape):
        n, c, h, w = shape
        strides = (h * w * c, 1, w * c, c) if layout is torch.channels_last else (c * h * w, h * w, w, 1)
        whole = torch.empty(n * c * h * w + offset, dtype=dtype, device=device)
        return whole.as_strided(shape, strides, offset)

    with FakeTensorMode():
        input, weight = tensor(x.n, x.c, x.h, x.w), tensor(x.k, x.c // x.groups, x.r, x.s)
        bias = torch.empty(x.k, dtype=dtype, device=device) if x.bias else None
        output = backend.conv2d(x, input, weight, bias, None, *GEOMETRY)
    return backend.launched, {"input": input, "filter": weight, "bias": bias, "output": output}


def address_in(step, arguments, buffer):
    at = next(slot.at for slot in step.pointers if slot.buffer == buffer)
    return int.from_bytes(arguments[at : at + 8], "little")


# What is launched.


@pytest.mark.parametrize("backend", [Cuda, Cupy])
def test_a_convolution_is_one_launch_in_the_current_stream(backend):
    gpu = recording(backend)
    launched, tensors = convolve(gpu, bias=True)
    ((step, arguments, device, stream),) = launched
    assert device == torch.device("cuda:0")
    assert stream == 0xABC0
    assert tensors["output"].shape == (2, 96, 14, 14)
    assert tensors["output"].device == device
    assert tensors["output"].is_contiguous(memory_format=torch.channels_last)
    for name, tensor in tensors.items():
        assert address_in(step, arguments, name) == gpu.address(tensor)
    assert address_in(step, arguments, "residual") == 0
    expected = _C.plan_conv2d(problem(bias=True), "a100", **gpu.plan_options).launches[0]
    assert (step.kernel, step.grid, step.block, step.shared_bytes) == (
        expected.kernel, expected.grid, expected.block, expected.shared_bytes,
    )  # fmt: skip


@pytest.mark.parametrize("backend", [Cuda, Cupy])
def test_contiguous_tensors_are_transposed_in_workspaces_of_their_own(backend):
    gpu = recording(backend)
    launched, tensors = convolve(gpu, layout=torch.contiguous_format)
    kernels = [step.kernel.partition("<")[0] for step, *_ in launched]
    assert kernels == ["pyconvx::transpose", "pyconvx::transpose", kernels[2], "pyconvx::transpose"]
    assert {stream for *_, stream in launched} == {0xABC0}
    (_, first, *_), (_, second, *_), (step, middle, *_), (last, end, *_) = launched
    assert int.from_bytes(first[:8], "little") == gpu.address(tensors["input"])
    assert int.from_bytes(first[8:16], "little") == address_in(step, middle, "nhwc_input")
    assert int.from_bytes(second[8:16], "little") == address_in(step, middle, "nhwc_filter")
    assert address_in(last, end, "nhwc_output") == address_in(step, middle, "nhwc_output")
    assert address_in(last, end, "output") == gpu.address(tensors["output"])
    assert tensors["output"].is_contiguous()


@pytest.mark.parametrize("backend", [Cuda, Cupy])
def test_channels_last_tensors_are_not_copied(backend):
    gpu = recording(backend)
    convolve(gpu)
    assert len(gpu.places) == 3


def test_an_empty_batch_launches_nothing():
    gpu = recording(Cuda)
    launched, tensors = convolve(gpu, n=0)
    assert launched == []
    assert tensors["output"].shape == (0, 96, 14, 14)


def test_a_misaligned_tensor_gets_a_kernel_that_reads_it():
    aligned, _ = convolve(recording(Cupy))
    shifted, _ = convolve(recording(Cupy), offset=2)
    assert aligned[0][0].kernel.endswith(", 16>")
    assert shifted[0][0].kernel.endswith(", 4>")


def test_a_misaligned_sum_is_copied_to_where_it_can_be_read_by_16_bytes():
    """Those kernels that were compiled when pyconvx was built read no other way; the others do."""
    x = ElementwiseProblem("residual_add", (1000,), DTYPES[torch.float16], _C.Activation.relu)
    for backend, vector in ((Cuda, 8), (Cupy, 1)):
        gpu = recording(backend)
        with FakeTensorMode():
            whole = (torch.empty(1001, dtype=torch.float16, device="cuda:0") for _ in range(2))
            shifted, residual = (tensor.as_strided((1000,), (1,), i) for i, tensor in zip((1, 0), whole, strict=True))
            gpu.residual_add(x, shifted, residual, "relu")
        ((step, arguments, *_),) = gpu.launched
        assert step.kernel == f"pyconvx::residual_add<pyconvx::f16, {vector}, true, false>"
        assert (address_in(step, arguments, "x") == gpu.address(shifted)) == (backend is Cupy)
        assert address_in(step, arguments, "residual") == gpu.address(residual)


def test_torchs_switch_decides_over_tf32():
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        (exact, *_), *_ = convolve(recording(Cuda), torch.float32)[0]
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        (fast, *_), *_ = convolve(recording(Cuda), torch.float32)[0]
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    assert "tf32" not in exact.kernel
    assert "tf32" in fast.kernel


# Which backend it is.


@pytest.fixture
def gpus(monkeypatch):
    """Both backends as on a machine with an A100 and a T4, and all kernels compiled."""
    names = frozenset(kernel.name for kernel in _C.ahead_of_time_kernels())
    monkeypatch.setattr("pyconvx.backends.cuda._kernel_names", lambda: names)
    both = recording(Cuda), recording(Cupy)
    for backend in both:
        monkeypatch.setitem(backends._registry, backend.name, backend)
    backends.force(None)
    yield both
    backends.force(None)


def test_cuda_tensors_stay_with_torch_until_a_gpu_has_run_the_kernels(gpus):
    chosen, refusals = backends.choose("conv2d", problem(), torch.device("cuda:0"))
    assert chosen.name == "aten"
    for name in ("cuda", "cupy"):
        assert "have not been run on a GPU yet" in refusals[name]
        assert f"PYCONVX_BACKEND={name}" in refusals[name]


@pytest.mark.parametrize("name", ["cuda", "cupy"])
def test_by_request_they_run(gpus, name):
    with backends.backend(name):
        chosen, refusals = backends.choose("conv2d", problem(), torch.device("cuda:0"))
    assert (chosen.name, refusals) == (name, {})


@pytest.mark.parametrize("name", ["cuda", "cupy"])
def test_each_device_is_asked_for_itself(gpus, name):
    with backends.backend(name), pytest.raises(BackendRefusal, match=r"compute capability 8\.0, and T4 has 7\.5"):
        backends.choose("conv2d", problem(), torch.device("cuda:1"))


def test_a_kernel_that_was_not_compiled_is_refused_with_its_name(gpus, monkeypatch):
    monkeypatch.setattr("pyconvx.backends.cuda._kernel_names", frozenset)
    with backends.backend("cuda"), pytest.raises(BackendRefusal, match=r"fprop_\w+<.*> was not compiled .* cupy"):
        backends.choose("conv2d", problem(), torch.device("cuda:0"))


def test_what_is_missing_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setattr("pyconvx.backends.cuda._KERNELS", None)
    assert "there was no nvcc" in Cuda().unavailable()
    if torch.version.cuda is None:
        monkeypatch.setattr("pyconvx.backends.cuda._KERNELS", object())
        assert "built without CUDA" in Cuda().unavailable()
    monkeypatch.setattr("pyconvx.backends.cupy.find_spec", lambda name: None)
    assert "pip install 'pyconvx[cuda]'" in Cupy().unavailable()


def test_a_driver_too_old_is_said_in_a_sentence(monkeypatch):
    kernels = types.SimpleNamespace(driver_version=lambda: 12080, compiler_version=lambda: 13000)
    monkeypatch.setattr("pyconvx.backends.cuda._KERNELS", kernels)
    monkeypatch.setattr("pyconvx.backends.cuda.no_device", lambda: None)
    assert "compiled by CUDA 13.0, and this driver runs CUDA 12.8 at most" in Cuda().unavailable()


# What was compiled.


def test_nvccs_module_has_what_plans_ahead_of_time_launch():
    if not hasattr(_C, "cuda"):
        pytest.skip("this build has no CUDA kernels: there was no nvcc")
    assert sorted(_C.cuda.kernel_names()) == sorted(kernel.name for kernel in _C.ahead_of_time_kernels())


def test_a_launch_without_a_driver_is_refused_in_a_sentence():
    if not hasattr(_C, "cuda"):
        pytest.skip("this build has no CUDA kernels: there was no nvcc")
    with pytest.raises(RuntimeError, match="fprop_new was not compiled when pyconvx was built; use backend cupy"):
        _C.cuda.launch("fprop_new", (1, 1, 1), 32, 0, b"", 0)
    if _C.cuda.driver_version() == 0:
        plan = _C.plan_conv2d(problem(), "a100", ahead_of_time=True)
        (step,) = plan.launches
        with pytest.raises(RuntimeError, match=r"backend cuda: CUDA refused .* pyconvx::fprop.*"):
            _C.cuda.launch(step.kernel, step.grid, step.block, step.shared_bytes, step.arguments(), 0)


# What CuPy is asked for.


class FakeCupy(types.ModuleType):
    """As much of CuPy as the backend uses; kernels write down their calls."""

    def __init__(self):
        super().__init__("cupy")
        self.modules, self.calls, self.stream = [], [], None
        fake = self

        class RawModule:
            def __init__(self, code, options, name_expressions):
                fake.modules.append((code, options, name_expressions))

            def get_function(self, name):
                return Kernel(name)

        class Kernel:
            def __init__(self, name):
                self.name, self.max_dynamic_shared_size_bytes = name, 48 << 10

            def __call__(self, grid, block, args, *, shared_mem):
                assert shared_mem <= self.max_dynamic_shared_size_bytes
                fake.calls.append((self.name, grid, block, args, shared_mem, fake.stream))

        class ExternalStream:
            def __init__(self, pointer, device_id):
                self.pointer = pointer, device_id

            def __enter__(self):
                fake.stream = self.pointer

            def __exit__(self, *_):
                fake.stream = None

        self.RawModule = RawModule
        self.cuda = types.SimpleNamespace(ExternalStream=ExternalStream)


def test_cupy_compiles_for_the_exact_problem_once_and_launches(monkeypatch):
    cupy = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    gpu = recording(Cupy)
    gpu.launch = types.MethodType(Cupy.launch, gpu)
    for _ in range(2):
        convolve(gpu, c=64, k=96)
    ((code, options, names),) = cupy.modules
    step = gpu.plan("conv2d", problem(), torch.device("cuda:0")).launches[0]
    assert names == (step.kernel,)
    assert f'#include "{step.header}"' in code
    assert {"-std=c++17", f"-I{kernels_folder()}", "-DPYCONVX_C=64", "-DPYCONVX_K=96", "-DPYCONVX_R=3"} <= set(options)
    assert len(cupy.calls) == 2
    name, grid, block, (parameter,), shared, stream = cupy.calls[0]
    assert (name, grid, block, shared) == (step.kernel, tuple(step.grid), (step.block,), step.shared_bytes)
    assert isinstance(parameter, np.ndarray)
    assert parameter.size == 1
    assert parameter.nbytes == len(step.arguments())
    assert stream == (0xABC0, 0)


def test_cupys_source_changes_with_the_headers():
    """CuPy remembers what it compiled by source and options alone."""
    from pyconvx.backends import cupy

    cupy._headers_hash.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy, "kernels_folder", lambda: kernels_folder() / "conv")
        other = cupy._headers_hash()
    cupy._headers_hash.cache_clear()
    assert cupy._headers_hash() != other


def test_layouts_of_the_tests_are_those_of_the_library():
    assert set(LAYOUTS.values()) == set(LAYOUT_NAMES)
