// The kernels that nvcc has compiled, by the names that plans call them. The table is written by
// generate.cpp.
#pragma once

namespace pyconvx::cuda {

struct KernelEntry {
  const char* name;
  const void* function;  // the host's handle of it
};

// One list a file, each ended by an entry without a name; the last list is null.
extern const KernelEntry* const kernel_tables[];

}  // namespace pyconvx::cuda
