// Launches in Python: the submodule pyconvx._C.cuda, which a build without nvcc does not have.
#include "cuda/bind_cuda.h"

#include "cuda/launch.h"

#include <pybind11/stl.h>

namespace py = pybind11;
using namespace py::literals;

namespace pyconvx {

void bind_cuda(py::module_& m) {
  py::module_ cuda =
      m.def_submodule("cuda", "The CUDA kernels that were compiled by nvcc, and their launches.");
  cuda.def("kernel_names", &cuda::kernel_names, "The names of all kernels there are.");
  cuda.def("driver_version", &cuda::driver_version,
           "The newest CUDA version that the driver runs, 13000 for 13.0; 0 without a driver.");
  cuda.def("compiler_version", &cuda::compiler_version, "The CUDA version that compiled the kernels.");
  cuda.def(
      "launch",
      [](const std::string& kernel, std::array<int64_t, 3> grid, int block, int shared_bytes,
         const py::bytes& arguments,
         uint64_t stream) { cuda::launch(kernel, grid, block, shared_bytes, arguments, stream); },
      "kernel"_a, "grid"_a, "block"_a, "shared_bytes"_a, "arguments"_a, "stream"_a,
      "Puts a launch into a stream (its handle as an integer) of the current device. Raises RuntimeError if "
      "there\n"
      "is no such kernel or CUDA refuses.");
}

}  // namespace pyconvx
