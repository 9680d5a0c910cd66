#include "plan/conv/fprop.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

// A block: 256 threads, each with a vector of channels of 4 pixels in a row.
constexpr int kVectors = 4, kRun = 4, kThreads = 256;

}  // namespace

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
  const bool square = x.r == x.s && x.stride_h == x.stride_w && x.dilation_h == 1 && x.dilation_w == 1;
  const bool constant = square && (x.r == 3 || x.r == 5 || x.r == 7) && x.stride_h <= 2;
  const bool wide = x.k == x.c && args.vector_output;
  const std::string kernel =
      text("pyconvx::fprop_depthwise<", element_name(x.dtype), ", ", constant ? x.r : 0, ", ",
           constant ? x.s : 0, ", ", constant ? x.stride_h : 0, ", ", wide ? "true" : "false", ">");
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, 1, kRun);
    return ceil_div(args.tiles, runs) * args.by_filter_tiles.divisor;
  };
  planner.add_launches(kernel, "conv/fprop_depthwise.cuh", args, blocks, kThreads,
                       static_cast<int>(depthwise_shared_bytes(x)), planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
