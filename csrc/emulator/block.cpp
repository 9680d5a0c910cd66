#include "block.h"

#include <algorithm>

#include "access.h"
#include "assembler.h"

namespace pyconvx::emulator {

constexpr uint32_t kBarriers = 16;

static uint32_t warps_of(const LaunchOptions& o) {
  return (o.block[0] * o.block[1] * o.block[2] + kLanes - 1) / kLanes;
}

// Bytes from one warp's registers to the next one's, which must not fall into the same cache sets.
static size_t register_pitch(const Program& program) {
  return (size_t(program.register_bytes) + 4095) / 4096 * 4096 + 3 * 64;
}

Block::Block(Launch& l)
    : launch(l), program(l.program), checking(l.options.check),
      shared(l.program.static_shared + l.options.dynamic_shared), counts(l.program.code.size()),
      register_file_(register_pitch(l.program) * warps_of(l.options)), barriers_(kBarriers) {
  const uint32_t* b = launch.options.block;
  const uint32_t threads = b[0] * b[1] * b[2], warps = warps_of(launch.options);
  if (checking) shared_checker.resize(static_cast<uint32_t>(shared.size()), warps);
  for (uint32_t w = 0; w < warps; ++w) {
    warps_.push_back(std::make_unique<Warp>());
    Warp& warp = *warps_.back();
    warp.block = this;
    warp.index = w;
    warp.registers = register_file_.data() + register_pitch(program) * w;
    const uint32_t count = std::min<uint32_t>(kLanes, threads - w * kLanes);
    warp.initial = count == kLanes ? kAllLanes : (1u << count) - 1;
    warp.local.resize(size_t(program.local_bytes) * kLanes);
    warp.local_written.resize(warp.local.size());
    warp.params.resize(size_t(program.thread_param_bytes) * kLanes);
    for (const auto& [constant, place] : program.constants) {
      for (int lane = 0; lane < kLanes; ++lane) {
        std::memcpy(warp.registers + place + lane * constant.second, &constant.first,
                    std::min(constant.second, 8u));
      }
      warp.defined(place) = kAllLanes;
    }
  }
}

void Block::run(uint64_t index) {
  index_ = index;
  const uint32_t* grid = launch.options.grid;
  position_[0] = static_cast<uint32_t>(index % grid[0]);
  position_[1] = static_cast<uint32_t>(index / grid[0] % grid[1]);
  position_[2] = static_cast<uint32_t>(index / grid[0] / grid[1]);
  begin();
  run_warps();
}

void Block::begin() {
  steps_ = 0;
  random_.seed(launch.options.seed * 2654435761u + static_cast<uint32_t>(index_));
  std::fill(shared.begin(), shared.end(), kPoison);
  if (checking)
    shared_checker.begin_block(order);
  else
    order.begin_block(static_cast<uint32_t>(warps_.size()));
  barriers_.assign(kBarriers, Barrier{});
  for (auto& pointer : warps_) {
    Warp& warp = *pointer;
    warp.live = warp.initial;
    warp.carry = 0;
    warp.groups.assign(1, {program.entry, warp.initial, LaneGroup::running});
    for (int lane = 0; lane < kLanes; ++lane) {
      warp.frames[lane].clear();
      warp.copies[lane] = {};
    }
    std::fill(warp.local.begin(), warp.local.end(), kPoison);
    std::fill(warp.local_written.begin(), warp.local_written.end(), uint8_t(0));
    for (uint32_t place : program.registers) warp.defined(place) = 0;
    fill_specials(warp);
  }
}

static uint32_t special_value(const std::string& name, const Launch& launch, const uint32_t* position,
                              uint32_t thread, uint32_t shared_bytes) {
  const uint32_t* block = launch.options.block;
  const uint32_t* grid = launch.options.grid;
  const int lane = static_cast<int>(thread % kLanes);
  const int axis = name.back() - 'x';  // of names that end in .x .y .z
  const uint32_t in_block[3] = {thread % block[0], thread / block[0] % block[1],
                                thread / block[0] / block[1]};
  auto starts = [&](const char* prefix) { return name.rfind(prefix, 0) == 0; };
  if (starts("%tid.")) return in_block[axis];
  if (starts("%ntid.")) return block[axis];
  if (starts("%ctaid.") || starts("%clusterid.")) return position[axis];
  if (starts("%nctaid.") || starts("%nclusterid.")) return grid[axis];
  if (starts("%cluster_nctaid") || name == "%cluster_nctarank" || name == "%nsmid") return 1;
  if (name == "%laneid") return lane;
  if (name == "%warpid") return thread / kLanes;
  if (name == "%nwarpid") return (block[0] * block[1] * block[2] + kLanes - 1) / kLanes;
  if (name == "%lanemask_eq") return 1u << lane;
  if (name == "%lanemask_lt") return (1u << lane) - 1;
  if (name == "%lanemask_le") return (2u << lane) - 1;
  if (name == "%lanemask_gt") return ~((2u << lane) - 1);
  if (name == "%lanemask_ge") return ~((1u << lane) - 1);
  if (name == "%dynamic_smem_size") return launch.options.dynamic_shared;
  if (name == "%total_smem_size") return shared_bytes;
  return 0;  // %smid, %gridid, %cluster_ctaid ...: a chip with one multiprocessor and clusters of one block
}

void Block::fill_specials(Warp& warp) {
  for (const auto& [name, place] : program.specials) {
    for (int lane = 0; lane < kLanes; ++lane) {
      warp.lanes<uint32_t>(place)[lane] = special_value(name, launch, position_, warp.index * kLanes + lane,
                                                        static_cast<uint32_t>(shared.size()));
    }
    warp.defined(place) = kAllLanes;
  }
}

void Block::describe(Report& report, const Warp& warp, int lane, std::string message) const {
  report.block_index = index_;
  std::copy_n(position_, 3, report.block);
  const uint32_t thread = warp.index * kLanes + lane;
  const uint32_t* size = launch.options.block;
  report.thread[0] = thread % size[0];
  report.thread[1] = thread / size[0] % size[1];
  report.thread[2] = thread / size[0] / size[1];
  report.message = std::move(message);
}

}  // namespace pyconvx::emulator
