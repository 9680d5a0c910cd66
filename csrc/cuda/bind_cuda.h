#pragma once

#include <pybind11/pybind11.h>

namespace pyconvx {

void bind_cuda(pybind11::module_&);

}  // namespace pyconvx
