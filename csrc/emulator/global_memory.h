// Global and constant memory: allocations of the host, each with its own window of device addresses.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "lazy_array.h"
#include "types.h"

namespace pyconvx::emulator {

struct Allocation {
  std::string name;
  uint8_t* host = nullptr;
  uint64_t bytes = 0;
  bool read_only = false;
  uint8_t* written =
      nullptr;  // one byte for each byte, set when it is written; null: the contents count as written

  // The block that wrote each byte, plus one. Made when the allocation is first written in a launch.
  using Writers = LazyArray<std::atomic<uint32_t>>;
  std::unique_ptr<Writers> writers;
  std::atomic<Writers*> writers_ready{nullptr};
  std::mutex making;

  Writers& make_writers();
};

class GlobalMemory {
public:
  void place(uint64_t window, std::string name, void* host, uint64_t bytes, bool read_only, uint8_t* written);
  Allocation* find(uint64_t address);  // of the window the address lies in, inside the allocation or not
  static uint64_t offset(uint64_t address);  // from the allocation's first byte; wraps below it

  // Atomic instructions of blocks on different cores take turns.
  std::mutex& turn(uint64_t address) { return turns_[address >> 4 & 63]; }

private:
  std::map<uint64_t, Allocation> windows_;
  std::mutex turns_[64];
};

}  // namespace pyconvx::emulator
