#include "plan/conv/wgrad.h"
#include "plan/conv_arguments.h"

namespace pyconvx {
namespace {

using Family = std::string (*)(WgradPlanner&);

// Does the number of tiles fit 31 bits?
bool tiles_fit_31_bits(const Conv2dProblem& x) {
  const double columns =
      static_cast<double>(x.r) * static_cast<double>(x.s) * static_cast<double>(x.c / x.groups);
  return columns * static_cast<double>(x.k) / 1024 + static_cast<double>(x.groups) <
         static_cast<double>(kMostPixels) / 1024;
}

// It depends on everything but the batch and the device.
Family family_of(const Conv2dProblem& x, bool tf32) {
  if (x.dtype == DType::f64 || !fits_31_bits(x) || !tiles_fit_31_bits(x)) return plan_wgrad_plain;
  if (x.groups > 1 && x.c == x.groups) return plan_wgrad_depthwise;
  if (has_wgrad_patch(x)) return plan_wgrad_patch;
  if (x.r + x.s > kMostTaps) return plan_wgrad_plain;
  return x.dtype != DType::f32 || tf32 ? plan_wgrad_tensor_core : plan_wgrad_ffma;
}

}  // namespace

std::variant<LaunchPlan, Refusal> plan_conv2d_wgrad(const Conv2dProblem& x, const Device& device,
                                                    const PlanOptions& options) {
  if (x.pass != Pass::wgrad && x.refusal().empty())
    return Refusal{text("conv2d_wgrad: its plan needs a problem of pass wgrad, got one of ", name(x.pass),
                        "; make its plan with plan_conv2d", x.pass == Pass::dgrad ? "_dgrad" : "")};
  if (std::string sentence = device_refusal(x, device, options); !sentence.empty()) return Refusal{sentence};
  // A gradient that is transposed is masked there, else as kernels load it.
  const int64_t pixels = x.p() * x.q();
  Conv2dProblem product = x;
  if (PlanBuilder(x.layout, element_bytes(x.dtype)).is_transposed(x.k, pixels)) product.masked = false;
  WgradPlanner planner(product, device, options);
  if (x.masked && !product.masked)
    planner.mask_to_channels_last("grad_output", x.dtype, x.n, x.k, pixels);
  else
    planner.to_channels_last("grad_output", x.n, x.k, pixels);
  planner.to_channels_last("input", x.n, x.c, x.h * x.w);
  planner.replace_output("grad_weight", x.k, x.c / x.groups, x.r * x.s);
  // The gradients of an empty batch are sums of nothing, which the plain kernel's addition writes.
  const Family family = x.n == 0 ? plan_wgrad_plain : family_of(x, options.tf32);
  if (std::string sentence = family(planner); !sentence.empty()) return Refusal{sentence};
  planner.from_channels_last("grad_weight", x.k, x.c / x.groups, x.r * x.s);
  return planner.plan;
}

}  // namespace pyconvx
