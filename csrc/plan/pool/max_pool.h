#pragma once

#include "plan/plan.h"

namespace pyconvx {

// Max pooling's kernels that are compiled ahead of time: forward, backward and gather.
void list_max_pool(std::vector<Kernel>&);

}  // namespace pyconvx
