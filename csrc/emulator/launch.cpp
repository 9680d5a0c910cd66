#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

namespace pyconvx::emulator {

uint32_t shared_memory_limit(const std::string& target) {
  // CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": maximum per thread block.
  static const struct {
    int arch;
    uint32_t kib;
  } kLimits[] = {
      {75, 64},   {80, 163},  {86, 99},   {87, 163},  {89, 99},  {90, 227},
      {100, 227}, {101, 227}, {103, 227}, {110, 227}, {120, 99}, {121, 99},
  };
  const size_t digits = target.find_first_of("0123456789");
  const int arch = digits == std::string::npos ? 0 : std::atoi(target.c_str() + digits);
  for (const auto& limit : kLimits) {
    if (limit.arch == arch) return limit.kib * 1024;
  }
  throw Error("target '" + target + "' is not among those the emulator knows: sm_75 to sm_121");
}

void check_limits(const Program& program, const LaunchOptions& o) {
  const uint64_t threads = uint64_t(o.block[0]) * o.block[1] * o.block[2];
  if (threads == 0 || threads > 1024 || o.block[2] > 64) {
    throw Error(format("%s: a block of %u x %u x %u threads; it must have 1 to 1024, and at most 64 in z",
                       program.kernel.c_str(), o.block[0], o.block[1], o.block[2]));
  }
  if (!o.grid[0] || !o.grid[1] || !o.grid[2] || o.grid[0] > 0x7fffffffu || o.grid[1] > 65535 ||
      o.grid[2] > 65535) {
    throw Error(
        format("%s: a grid of %u x %u x %u blocks; x goes from 1 to 2147483647, y and z from 1 to 65535",
               program.kernel.c_str(), o.grid[0], o.grid[1], o.grid[2]));
  }
  if (program.max_threads && threads > program.max_threads) {
    throw Error(
        format("%s: a block of %llu threads, but the kernel was compiled for at most %u (__launch_bounds__)",
               program.kernel.c_str(), static_cast<unsigned long long>(threads), program.max_threads));
  }
  if (!program.required_block.empty() &&
      !std::equal(program.required_block.begin(), program.required_block.end(), o.block)) {
    throw Error(format("%s: a block of %u x %u x %u threads, but the kernel requires %u x %u x %u",
                       program.kernel.c_str(), o.block[0], o.block[1], o.block[2], program.required_block[0],
                       program.required_block[1], program.required_block[2]));
  }
  const uint64_t shared = uint64_t(program.static_shared) + o.dynamic_shared;
  const uint32_t limit = shared_memory_limit(program.module->target);
  if (shared > limit) {
    throw Error(
        format("%s: %llu bytes of shared memory (%u static, %u dynamic), but a block has at most %u on %s",
               program.kernel.c_str(), static_cast<unsigned long long>(shared), program.static_shared,
               o.dynamic_shared, limit, program.module->target.c_str()));
  }
  if (program.static_shared > 48 * 1024) {
    throw Error(format("%s: %u bytes of static shared memory; more than 49152 must be dynamic",
                       program.kernel.c_str(), program.static_shared));
  }
}

LaunchResult run(Launch& launch) {
  check_limits(launch.program, launch.options);
  const LaunchOptions& o = launch.options;
  const uint64_t all = uint64_t(o.grid[0]) * o.grid[1] * o.grid[2];
  const uint64_t blocks = o.last_blocks ? std::min(o.last_blocks, all) : all, first = all - blocks;
  std::vector<uint32_t> shuffled;
  if (o.order == Order::random) {
    shuffled.resize(blocks);
    std::iota(shuffled.begin(), shuffled.end(), 0u);
    std::mt19937 random(o.seed);
    std::shuffle(shuffled.begin(), shuffled.end(), random);
  }

  LaunchResult result;
  result.counts.resize(launch.program.code.size());
  std::mutex merging;
  std::exception_ptr failure;
  std::atomic<uint64_t> next{0};
  auto work = [&] {
    try {
      Block block(launch);
      try {
        for (uint64_t n; (n = next++) < blocks && !launch.stopped;) {
          block.run(first + (o.order == Order::ascending    ? n
                             : o.order == Order::descending ? blocks - 1 - n
                                                            : shuffled[n]));
        }
      } catch (const BlockStopped&) {
        launch.stopped = true;
      }
      std::lock_guard<std::mutex> lock(merging);
      result.reports.merge(block.reports);
      for (size_t k = 0; k < result.counts.size(); ++k) result.counts[k].add(block.counts[k]);
    } catch (...) {
      std::lock_guard<std::mutex> lock(merging);
      launch.stopped = true;
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t k = 1; k < std::min<uint64_t>(o.workers, blocks); ++k) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  return result;
}

}  // namespace pyconvx::emulator
