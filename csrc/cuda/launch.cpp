#include "cuda/launch.h"

#include "cuda/kernel_table.h"

#include <cuda_runtime_api.h>

#include <mutex>
#include <set>
#include <stdexcept>
#include <unordered_map>

namespace pyconvx::cuda {
namespace {

constexpr int kSharedWithoutAsking = 48 << 10;  // bytes of dynamic shared memory

const std::unordered_map<std::string, const void*>& functions() {
  static const std::unordered_map<std::string, const void*> map = [] {
    std::unordered_map<std::string, const void*> found;
    for (auto table = kernel_tables; *table; ++table)
      for (const KernelEntry* entry = *table; entry->name; ++entry) found[entry->name] = entry->function;
    return found;
  }();
  return map;
}

void check(cudaError_t error, const std::string& kernel, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error("backend cuda: CUDA refused " + std::string(what) + " " + kernel + ": " +
                           cudaGetErrorString(error));
}

// More shared memory than every kernel may have is asked for once, on each device.
void allow_shared(const std::string& kernel, const void* function, int bytes) {
  if (bytes <= kSharedWithoutAsking) return;
  static std::mutex mutex;
  static std::set<std::pair<int, const void*>> asked;
  int device = 0;
  check(cudaGetDevice(&device), kernel, "the device of");
  const std::lock_guard lock(mutex);
  if (asked.count({device, function})) return;
  int most = 0;
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), kernel,
        "an attribute for");
  check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most), kernel,
        "shared memory for");
  asked.insert({device, function});
}

}  // namespace

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const auto& [name, function] : functions()) names.push_back(name);
  return names;
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int compiler_version() {
  return CUDART_VERSION;
}

void launch(const std::string& kernel, std::array<int64_t, 3> grid, int block, int shared_bytes,
            const std::string& arguments, uint64_t stream) {
  const auto found = functions().find(kernel);
  if (found == functions().end())
    throw std::runtime_error("backend cuda: " + kernel +
                             " was not compiled when pyconvx was built; use backend cupy for it");
  allow_shared(kernel, found->second, shared_bytes);
  void* parameters[] = {const_cast<char*>(arguments.data())};
  const dim3 blocks(static_cast<unsigned>(grid[0]), static_cast<unsigned>(grid[1]),
                    static_cast<unsigned>(grid[2]));
  check(cudaLaunchKernel(found->second, blocks, dim3(static_cast<unsigned>(block)), parameters,
                         static_cast<size_t>(shared_bytes), reinterpret_cast<cudaStream_t>(stream)),
        kernel, "the launch of");
}

}  // namespace pyconvx::cuda
