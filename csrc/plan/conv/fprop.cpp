#include "plan/conv/fprop.h"

#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {

std::string TileShape::name() const {
  return text(pixels, "x", filters, "x", depth);
}

std::string TileShape::spelled() const {
  return text("pyconvx::Tile<", pixels, ", ", filters, ", ", depth, ", ", warps_m, ", ", warps_n, ", ",
              stages, ">");
}

int common_vector(int64_t in_group, int element_bytes, int alignment) {
  int vector = std::min(16, alignment);
  while (vector > element_bytes && in_group * element_bytes % vector) vector /= 2;
  return std::max(vector, element_bytes);
}

FpropPlanner::FpropPlanner(const Conv2dProblem& problem, const Device& device, const PlanOptions& options)
    : PlanBuilder(problem.layout, element_bytes(problem.dtype)), x(problem), device(device), options(options),
      bytes(element_bytes(problem.dtype)) {}

Conv2dArguments FpropPlanner::arguments() const {
  Conv2dArguments args = conv2d_arguments(x);
  args.vector_output = common_vector(x.k / x.groups, bytes, options.alignment) == 16;
  if (spread) {
    const auto narrow = [](int64_t size) { return static_cast<int>(size); };
    args.spread = 1;
    args.spread_h = narrow(spread->h), args.spread_w = narrow(spread->w);
    args.first_h = narrow(spread->first_h), args.first_w = narrow(spread->first_w);
    args.step_h = narrow(spread->step_h), args.step_w = narrow(spread->step_w);
  }
  return args;
}

Kernel FpropPlanner::loading(Kernel kernel) const {
  if (masked) kernel.name.insert(kernel.name.size() - 1, ", true");
  return kernel;
}

int64_t FpropPlanner::images_in_31_bits() const {
  return std::clamp<int64_t>(kMostPixels / (x.p() * x.q()), 1, x.n);
}

std::string FpropPlanner::no_tile() const {
  return text("conv2d: ", plan.family, " has no tile ", options.tile, " that fits ", device.name,
              "; leave the tile open, or take one of the plan's candidates");
}

void FpropPlanner::add_partial_sums(int64_t bytes_of_image) {
  partial_bytes_ = bytes_of_image;
  plan.workspaces.push_back({"partial", x.n * bytes_of_image});
}

Conv2dArguments FpropPlanner::of_images(const Conv2dArguments& whole, int64_t images) const {
  Conv2dArguments args = whole;
  args.n = static_cast<int>(images);
  args.pixels = static_cast<int>(std::min(images * x.p() * x.q(), kMostPixels));
  return args;
}

void FpropPlanner::add_launch(const Kernel& kernel, const Conv2dArguments& args, int64_t grid, int block,
                              int shared_bytes, int64_t first_image) {
  const int64_t input = first_image * x.h * x.w * x.c * bytes;
  const int64_t pixels = spread ? spread->h * spread->w : x.p() * x.q();
  const int64_t output = first_image * pixels * x.k * bytes;
  plan.launches.push_back(
      {kernel.name, kernel.header, {grid, 1, 1}, block, shared_bytes, bytes_of(args), {}});
  plan.launches.back().pointers = {
      {buffer(operands.input), offsetof(Conv2dArguments, input), input},
      {buffer(operands.filter), offsetof(Conv2dArguments, filter), operands.filter_skip},
      {buffer(operands.output), offsetof(Conv2dArguments, output), output},
      {operands.bias, offsetof(Conv2dArguments, bias), 0},
      {"scale", offsetof(Conv2dArguments, scale), 0},
      {"shift", offsetof(Conv2dArguments, shift), 0},
      {buffer(operands.residual), offsetof(Conv2dArguments, residual), output},
  };
  if (masked)
    plan.launches.back().pointers.push_back(
        {buffer(operands.relu_output), offsetof(Conv2dArguments, relu_output), input});
  if (partial_bytes_)
    plan.launches.back().pointers.push_back(
        {"partial", offsetof(Conv2dArguments, partial), first_image * partial_bytes_});
  plan.launches.back().constants = {
      {"PYCONVX_C", args.c},
      {"PYCONVX_K", args.k},
      {"PYCONVX_R", args.r},
      {"PYCONVX_S", args.s},
      {"PYCONVX_STRIDE_H", args.stride_h},
      {"PYCONVX_STRIDE_W", args.stride_w},
      {"PYCONVX_DILATION_H", args.dilation_h},
      {"PYCONVX_DILATION_W", args.dilation_w},
      {"PYCONVX_GROUP_CHANNELS", args.group_channels},
      {"PYCONVX_GROUP_FILTERS", args.group_filters},
      {"PYCONVX_REDUCTION", args.reduction},
  };
}

}  // namespace pyconvx
