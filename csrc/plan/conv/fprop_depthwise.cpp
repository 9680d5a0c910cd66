#include "plan/conv/fprop.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

// A block: 256 threads, each with a vector of channels of 4 pixels in a row.
constexpr int kVectors = 4, kRun = 4, kThreads = 256;

// The window and stride that the kernel has as constants: {R and S, stride}, or zeros.
std::array<int64_t, 2> constant_window(const Conv2dProblem& x) {
  const bool square = x.r == x.s && x.stride_h == x.stride_w && x.dilation_h == 1 && x.dilation_w == 1;
  const bool constant = square && (x.r == 3 || x.r == 5 || x.r == 7) && x.stride_h <= 2;
  return constant ? std::array<int64_t, 2>{x.r, x.stride_h} : std::array<int64_t, 2>{0, 0};
}

Kernel kernel_of(const char* element, std::array<int64_t, 2> window, bool wide) {
  return {text("pyconvx::fprop_depthwise<", element, ", ", window[0], ", ", window[0], ", ", window[1], ", ",
               wide ? "true" : "false", ">"),
          "conv/fprop_depthwise.cuh"};
}

}  // namespace

// Ahead of time: 3x3 for whole vectors of channels, and any window.
void list_fprop_depthwise(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32"}) {
    for (int64_t stride : {1, 2}) kernels.push_back(kernel_of(element, {3, stride}, true));
    for (bool wide : {false, true}) kernels.push_back(kernel_of(element, {0, 0}, wide));
  }
}

int64_t depthwise_shared_bytes(const Conv2dProblem& x) {
  return std::min<int64_t>(x.r * x.s, 1 << 24) * kVectors * (16 / element_bytes(x.dtype)) * 4;
}

std::string plan_fprop_depthwise(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  planner.plan.family = "fprop_depthwise";
  Conv2dArguments args = planner.arguments();
  const int channels = kVectors * (16 / planner.bytes), runs = kThreads / kVectors;
  args.vector_output = common_vector(x.k, planner.bytes, planner.options.alignment) == 16;
  args.by_filter_tiles = division_by(static_cast<unsigned>(ceil_div(x.k, channels)));
  const bool wide = x.k == x.c && args.vector_output;
  std::array<int64_t, 2> window = constant_window(x);
  if (planner.options.ahead_of_time && (!wide || window[0] != 3)) window = {0, 0};
  const Kernel kernel = kernel_of(element_name(x.dtype), window, wide);
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, 1, kRun);
    return ceil_div(args.tiles, runs) * args.by_filter_tiles.divisor;
  };
  planner.add_launches(kernel, args, blocks, kThreads, static_cast<int>(depthwise_shared_bytes(x)),
                       planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
