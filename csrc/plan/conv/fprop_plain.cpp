#include "plan/conv/fprop.h"

#include <algorithm>

namespace pyconvx {
namespace {

Kernel kernel_of(const char* element) {
  return {text("pyconvx::fprop_plain<", element, ">"), "conv/fprop_plain.cuh"};
}

}  // namespace

void list_fprop_plain(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32", "pyconvx::f64"})
    kernels.push_back(kernel_of(element));
}

std::string plan_fprop_plain(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  planner.plan.family = "fprop_plain";
  // The kernel's threads walk on by a whole grid until all outputs are done.
  const auto blocks = [&](const Conv2dArguments&) {
    const int64_t vectors = x.groups * ceil_div(x.k / x.groups, 16 / planner.bytes);
    return std::min(ceil_div(x.n * x.p() * x.q() * vectors, 256), kMostBlocks);
  };
  planner.add_launches(planner.loading(kernel_of(element_name(x.dtype))), planner.arguments(), blocks, 256, 0,
                       x.n);
  return {};
}

}  // namespace pyconvx
