#include "happens_before.h"

#include <algorithm>

namespace pyconvx::emulator {

void HappensBefore::begin_block(uint32_t warps) {
  warps_ = warps;
  start_ = ++now_;
  known_.assign(size_t(warps) * warps, start_);
  settled_.assign(warps, start_);
  pairs_.clear();
  pairs_.resize(warps);
}

void HappensBefore::settle(uint32_t warp) {
  const Time* row = &known_[size_t(warp) * warps_];
  settled_[warp] = *std::min_element(row, row + warps_);
}

bool HappensBefore::visible(uint32_t by_warp, int by_lane, Time when, uint32_t warp, int lane) const {
  if (when < known(warp, by_warp)) return true;
  if (by_warp != warp) return false;
  return by_lane == lane || (pairs_[warp] && when < (*pairs_[warp])[lane][by_lane]);
}

void HappensBefore::synchronize_lanes(uint32_t warp, LaneMask lanes, LaneMask all) {
  ++now_;
  if ((lanes & all) == all) {
    known(warp, warp) = now_;
    return settle(warp);
  }
  if (!pairs_[warp]) {
    pairs_[warp] = std::make_unique<LanePairs>();
    for (auto& row : *pairs_[warp]) row.fill(known(warp, warp));
  }
  LanePairs& pairs = *pairs_[warp];
  std::array<Time, kLanes> together{};
  for_lanes(lanes, [&](int lane) {
    for (int other = 0; other < kLanes; ++other)
      together[other] = std::max(together[other], pairs[lane][other]);
  });
  for_lanes(lanes, [&](int lane) { together[lane] = now_; });
  for_lanes(lanes, [&](int lane) { pairs[lane] = together; });
}

void HappensBefore::arrive(Published& published, uint32_t warp) {
  published.resize(warps_, 0);
  known(warp, warp) = ++now_;
  settle(warp);
  for (uint32_t u = 0; u < warps_; ++u) published[u] = std::max(published[u], known(warp, u));
}

void HappensBefore::leave(const Published& published, uint32_t warp) {
  for (uint32_t u = 0; u < warps_; ++u) known(warp, u) = std::max(known(warp, u), published[u]);
  settle(warp);
}

// Nobody runs between the last arrival and now, so all of them share one time and later checks take the fast
// way.
void HappensBefore::everyone_met(const std::vector<uint32_t>& warps) {
  ++now_;
  for (uint32_t warp : warps) {
    for (uint32_t other : warps) known(warp, other) = now_;
    settle(warp);
  }
}

}  // namespace pyconvx::emulator
