#include "plan/device.h"

namespace pyconvx {

// slots_per_hmma: 2048 multiplications, over those per clock and sub-partition. GeForce chips have half of
// their tensor cores' rate when sums are f32; H100 has not all of its rate for mma.sync. A tf32 m16n8k8 takes
// as long. dram: bytes a second over the clock at which the chip boosts.
const std::vector<Device>& devices() {
  // clang-format off
  static const std::vector<Device> table = {
      // name     cc   SMs  shared: block, SM        threads  hmma  ffma  dram
      {"t4",      75,  40,  64 << 10,  64 << 10,     1024,    32,   64,   200},
      {"a100",    80,  108, 163 << 10, 164 << 10,    2048,    8,    64,   1100},
      {"rtx3090", 86,  82,  99 << 10,  100 << 10,    1536,    32,   128,  550},
      {"rtx4090", 89,  128, 99 << 10,  100 << 10,    1536,    32,   128,  400},
      {"l4",      89,  58,  99 << 10,  100 << 10,    1536,    16,   128,  147},
      {"h100",    90,  132, 227 << 10, 228 << 10,    2048,    6.5,  128,  1900},
      {"rtx5090", 120, 170, 99 << 10,  100 << 10,    1536,    32,   128,  740},
  };
  // clang-format on
  return table;
}

Device describe_device(const std::string& name, int capability, int sms, int shared_per_block,
                       int shared_per_sm, int threads_per_sm) {
  // The last of the table whose compute capability is not above this one's; of several, the first.
  const Device* like = &devices().front();
  for (const Device& device : devices())
    if (device.capability <= capability && device.capability > like->capability) like = &device;
  return {name,
          capability,
          sms,
          shared_per_block,
          shared_per_sm,
          threads_per_sm,
          like->slots_per_hmma,
          like->ffma_per_clock,
          like->dram_bytes_per_clock};
}

const Device* find_device(const std::string& name) {
  for (const Device& device : devices())
    if (device.name == name) return &device;
  return nullptr;
}

}  // namespace pyconvx
