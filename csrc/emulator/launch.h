// A grid of blocks, spread over the cores of the machine.
#pragma once

#include <string>
#include <vector>

#include "block.h"

namespace pyconvx::emulator {

struct LaunchResult {
  ReportLog reports;
  std::vector<SiteCounts> counts;  // by instruction
};

// Throws Error for a launch that the chip of the PTX's target would refuse.
void check_limits(const Program& program, const LaunchOptions& options);

// The most shared memory that a block may have on a chip ("sm_80"), in bytes.
uint32_t shared_memory_limit(const std::string& target);

LaunchResult run(Launch& launch);

}  // namespace pyconvx::emulator
