// What the scheduler needs to know about cp.async.
#pragma once

#include "../warp.h"

namespace pyconvx::emulator {

// A thread exits: copies it never waited for are reported, and happen.
void abandon_copies(Warp& warp, int lane);

}  // namespace pyconvx::emulator
