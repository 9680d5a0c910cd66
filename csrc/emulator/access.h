// The one way from an instruction to memory: finds the host bytes behind the addresses of a warp, after every
// check.
#pragma once

#include <cstdint>

#include "program.h"
#include "warp.h"

namespace pyconvx::emulator {

constexpr int kWidestAccess = 32;  // bytes a lane: .v8.b32, .v4.b64

struct Access {
  enum Kind : uint8_t { read, write, read_write, copy };  // copy: the destination of a cp.async

  Kind kind = read;
  Space space = Space::generic;
  uint32_t bytes = 0;  // a lane
  uint32_t align = 0;  // what the address must be a multiple of
  bool whole_warp = false;
  bool counted = true;
  uint64_t address[kLanes];
  // What each lane writes; resolve() does it, lane by lane, so that a lane's check sees what the one before
  // it wrote.
  const uint8_t (*data)[kWidestAccess] = nullptr;
  uint8_t* host[kLanes];  // result; null where the access was refused and reported
};

// The addresses an instruction names for its active lanes.
void compute_addresses(Warp& warp, const Instruction& instruction, LaneMask active, uint64_t* address);

void resolve(Warp& warp, const Instruction& instruction, LaneMask active, Access& access);

// Reports lanes that use a register nobody wrote.
void require_defined(Warp& warp, const Instruction& instruction, LaneMask active, uint32_t place,
                     const char* role);
void require_sources_defined(Warp& warp, const Instruction& instruction, LaneMask active);

// The destination of a refused load and of a copy on its way: a NaN in every format.
constexpr uint8_t kPoison = 0xff;

}  // namespace pyconvx::emulator
