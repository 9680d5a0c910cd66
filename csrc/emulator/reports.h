// What the checker found. One report for each kind and instruction: the first place where it happened, and
// how often.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace pyconvx::emulator {

struct Report {
  std::string kind;
  uint64_t count = 0;
  uint64_t block_index = 0;  // linear
  uint32_t block[3] = {}, thread[3] = {};
  int instruction = 0;
  std::string message;
};

namespace kind {
constexpr char shared_race[] = "shared-race";  // two warps, no barrier between
constexpr char warp_race[] = "warp-race";      // two lanes of one warp, no __syncwarp between
constexpr char block_race[] = "block-race";    // two blocks at one global address
constexpr char uninitialised_shared[] = "uninitialised-shared";
constexpr char uninitialised_local[] = "uninitialised-local";
constexpr char uninitialised_global[] = "uninitialised-global";
constexpr char uninitialised_register[] = "uninitialised-register";
constexpr char unfinished_copy[] = "unfinished-copy";  // cp.async data used before it was waited for
constexpr char abandoned_copy[] = "abandoned-copy";    // cp.async never waited for
constexpr char bad_copy[] = "bad-copy";
constexpr char out_of_bounds[] = "out-of-bounds";
constexpr char misaligned[] = "misaligned";
constexpr char read_only[] = "read-only";
constexpr char barrier_divergence[] = "barrier-divergence";
constexpr char barrier_count[] = "barrier-count";
constexpr char missing_lanes[] = "missing-lanes";
constexpr char deadlock[] = "deadlock";
constexpr char step_limit[] = "step-limit";
constexpr char trap[] = "trap";
}  // namespace kind

class ReportLog {
public:
  // Counts one more; returns the report to be filled in when it is the first of its kind at that instruction.
  Report* count(const char* kind, int instruction) {
    Report& report = reports_[{instruction, kind}];
    if (report.count++) return nullptr;
    report.kind = kind;
    report.instruction = instruction;
    return &report;
  }
  // The place that is kept is the one in the first block, whichever core ran it.
  void merge(const ReportLog& other) {
    for (const auto& [key, report] : other.reports_) {
      Report& mine = reports_[key];
      const uint64_t total = mine.count + report.count;
      if (!mine.count || report.block_index < mine.block_index) mine = report;
      mine.count = total;
    }
  }
  bool empty() const { return reports_.empty(); }
  auto begin() const { return reports_.begin(); }
  auto end() const { return reports_.end(); }

private:
  std::map<std::pair<int, std::string>, Report> reports_;
};

// Thrown after a report from which a block cannot go on (deadlock, trap, step limit).
struct BlockStopped {};

}  // namespace pyconvx::emulator
