// How the forms of bar and barrier differ, for the scheduler.
#pragma once

#include "../warp.h"

namespace pyconvx::emulator {

bool is_aligned(const Instruction& barrier);  // for whole warps
bool waits(const Instruction& barrier);       // not bar.arrive
uint32_t
barrier_threads(const Instruction& barrier);  // register with the number of threads, 0: all of the block

// bar.red: votes of the lanes, and what they get back when all have voted.
uint32_t barrier_votes(Warp& warp, const Instruction& barrier, LaneMask lanes);
void give_barrier_result(Warp& warp, const Instruction& barrier, LaneMask lanes, uint32_t votes,
                         uint32_t threads);

}  // namespace pyconvx::emulator
