// The state of 32 lanes: registers, local memory, program counters, calls, copies on their way.
#pragma once

#include <cstdint>
#include <vector>

#include "program.h"
#include "types.h"

namespace pyconvx::emulator {

class Block;

// Lanes that stand at one instruction and run together.
struct LaneGroup {
  enum State : uint8_t {
    running,
    gathering,   // at an instruction that other lanes of the warp have to reach first
    at_barrier,  // arrived, until the barrier opens
  };
  int pc;
  LaneMask lanes;
  State state;
};

struct PendingCopy {
  uint32_t destination;
  uint32_t bytes;
  uint32_t group;
  int instruction;
  uint8_t data[16];
};

// The cp.async copies of one thread, oldest first.
struct CopyQueue {
  std::vector<PendingCopy> copies;
  size_t finished = 0;
  uint32_t group = 0;  // that the next copy joins

  bool empty() const { return finished == copies.size(); }
  void clear() {
    copies.clear();
    finished = 0;
  }
};

struct CallFrame {
  int return_to;
  int call_site;
  int function;
};

class Warp {
public:
  Block* block = nullptr;
  uint32_t index = 0;
  uint8_t* registers = nullptr;  // register-major: the 32 lanes of a register lie together
  LaneMask initial = 0;          // lanes that exist
  LaneMask live = 0;             // lanes that have not exited
  LaneMask carry = 0;            // the condition code of add.cc
  std::vector<LaneGroup> groups;
  std::vector<uint8_t> local, local_written, params;  // lane-major
  std::vector<CallFrame> frames[kLanes];
  CopyQueue copies[kLanes];

  template <class T>
  T* lanes(uint32_t place) const {
    return reinterpret_cast<T*>(registers + place);
  }
  // Predicates are one bit a lane.
  LaneMask& predicate(uint32_t place) const { return *lanes<LaneMask>(place); }
  LaneMask& defined(uint32_t place) const {
    return *reinterpret_cast<LaneMask*>(registers + place - sizeof(LaneMask));
  }

  LaneMask source_predicate(const Instruction& i, int k) const {
    const LaneMask p = predicate(i.source[k]);
    return i.negated >> k & 1 ? ~p : p;
  }
  void set_predicate(uint32_t place, LaneMask active, LaneMask value) const {
    if (place) predicate(place) = (predicate(place) & ~active) | (value & active);
  }

  // A register of 1, 2, 4 or 8 bytes as a number.
  uint64_t get(uint32_t place, uint32_t bytes, int lane) const {
    switch (bytes) {
    case 1:
      return lanes<uint8_t>(place)[lane];
    case 2:
      return lanes<uint16_t>(place)[lane];
    case 4:
      return lanes<uint32_t>(place)[lane];
    default:
      return lanes<uint64_t>(place)[lane];
    }
  }
  void put(uint32_t place, uint32_t bytes, int lane, uint64_t value) const {
    switch (bytes) {
    case 1:
      lanes<uint8_t>(place)[lane] = static_cast<uint8_t>(value);
      break;
    case 2:
      lanes<uint16_t>(place)[lane] = static_cast<uint16_t>(value);
      break;
    case 4:
      lanes<uint32_t>(place)[lane] = static_cast<uint32_t>(value);
      break;
    default:
      lanes<uint64_t>(place)[lane] = value;
    }
  }
};

}  // namespace pyconvx::emulator
