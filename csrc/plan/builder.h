// A plan in the making: launches, workspaces, and tensors that are brought into another layout first.
#pragma once

#include "plan/plan.h"
#include "plan/words.h"

#include <utility>

namespace pyconvx {

class PlanBuilder {
public:
  PlanBuilder(Layout layout, int element_bytes) : layout_(layout), bytes_(element_bytes) {}

  LaunchPlan plan;

  // Is a tensor of so many channels and pixels transposed for kernels that want channels last?
  bool is_transposed(int64_t channels, int64_t pixels) const;

  // The buffer that the kernels find a tensor in: itself, or the workspace that replaced it.
  std::string buffer(const std::string& tensor) const;

  // A tensor that kernels want channels last, as `batches` of channels x pixels: transposed into a workspace
  // before the launches that are added from here on, unless it is channels last already.
  void to_channels_last(const std::string& tensor, int64_t batches, int64_t channels, int64_t pixels);

  // A tensor that kernels write channels last: into a workspace, unless it is channels last. After the last
  // launch, from_channels_last writes the tensor itself.
  void replace_output(const std::string& tensor, int64_t batches, int64_t channels, int64_t pixels);
  void from_channels_last(const std::string& tensor, int64_t batches, int64_t channels, int64_t pixels);

  // A gradient that counts only where "relu_output", laid out like it, is not <= 0: masked where it is
  // transposed. False where nothing is, because it is channels last already.
  bool mask_to_channels_last(const std::string& gradient, DType, int64_t batches, int64_t channels,
                             int64_t pixels);

  // The same for kernels that cannot mask what they load: relu_backward writes it, masked, to a workspace
  // before the launches that are added from here on.
  void write_masked(const std::string& gradient, DType, int64_t elements, int alignment);

private:
  void replace(const std::string& tensor, int64_t elements);
  Launch& transpose(const std::string& from, const std::string& to, int64_t batches, int64_t rows,
                    int64_t columns);

  const Layout layout_;
  const int bytes_;                                            // of an element
  std::vector<std::pair<std::string, std::string>> replaced_;  // tensor, workspace
};

// Adds the kernels that bring tensors into another layout.
void list_transposes(std::vector<Kernel>&);

}  // namespace pyconvx
