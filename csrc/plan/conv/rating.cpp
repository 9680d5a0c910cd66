#include "plan/conv/rating.h"

#include <algorithm>

namespace pyconvx {

ProductSize product_size(const Conv2dProblem& x) {
  return {x.n * x.p() * x.q(), x.k / x.groups, x.groups, x.r * x.s * (x.c / x.groups)};
}

int resident_blocks(int threads, int registers, int shared, const Device& device) {
  const int by_registers = static_cast<int>(65536 / (ceil_div(registers, 8) * 8 * threads));
  const int by_shared = device.shared_per_sm / (shared + 1024);
  return std::min({by_registers, by_shared, device.threads_per_sm / threads, 32});
}

// An SM works through its blocks one after another as far as its pipes are concerned; those that are resident
// together only hide each other's latencies. What a block does not share with its neighbours is its start and
// its end, `latency` clocks, which overlap with other residents' work.
Candidate rate(const TileShape& tile, const ProductSize& size, int resident, double slice_clocks,
               double latency, const Device& device) {
  const int64_t blocks =
      ceil_div(size.pixels, tile.pixels) * ceil_div(size.filters, tile.filters) * size.groups;
  const int64_t rounds = ceil_div(blocks, device.sms);
  const int64_t together = std::min<int64_t>(std::max(resident, 1), rounds);
  // Fewer than eight warps leave gaps between a barrier and the first instruction of the next slice.
  const double gaps = together * tile.threads() < 256 ? 1.2 : 1;
  const double work = static_cast<double>(ceil_div(size.reduction, tile.depth)) * slice_clocks * gaps;
  Candidate candidate;
  candidate.tile = tile.name();
  candidate.blocks_per_sm = resident;
  candidate.waves = static_cast<double>(blocks) / (static_cast<double>(device.sms) * std::max(resident, 1));
  candidate.clocks = static_cast<double>(rounds) * (work + latency / static_cast<double>(together));
  return candidate;
}

}  // namespace pyconvx
