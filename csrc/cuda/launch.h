// Launches of kernels that were compiled ahead of time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace pyconvx::cuda {

// The names of all kernels there are.
std::vector<std::string> kernel_names();

// The newest CUDA version that the driver runs, 13000 for 13.0; 0 without a driver.
int driver_version();

// The CUDA version of the compiler that compiled the kernels.
int compiler_version();

// Puts a launch into the stream of the current device. `arguments` are the bytes of the kernel's one
// parameter. Throws std::runtime_error with a sentence if there is no such kernel or CUDA refuses.
void launch(const std::string& kernel, std::array<int64_t, 3> grid, int block, int shared_bytes,
            const std::string& arguments, uint64_t stream);

}  // namespace pyconvx::cuda
