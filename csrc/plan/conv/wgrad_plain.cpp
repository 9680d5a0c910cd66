#include "plan/conv/wgrad.h"
#include "plan/conv_arguments.h"

namespace pyconvx {
namespace {

Kernel kernel_of(const char* element, bool masked) {
  return {text("pyconvx::wgrad_plain<", element, masked ? ", true>" : ">"), "conv/wgrad_plain.cuh"};
}

}  // namespace

void list_wgrad_plain(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32", "pyconvx::f64"})
    kernels.push_back(kernel_of(element, false));
}

std::string plan_wgrad_plain(WgradPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  if (!planner.has_no_tiles("wgrad_plain")) return planner.no_tile();
  // The kernel's threads walk on by a whole grid until all sums are done.
  const int64_t vectors = x.k * x.r * x.s * ceil_div(planner.group_channels(), 16 / planner.bytes);
  planner.add_wgrad(
      kernel_of(element_name(x.dtype), x.masked), planner.wgrad_arguments(), std::max<int64_t>(x.n, 1), 1,
      256, [&](int64_t images) { return images * x.p() * x.q(); },
      [&](int64_t) { return ceil_div(vectors, 256); }, 256, 0);
  return {};
}

}  // namespace pyconvx
