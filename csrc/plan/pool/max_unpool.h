#pragma once

#include "plan/plan.h"

namespace pyconvx {

// Unpooling's kernels that are compiled ahead of time, forward and backward.
void list_max_unpool(std::vector<Kernel>&);
void list_nearest_unpool(std::vector<Kernel>&);

}  // namespace pyconvx
