#include "counters.h"

#include <algorithm>

namespace pyconvx::emulator {

constexpr int kSectorShift = 5;
constexpr int kBanks = 32;

void SiteCounts::add(const SiteCounts& other) {
  warps += other.warps;
  threads += other.threads;
  requests += other.requests;
  sectors += other.sectors;
  bytes += other.bytes;
  wavefronts += other.wavefronts;
  ideal_wavefronts += other.ideal_wavefronts;
  shared_bytes += other.shared_bytes;
}

void count_global(SiteCounts& site, LaneMask lanes, const uint64_t* address, uint32_t bytes) {
  if (!lanes) return;
  uint64_t sectors[2 * kLanes];  // 32 bytes is the widest access, so a lane touches at most two
  int found = 0;
  bool sorted = true;
  for_lanes(lanes, [&](int lane) {
    const uint64_t first = address[lane] >> kSectorShift, last = (address[lane] + bytes - 1) >> kSectorShift;
    for (uint64_t sector = first; sector <= last && sector < first + 2; ++sector) {
      if (found && sectors[found - 1] == sector) continue;
      sorted &= !found || sectors[found - 1] < sector;
      sectors[found++] = sector;
    }
  });
  if (!sorted) {
    std::sort(sectors, sectors + found);
    found = static_cast<int>(std::unique(sectors, sectors + found) - sectors);
  }
  ++site.requests;
  site.sectors += found;
  site.bytes += uint64_t(lane_count(lanes)) * bytes;
}

namespace {

struct Passes {
  int wavefronts, distinct;  // words of 4 bytes
};

// The lanes of one pass, whatever they access: a bank gives one word at a time.
Passes general_passes(LaneMask pass, const uint64_t* address, uint32_t bytes) {
  uint32_t words[kBanks][kLanes];
  uint8_t depth[kBanks] = {};
  Passes passes{0, 0};
  for_lanes(pass, [&](int lane) {
    const uint32_t at = static_cast<uint32_t>(address[lane]);
    for (uint32_t word = at >> 2; word <= (at + bytes - 1) >> 2; ++word) {
      const uint32_t bank = word % kBanks;
      int k = 0;
      while (k < depth[bank] && words[bank][k] != word) ++k;
      if (k < depth[bank] || k == kLanes) continue;
      words[bank][depth[bank]++] = word;
      ++passes.distinct;
      passes.wavefronts = std::max(passes.wavefronts, k + 1);
    }
  });
  return passes;
}

// The same for aligned accesses that meet in no bank but at one address, as most do: a lane's words then lie
// in banks of their own or are another lane's.
bool without_conflict(LaneMask pass, const uint64_t* address, uint32_t bytes, Passes& passes) {
  const int shift = bytes == 4 ? 2 : bytes == 8 ? 3 : bytes == 16 ? 4 : 0;
  if (!shift) return false;
  uint32_t unit_of[kBanks], seen = 0;
  for (LaneMask left = pass; left; left &= left - 1) {
    const uint32_t at = static_cast<uint32_t>(address[first_lane(left)]);
    if (at & (bytes - 1)) return false;
    const uint32_t unit = at >> shift, place = unit & ((4 * kBanks >> shift) - 1);
    if (seen >> place & 1) {
      if (unit_of[place] != unit) return false;
      continue;
    }
    seen |= 1u << place;
    unit_of[place] = unit;
  }
  passes = {1, lane_count(seen) << (shift - 2)};
  return true;
}

}  // namespace

void count_shared(SiteCounts& site, LaneMask lanes, const uint64_t* address, uint32_t bytes) {
  const int lanes_per_pass = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
  for (int begin = 0; begin < kLanes; begin += lanes_per_pass) {
    const LaneMask pass = lanes_per_pass == 32 ? lanes : lanes >> begin & ((1u << lanes_per_pass) - 1);
    if (!pass) continue;
    Passes passes;
    if (!without_conflict(pass, address + begin, bytes, passes))
      passes = general_passes(pass, address + begin, bytes);
    site.wavefronts += passes.wavefronts;
    site.ideal_wavefronts += (passes.distinct + kBanks - 1) / kBanks;
  }
  site.shared_bytes += uint64_t(lane_count(lanes)) * bytes;
}

}  // namespace pyconvx::emulator
