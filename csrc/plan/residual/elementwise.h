// Element-wise kernels as parts of plans.
#pragma once

#include "plan/plan.h"

#include <array>
#include <string>
#include <vector>

namespace pyconvx {

// Adds the launches of a kernel of kernels/cuda/residual. `template_arguments` come after the element and the
// vector; buffers are x, other, to and mask, those that there are not empty. The alignment is all buffers'.
void add_elementwise(std::vector<Launch>& launches, const char* kernel, const ElementwiseProblem& x,
                     int alignment, const std::string& template_arguments,
                     const std::array<std::string, 4>& buffers);

// The kernels that are compiled ahead of time.
void list_elementwise(std::vector<Kernel>&);

}  // namespace pyconvx
