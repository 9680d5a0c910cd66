#include "plan/conv/fprop.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

// Which family runs a problem depends on everything but the batch and the device.
using Family = std::string (*)(FpropPlanner&);

Family family_of(const Conv2dProblem& x, bool tf32) {
  if (x.dtype == DType::f64 || !fits_31_bits(x)) return plan_fprop_plain;
  if (x.groups > 1 && x.c == x.groups)
    return depthwise_shared_bytes(x) <= kSharedByDefault ? plan_fprop_depthwise : plan_fprop_plain;
  const bool tensor_cores = x.dtype != DType::f32 || tf32;
  // Patches cover the image at least, but a class of dgrad's may leave out what is at its edges.
  const bool covers_image = std::min({x.pad_top, x.pad_bottom, x.pad_left, x.pad_right}) >= 0;
  if (tensor_cores && x.groups == 1 && x.c <= 4 && covers_image &&
      few_channels_shared_bytes(x) <= kSharedEverywhere)
    return plan_fprop_few_channels;
  if (covers_image && runs_small_map(x, tf32)) return plan_fprop_small_map;
  if (covers_image && runs_resident_patch(x, tf32)) return plan_fprop_resident_patch;
  if (x.r + x.s > kMostTaps) return plan_fprop_plain;
  return tensor_cores ? plan_fprop_tensor_core : plan_fprop_ffma;
}

std::string refusal(const Conv2dProblem& x, const Device& device, const PlanOptions& options) {
  if (x.pass != Pass::fprop && x.refusal().empty())
    return text("conv2d: a plan for fprop needs a problem of that pass, got one of ", name(x.pass),
                "; make its plan with plan_conv2d_", name(x.pass));
  return device_refusal(x, device, options);
}

}  // namespace

bool fits_31_bits(const Conv2dProblem& x) {
  const auto below = [](double size) { return size < static_cast<double>(kIndexLimit); };
  const auto number = [](int64_t size) { return static_cast<double>(size); };
  const double pixel = number(x.c) * element_bytes(x.dtype);  // in bytes
  const double row = number(x.w) * pixel;
  const double window =
      number(x.r - 1) * number(x.dilation_h) * row + number(x.s) * number(x.dilation_w) * pixel;
  return number(x.p()) * number(x.q()) < static_cast<double>(kMostPixels) && below(window) &&
         below(number(x.dilation_h) * row) &&
         below(number(x.r) * number(x.s) * number(x.c / x.groups) * element_bytes(x.dtype) + 1024);
}

std::string device_refusal(const Conv2dProblem& x, const Device& device, const PlanOptions& options) {
  if (std::string sentence = x.refusal(); !sentence.empty()) return sentence;
  const int bytes = element_bytes(x.dtype);
  if (options.alignment < bytes || (options.alignment & (options.alignment - 1)))
    return text("conv2d: the alignment must be a power of two and at least an element's ", bytes,
                " bytes, got ", options.alignment, "; pass the largest that all addresses have");
  if (device.capability < 80)
    return text("conv2d: the CUDA kernels use cp.async and m16n8k16, which need compute capability 8.0, and ",
                device.name, " has ", device.capability / 10, ".", device.capability % 10,
                "; use another backend on it");
  if (x.masked && options.ahead_of_time)
    return text("conv2d: nvcc compiles no kernel that masks a gradient ahead of time; mask it with "
                "relu_backward, or use backend cupy, which compiles kernels when they are needed");
  return size_limit(x);
}

std::string plan_fprop(FpropPlanner& planner) {
  return family_of(planner.x, planner.options.tf32)(planner);
}

std::variant<LaunchPlan, Refusal> plan_conv2d(const Conv2dProblem& x, const Device& device,
                                              const PlanOptions& options) {
  if (std::string sentence = refusal(x, device, options); !sentence.empty()) return Refusal{sentence};
  FpropPlanner planner(x, device, options);
  if (x.n == 0) return planner.plan;
  planner.to_channels_last("input", x.n, x.c, x.h * x.w);
  planner.to_channels_last("filter", x.k, x.c / x.groups, x.r * x.s);
  if (x.residual) planner.to_channels_last("residual", x.n, x.k, x.p() * x.q());
  planner.replace_output("output", x.n, x.k, x.p() * x.q());
  if (std::string sentence = plan_fprop(planner); !sentence.empty()) return Refusal{sentence};
  planner.from_channels_last("output", x.n, x.k, x.p() * x.q());
  return planner.plan;
}

}  // namespace pyconvx
