#include "global_memory.h"

#include "assembler.h"

namespace pyconvx::emulator {

Allocation::Writers& Allocation::make_writers() {
  if (Writers* ready = writers_ready.load(std::memory_order_acquire)) return *ready;
  std::lock_guard<std::mutex> lock(making);
  if (!writers) {
    writers = std::make_unique<Writers>(bytes);
    writers_ready.store(writers.get(), std::memory_order_release);
  }
  return *writers;
}

void GlobalMemory::place(uint64_t window, std::string name, void* host, uint64_t bytes, bool read_only,
                         uint8_t* written) {
  Allocation& a = windows_[window];
  a.name = std::move(name);
  a.host = static_cast<uint8_t*>(host);
  a.bytes = bytes;
  a.read_only = read_only;
  a.written = written;
}

Allocation* GlobalMemory::find(uint64_t address) {
  auto found = windows_.find((address >> kWindowBits) - 1);
  return found == windows_.end() ? nullptr : &found->second;
}

uint64_t GlobalMemory::offset(uint64_t address) {
  return (address & ((uint64_t(1) << kWindowBits) - 1)) - kWindowMiddle;
}

}  // namespace pyconvx::emulator
