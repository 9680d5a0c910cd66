// Element-wise kernels: how many elements a thread accesses at once.
#include "../../../kernels/cuda/residual/arguments.cuh"
#include "plan/conv_arguments.h"
#include "plan/residual/elementwise.h"
#include "plan/words.h"

#include <algorithm>

namespace pyconvx {
namespace {

constexpr int64_t kElementsPerBlock = 32 * 256;

// Elements of a launch, which counts them in 31 bits: whole blocks, and a block's less than there could be.
constexpr int64_t kMostElements = (int64_t{1} << 31) - 2 * kElementsPerBlock;

std::variant<LaunchPlan, Refusal> plan_elementwise(const char* op, const char* kernel,
                                                   const ElementwiseProblem& x, const PlanOptions& options,
                                                   const std::string& template_arguments,
                                                   const std::array<std::string, 4>& buffers) {
  const int bytes = element_bytes(x.dtype);
  if (options.alignment < bytes || (options.alignment & (options.alignment - 1)))
    return Refusal{text(op, ": the alignment must be a power of two and at least an element's ", bytes,
                        " bytes, got ", options.alignment, "; pass the largest that all addresses have")};
  if (options.ahead_of_time && x.dtype == DType::f64) return Refusal{not_ahead_of_time(op, "float64")};
  if (options.ahead_of_time && options.alignment < 16)
    return Refusal{not_ahead_of_time(op, "addresses that are no multiples of 16")};
  LaunchPlan plan;
  plan.family = kernel;
  add_elementwise(plan.launches, kernel, x, options.alignment, template_arguments, buffers);
  return plan;
}

}  // namespace

void add_elementwise(std::vector<Launch>& launches, const char* kernel, const ElementwiseProblem& x,
                     int alignment, const std::string& template_arguments,
                     const std::array<std::string, 4>& buffers) {
  const int bytes = element_bytes(x.dtype);
  const std::array<size_t, 4> places = {
      offsetof(ElementwiseArguments, x), offsetof(ElementwiseArguments, other),
      offsetof(ElementwiseArguments, to), offsetof(ElementwiseArguments, mask)};
  const int vector = std::min(16, alignment) / bytes;
  for (int64_t first = 0; first < x.count; first += kMostElements) {
    ElementwiseArguments args{};
    args.count = static_cast<int>(std::min(kMostElements, x.count - first));
    args.mask_words = alignment >= 4;
    Launch launch{
        text("pyconvx::", kernel, "<", element_name(x.dtype), ", ", vector, template_arguments, ">"),
        "residual/residual_add.cuh",
        {ceil_div(args.count, kElementsPerBlock), 1, 1},
        256,
        0,
        bytes_of(args),
        {}};
    for (size_t i = 0; i < buffers.size(); ++i)
      if (!buffers[i].empty())
        launch.pointers.push_back({buffers[i], places[i], i == 3 ? first / 8 : first * bytes});
    launches.push_back(std::move(launch));
  }
}

std::variant<LaunchPlan, Refusal> plan_residual_add(const ElementwiseProblem& x, const Device&,
                                                    const PlanOptions& options) {
  const bool relu = x.activation == Activation::relu;
  return plan_elementwise("residual_add", "residual_add", x, options,
                          relu ? ", true, false" : ", false, false", {"x", "residual", "output", ""});
}

std::variant<LaunchPlan, Refusal> plan_residual_add_mask(const ElementwiseProblem& x, const Device&,
                                                         const PlanOptions& options) {
  return plan_elementwise("residual_add_mask", "residual_add", x, options, ", true, true",
                          {"x", "residual", "output", "mask"});
}

std::variant<LaunchPlan, Refusal> plan_relu_backward(const ElementwiseProblem& x, const Device&,
                                                     const PlanOptions& options) {
  return plan_elementwise("relu_backward", "relu_backward", x, options, "",
                          {"grad_output", "output", "grad_input", ""});
}

std::variant<LaunchPlan, Refusal> plan_relu_backward_mask(const ElementwiseProblem& x, const Device&,
                                                          const PlanOptions& options) {
  return plan_elementwise("relu_backward_mask", "relu_backward_mask", x, options, "",
                          {"grad_output", "", "grad_input", "mask"});
}

void list_elementwise(std::vector<Kernel>& kernels) {
  for (DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    const std::string types = text("<", element_name(dtype), ", ", 16 / element_bytes(dtype));
    for (const char* kernel : {"residual_add", "relu_backward", "relu_backward_mask"})
      for (const char* options : {", false, false>", ", true, false>", ", true, true>", ">"})
        if ((kernel == std::string("residual_add")) == (options != std::string(">")))
          kernels.push_back({text("pyconvx::", kernel, types, options), "residual/residual_add.cuh"});
  }
}

}  // namespace pyconvx
