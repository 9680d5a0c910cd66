#include "plan/device.h"

namespace pyconvx {

// slots_per_hmma: 2048 multiplications, over those per clock and sub-partition. GeForce chips have half of their
// tensor cores' rate when sums are f32; H100 has not all of its rate for mma.sync. A tf32 m16n8k8 takes as long.
const std::vector<Device>& devices() {
  static const std::vector<Device> table = {
      // name     cc  sms  shared: block, SM    threads  L2        DRAM/clk  hmma  ffma
      {"t4",      75, 40,  64 << 10, 64 << 10,  1024,    4 << 20,  201,      32,   64},
      {"a100",    80, 108, 163 << 10, 164 << 10, 2048,   40 << 20, 1103,     8,    64},
      {"rtx3090", 86, 82,  99 << 10, 100 << 10, 1536,    6 << 20,  552,      32,   128},
      {"rtx4090", 89, 128, 99 << 10, 100 << 10, 1536,    72 << 20, 400,      32,   128},
      {"l4",      89, 58,  99 << 10, 100 << 10, 1536,    48 << 20, 147,      16,   128},
      {"h100",    90, 132, 227 << 10, 228 << 10, 2048,   50 << 20, 1692,     6.5,  128},
      {"rtx5090", 120, 170, 99 << 10, 100 << 10, 1536,   96 << 20, 744,      32,   128},
  };
  return table;
}

const Device* find_device(const std::string& name) {
  for (const Device& device : devices())
    if (device.name == name) return &device;
  return nullptr;
}

}  // namespace pyconvx
