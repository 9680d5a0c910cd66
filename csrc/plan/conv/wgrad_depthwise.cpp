#include "plan/conv/wgrad.h"
#include "plan/conv_arguments.h"

namespace pyconvx {
namespace {

// A block: 256 threads, 4 vectors of filters by 64 walkers along rows.
constexpr int kVectors = 4, kWalkers = 64;

Kernel kernel_of(const char* element, int64_t taps, int64_t stride, bool wide, const std::string& flags) {
  return {text("pyconvx::wgrad_depthwise<", element, ", ", taps, ", ", stride, ", ", wide ? "true" : "false",
               ", ", flags, ">"),
          "conv/wgrad_depthwise.cuh"};
}

}  // namespace

void list_wgrad_depthwise(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32"}) {
    for (int stride : {1, 2}) kernels.push_back(kernel_of(element, 3, stride, true, "true"));
    for (bool wide : {true, false}) kernels.push_back(kernel_of(element, 1, 0, wide, "true"));
  }
}

std::string plan_wgrad_depthwise(WgradPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  if (!planner.has_no_tiles("wgrad_depthwise")) return planner.no_tile();
  const bool wide = x.k == x.c && common_vector(x.k, planner.bytes, planner.options.alignment) == 16;
  bool constant = (x.s == 3 || x.s == 5 || x.s == 7) && x.stride_w <= 2 && x.dilation_w == 1;
  if (planner.options.ahead_of_time && (!wide || x.s != 3)) constant = false;
  const int64_t taps = constant ? x.s : 1, stride = constant ? x.stride_w : 0;
  WgradArguments args = planner.wgrad_arguments();
  const int64_t tiles = ceil_div(x.k, kVectors * (16 / planner.bytes)),
                groups_of_taps = x.r * ceil_div(x.s, taps);
  args.by_column_tiles = division_by(static_cast<unsigned>(tiles));
  args.by_tiles = division_by(static_cast<unsigned>(tiles * groups_of_taps));
  planner.add_wgrad(
      kernel_of(element_name(x.dtype), taps, stride, wide, planner.flags()), args,
      planner.images_in_31_bits(), kWalkers, kWalkers, [&](int64_t images) { return images * x.p(); },
      [&](int64_t) { return tiles * groups_of_taps; }, 256, 0);
  return {};
}

}  // namespace pyconvx
