#include "plan/conv/rating.h"

#include "plan/conv_arguments.h"

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

double compulsory_bytes(const Conv2dProblem& x) {
  const auto number = [](int64_t size) { return static_cast<double>(size); };
  const double input = number(x.n) * number(x.h) * number(x.w) * number(x.c);
  const double output = number(x.n) * number(x.p()) * number(x.q()) * number(x.k);
  const double filter = number(x.k) * number(x.r) * number(x.s) * number(x.c / x.groups);
  return (input + filter + output * (x.residual ? 2 : 1)) * element_bytes(x.dtype);
}

// An SM works through its blocks one after another as far as its pipes are concerned; those that are resident
// together only hide each other's latencies. What a block does not share with its neighbours is its start and
// its end, `latency` clocks, which overlap with other residents' work. A slice takes as long as the busiest
// of an SM's parts, and all of it no less than DRAM.
Candidate rate(const std::string& tile, const BlockWork& block, int64_t blocks, int resident,
               double dram_bytes, const Device& device) {
  const SliceWork& slice = block.slice;
  const int64_t rounds = ceil_div(blocks, device.sms);
  const int64_t together = std::min<int64_t>(std::max(resident, 1), rounds);
  // Fewer than eight warps leave gaps between a barrier and the first instruction of the next slice.
  const double gaps = together * block.threads < 256 ? 1.2 : 1;
  const double slices = static_cast<double>(block.slices);
  const double busiest = std::max({slice.tensor, slice.issue, slice.shared, slice.l2});
  const double all = static_cast<double>(rounds) * slices;
  Candidate candidate;
  candidate.tile = tile;
  candidate.blocks_per_sm = resident;
  candidate.waves = static_cast<double>(blocks) / (static_cast<double>(device.sms) * std::max(resident, 1));
  candidate.tensor = all * slice.tensor, candidate.issue = all * slice.issue;
  candidate.shared = all * slice.shared, candidate.l2 = all * slice.l2;
  candidate.dram = dram_bytes / device.dram_bytes_per_clock;
  const double latency = block.latency / static_cast<double>(together);
  const double sms = static_cast<double>(rounds) * (slices * busiest * gaps + latency);
  candidate.clocks = std::max(sms, candidate.dram);
  return candidate;
}

Candidate rate(const TileShape& tile, const Conv2dProblem& x, const SliceWork& slice, int resident,
               double latency, const Device& device) {
  const ProductSize size = product_size(x);
  const int64_t blocks =
      ceil_div(size.pixels, tile.pixels) * ceil_div(size.filters, tile.filters) * size.groups;
  const BlockWork block{ceil_div(size.reduction, tile.depth), slice, latency, tile.threads()};
  return rate(tile.name(), block, blocks, resident, compulsory_bytes(x), device);
}

}  // namespace pyconvx
