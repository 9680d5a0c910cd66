// What a plan must know of a chip, for those that are worth naming. Another chip is described the same way,
// from its driver's attributes.
#pragma once

#include <string>
#include <vector>

namespace pyconvx {

struct Device {
  std::string name;
  int capability;        // 80 for compute capability 8.0
  int sms;               // streaming multiprocessors
  int shared_per_block;  // bytes that a block may ask for
  int shared_per_sm;     // bytes, of which every resident block takes 1 KB more than it asks for
  int threads_per_sm;
  // Issue slots for which one m16n8k16 with f32 sums keeps a sub-partition's tensor core busy.
  double slots_per_hmma;
  int ffma_per_clock;        // of one SM
  int dram_bytes_per_clock;  // of the chip
};

const std::vector<Device>& devices();
// A chip by what its driver says of it. Its rates are those of the chip in the table that is most like it.
Device describe_device(const std::string& name, int capability, int sms, int shared_per_block,
                       int shared_per_sm, int threads_per_sm);

const Device* find_device(const std::string& name);  // null if there is none of that name

}  // namespace pyconvx
