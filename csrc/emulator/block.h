// One block of a launch, run on one core: its warps, shared memory, barriers, and the order in which they
// take turns.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "counters.h"
#include "global_memory.h"
#include "happens_before.h"
#include "lazy_array.h"
#include "program.h"
#include "reports.h"
#include "shared_checker.h"
#include "warp.h"

namespace pyconvx::emulator {

enum class Order : uint8_t { ascending, descending, random };

struct LaunchOptions {
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  uint32_t dynamic_shared = 0;
  bool check = true;
  Order order = Order::ascending;
  uint32_t seed = 0;
  uint64_t max_steps = 0;  // warp instructions of a block
  uint32_t workers = 1;
  uint64_t last_blocks = 0;  // only so many, the last of the grid; 0: all
};

// What all blocks of a launch share.
struct Launch {
  const Program& program;
  LaunchOptions options;
  GlobalMemory memory;
  std::vector<uint8_t> parameters;
  std::atomic<bool> stopped{false};

  Launch(const Program& p, const LaunchOptions& o) : program(p), options(o) {}
};

// A named barrier of the block.
struct Barrier {
  uint32_t arrived = 0;   // threads
  int64_t expected = -1;  // threads; -1: all of the block
  HappensBefore::Published published;
};

class Block {
public:
  explicit Block(Launch& launch);
  void run(uint64_t index);

  // For the instructions.
  Launch& launch;
  const Program& program;
  const bool checking;
  std::vector<uint8_t> shared;
  SharedChecker shared_checker;
  HappensBefore order;
  std::vector<SiteCounts> counts;  // by instruction
  ReportLog reports;
  uint64_t index() const { return index_; }
  uint64_t steps() const { return steps_; }
  int number(const Instruction& i) const { return static_cast<int>(&i - program.code.data()); }

  template <class Message>
  void report(const char* kind, const Warp& warp, int lane, const Instruction& i, Message&& message) {
    if (Report* first = reports.count(kind, number(i))) describe(*first, warp, lane, message());
  }
  template <class Message>
  [[noreturn]] void stop(const char* kind, const Warp& warp, int lane, const Instruction& i,
                         Message&& message) {
    report(kind, warp, lane, i, message);
    throw BlockStopped{};
  }

private:
  void describe(Report& report, const Warp& warp, int lane, std::string message) const;
  void begin();
  void fill_specials(Warp& warp);

  // scheduler.cpp: which lanes run when
  void run_warps();
  bool advance(Warp& warp, uint64_t budget);
  void run_group(Warp& warp, size_t group, uint64_t& budget);
  int choose_group(Warp& warp);
  static void merge_groups(Warp& warp);
  void execute(Warp& warp, const Instruction& i, LaneMask active);
  std::string waiting_threads() const;
  [[noreturn]] void report_deadlock();

  // flow.cpp: what instructions do to groups of lanes
  void change_flow(Warp& warp, size_t group, const Instruction& i, LaneMask active);
  void branch_by_table(Warp& warp, size_t group, const Instruction& i, LaneMask active);
  void call(Warp& warp, size_t group, const Instruction& i, LaneMask active);
  void leave(Warp& warp, size_t group, const Instruction& i, LaneMask active);
  void collect(Warp& warp, size_t group, const Instruction& i);
  void check_company(Warp& warp, const Instruction& i, LaneMask named, LaneMask together);

  // barriers.cpp
  void reach_barrier(Warp& warp, size_t group, const Instruction& i);
  void arrive(Warp& warp, size_t group, const Instruction& i);
  bool open_barriers();
  void open(uint32_t id);
  bool force_divergent_barriers();
  uint32_t barrier_id(const Warp& warp, const LaneGroup& group) const;

  LazyArray<uint8_t> register_file_;
  std::vector<std::unique_ptr<Warp>> warps_;
  std::vector<Barrier> barriers_;
  std::mt19937 random_;
  uint64_t index_ = 0, steps_ = 0;
  uint32_t position_[3] = {};
};

}  // namespace pyconvx::emulator
