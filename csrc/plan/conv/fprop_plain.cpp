#include "plan/conv/fprop.h"

#include <algorithm>

namespace pyconvx {

std::string plan_fprop_plain(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  planner.plan.family = "fprop_plain";
  // The kernel's threads walk on by a whole grid until all outputs are done.
  const auto blocks = [&](const Conv2dArguments&) {
    const int64_t vectors = x.groups * ceil_div(x.k / x.groups, 16 / planner.bytes);
    return std::min(ceil_div(x.n * x.p() * x.q() * vectors, 256), kMostBlocks);
  };
  planner.add_launches(text("pyconvx::fprop_plain<", element_name(x.dtype), ">"), "conv/fprop_plain.cuh",
                       planner.arguments(), blocks, 256, 0, x.n);
  return {};
}

}  // namespace pyconvx
