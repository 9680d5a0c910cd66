// Who may rely on whose accesses: the order that barriers make between the warps of a block, and __syncwarp
// between the lanes of a warp.
//
// The block has one clock; every synchronisation moves it. For each pair of warps (v, u) we know the time
// before which all accesses of u are visible to v. Lanes of one warp are ordered by that warp's last full
// synchronisation; only a warp that synchronises some of its lanes gets a table of all pairs of lanes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "types.h"

namespace pyconvx::emulator {

using Time = uint32_t;

class HappensBefore {
public:
  // What the arrivals at one barrier bring along: for each warp, the time before which its accesses are
  // published.
  using Published = std::vector<Time>;

  void begin_block(uint32_t warps);
  Time now() const { return now_; }
  Time block_start() const { return start_; }
  Time settled(uint32_t warp) const { return settled_[warp]; }  // before it, everybody's accesses are visible
  Time warp_settled(uint32_t warp) const { return known(warp, warp); }

  bool visible(uint32_t by_warp, int by_lane, Time when, uint32_t warp, int lane) const;
  bool visible_to_warp(uint32_t by_warp, Time when, uint32_t warp) const {
    return when < known(warp, by_warp);
  }

  void synchronize_lanes(uint32_t warp, LaneMask lanes, LaneMask all);
  void arrive(Published& published, uint32_t warp);
  void leave(const Published& published, uint32_t warp);
  void everyone_met(const std::vector<uint32_t>& warps);  // all live warps wait at one barrier

  void restart() { now_ = 0; }
  bool nearly_out_of_time() const { return now_ > (1u << 25); }

private:
  using LanePairs = std::array<std::array<Time, kLanes>, kLanes>;  // [lane][of whom]
  Time known(uint32_t warp, uint32_t of) const { return known_[warp * warps_ + of]; }
  Time& known(uint32_t warp, uint32_t of) { return known_[warp * warps_ + of]; }
  void settle(uint32_t warp);

  uint32_t warps_ = 0;
  Time now_ = 0, start_ = 0;
  std::vector<Time> known_, settled_;
  std::vector<std::unique_ptr<LanePairs>> pairs_;  // by warp; absent until lanes synchronise in part
};

}  // namespace pyconvx::emulator
