// What a chip would be asked to do: instructions issued, memory transactions, bank conflicts. No caches, no
// time.
#pragma once

#include <cstdint>

#include "types.h"

namespace pyconvx::emulator {

// Of one instruction of the program ("site").
struct SiteCounts {
  uint64_t warps = 0;             // warp instructions issued, predicated-off ones included
  uint64_t threads = 0;           // thread instructions executed
  uint64_t requests = 0;          // warp-wide accesses to global memory
  uint64_t sectors = 0;           // 32-byte pieces of memory those touch, each counted once a request
  uint64_t bytes = 0;             // asked for by the threads, global memory
  uint64_t wavefronts = 0;        // passes that shared memory needs
  uint64_t ideal_wavefronts = 0;  // without bank conflicts
  uint64_t shared_bytes = 0;      // asked for by the threads, shared memory

  void add(const SiteCounts& other);
};

void count_global(SiteCounts& site, LaneMask lanes, const uint64_t* address, uint32_t bytes);

// Shared memory has 32 banks of 4 bytes. A warp is served in one pass for accesses of up to 4 bytes, in
// halves for 8, in quarters for 16; a pass takes as many wavefronts as the worst bank has different words.
void count_shared(SiteCounts& site, LaneMask lanes, const uint64_t* address, uint32_t bytes);

}  // namespace pyconvx::emulator
