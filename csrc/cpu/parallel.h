// Threads for the CPU kernels: torch's own, so that torch.set_num_threads holds here too and no second pool
// fights torch's spinning workers for the cores.
#pragma once

#include <cstdint>

namespace pyconvx::cpu {

// The most threads that one call will use.
int num_threads();

using RangeFunction = void (*)(void* context, int64_t begin, int64_t end);

// Calls function on disjoint ranges that cover [0, count), of at least `grain` items each (but for the last),
// and returns when all are done. Rethrows one exception if any were thrown.
void parallel_ranges(int64_t count, int64_t grain, RangeFunction function, void* context);

#ifdef PYCONVX_ISA  // a template, hence one for each instruction set
namespace PYCONVX_ISA {

template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  parallel_ranges(
      count, grain,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<const Body*>(context))(begin, end); },
      const_cast<Body*>(&body));
}

}  // namespace PYCONVX_ISA
#endif

}  // namespace pyconvx::cpu
