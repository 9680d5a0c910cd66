// The few words that all plans are written with.
#pragma once

#include "problem.h"

#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace pyconvx {

inline int64_t ceil_div(int64_t x, int64_t y) {
  return (x + y - 1) / y;
}

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// An element type as kernels' template arguments spell it.
inline const char* element_name(DType dtype, bool tf32 = false) {
  switch (dtype) {
  case DType::f64:
    return "pyconvx::f64";
  case DType::f32:
    return tf32 ? "pyconvx::tf32" : "pyconvx::f32";
  case DType::bf16:
    return "pyconvx::bf16";
  default:
    return "pyconvx::f16";
  }
}

// Why an operation has no kernel among those that are compiled ahead of time, which are few.
inline std::string not_ahead_of_time(const char* op, const char* what) {
  return text(op, ": nvcc compiles no kernel of it ahead of time for ", what,
              "; use backend cupy, which compiles them when they are needed");
}

template <class Arguments>
std::vector<unsigned char> bytes_of(const Arguments& args) {
  std::vector<unsigned char> bytes(sizeof args);
  std::memcpy(bytes.data(), &args, sizeof args);
  return bytes;
}

constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;  // in a grid

}  // namespace pyconvx
