#include "plan/builder.h"
#include "plan/conv/fprop.h"
#include "plan/conv/wgrad.h"
#include "plan/pool/max_pool.h"
#include "plan/pool/max_unpool.h"
#include "plan/residual/elementwise.h"

namespace pyconvx {

std::vector<Kernel> ahead_of_time_kernels() {
  std::vector<Kernel> kernels;
  for (auto list :
       {list_transposes, list_fprop_tensor_core, list_fprop_resident_patch, list_fprop_small_map,
        list_fprop_ffma, list_fprop_few_channels, list_fprop_depthwise, list_fprop_plain, list_dgrad,
        list_wgrad_tensor_core, list_wgrad_patch, list_wgrad_ffma, list_wgrad_depthwise, list_wgrad_plain,
        list_wgrad_sum, list_max_pool, list_max_unpool, list_nearest_unpool, list_elementwise})
    list(kernels);
  return kernels;
}

}  // namespace pyconvx
