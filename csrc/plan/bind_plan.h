#pragma once

#include <pybind11/pybind11.h>

namespace pyconvx {

void bind_plan(pybind11::module_&);  // needs the problems to be bound already

}  // namespace pyconvx
