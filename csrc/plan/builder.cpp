#include "plan/builder.h"

#include "plan/conv_arguments.h"
#include "plan/residual/elementwise.h"

#include <algorithm>

namespace pyconvx {
namespace {

const char* bits_of(int element_bytes) {
  return element_bytes == 8 ? "unsigned long long" : element_bytes == 4 ? "unsigned int" : "unsigned short";
}

Kernel transpose_kernel(int element_bytes) {
  return {text("pyconvx::transpose<", bits_of(element_bytes), ">"), "conv/transpose.cuh"};
}

}  // namespace

void list_transposes(std::vector<Kernel>& kernels) {
  for (int bytes : {2, 4, 8}) kernels.push_back(transpose_kernel(bytes));
}

std::string PlanBuilder::buffer(const std::string& tensor) const {
  for (const auto& [name, workspace] : replaced_)
    if (name == tensor) return workspace;
  return tensor;
}

void PlanBuilder::to_channels_last(const std::string& tensor, int64_t batches, int64_t channels,
                                   int64_t pixels) {
  if (!is_transposed(channels, pixels)) return;
  const std::string from = buffer(tensor);
  replace(tensor, batches * channels * pixels);
  transpose(from, buffer(tensor), batches, channels, pixels);
}

void PlanBuilder::replace_output(const std::string& tensor, int64_t batches, int64_t channels,
                                 int64_t pixels) {
  if (is_transposed(channels, pixels)) replace(tensor, batches * channels * pixels);
}

void PlanBuilder::from_channels_last(const std::string& tensor, int64_t batches, int64_t channels,
                                     int64_t pixels) {
  if (is_transposed(channels, pixels)) transpose(buffer(tensor), tensor, batches, pixels, channels);
}

bool PlanBuilder::mask_to_channels_last(const std::string& gradient, DType dtype, int64_t batches,
                                        int64_t channels, int64_t pixels) {
  if (!is_transposed(channels, pixels)) return false;
  const std::string from = buffer(gradient);
  replace(gradient, batches * channels * pixels);
  Launch& launch = transpose(from, buffer(gradient), batches, channels, pixels);
  launch.kernel = text("pyconvx::transpose<", bits_of(bytes_), ", ", element_name(dtype), ", true>");
  launch.pointers.push_back({"relu_output", offsetof(TransposeArguments, relu_output), 0});
  return true;
}

void PlanBuilder::write_masked(const std::string& gradient, DType dtype, int64_t elements, int alignment) {
  const std::string from = buffer(gradient), to = "masked_" + gradient;
  replaced_.insert(replaced_.begin(), {gradient, to});
  plan.workspaces.push_back({to, elements * bytes_});
  add_elementwise(plan.launches, "relu_backward", {elements, dtype, Activation::relu}, alignment, "",
                  {from, "relu_output", to, ""});
}

// A tensor of one row or one column is the same in both layouts.
bool PlanBuilder::is_transposed(int64_t rows, int64_t columns) const {
  return layout_ == Layout::nchw && rows > 1 && columns > 1;
}

void PlanBuilder::replace(const std::string& tensor, int64_t elements) {
  replaced_.insert(replaced_.begin(), {tensor, "nhwc_" + tensor});  // hides what replaced it before
  plan.workspaces.push_back({replaced_.front().second, elements * bytes_});
}

Launch& PlanBuilder::transpose(const std::string& from, const std::string& to, int64_t batches, int64_t rows,
                               int64_t columns) {
  const TransposeArguments args = transpose_arguments(batches, rows, columns);
  const Kernel kernel = transpose_kernel(bytes_);
  plan.launches.push_back(
      {kernel.name,
       kernel.header,
       {std::min<int64_t>(args.tiles, kMostBlocks), 1, 1},
       256,
       0,
       bytes_of(args),
       {{from, offsetof(TransposeArguments, from), 0}, {to, offsetof(TransposeArguments, to), 0}}});
  return plan.launches.back();
}

}  // namespace pyconvx
