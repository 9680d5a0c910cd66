#include "plan/tiles.h"

#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

int64_t ceil_div(int64_t x, int64_t y) {
  return (x + y - 1) / y;
}

int resident_blocks(int threads, int registers, int shared, const Device& device) {
  const int by_registers = 65536 / (ceil_div(registers, 8) * 8 * threads);
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

constexpr double kSharedBytesPerClock = 128;  // of an SM
constexpr double kL2BytesPerClock = 48;       // of an SM, when all read

}  // namespace

std::string TileShape::name() const {
  return std::to_string(pixels) + "x" + std::to_string(filters) + "x" + std::to_string(depth);
}

// ---------------------------------------------------------------------------------------------------------
// Tensor cores. Depths are in elements: rows of 64 or 128 bytes.

const std::vector<TileShape>& tensor_core_tiles(int element_bytes) {
  static const std::vector<TileShape> of_16_bits = {
      // pixels, filters, depth, warps, stages
      {256, 128, 32, 4, 2, 3}, {256, 64, 32, 4, 1, 4}, {128, 256, 32, 2, 4, 3}, {128, 128, 64, 2, 2, 3},
      {128, 128, 32, 2, 2, 4}, {128, 64, 64, 2, 2, 3}, {128, 64, 32, 2, 2, 4},  {64, 128, 64, 2, 2, 3},
      {64, 128, 32, 2, 2, 4},  {128, 32, 32, 4, 1, 4}, {64, 64, 64, 2, 2, 3},   {64, 64, 32, 2, 2, 4},
      {64, 32, 64, 4, 1, 3},   {32, 64, 64, 2, 2, 3},
  };
  static const std::vector<TileShape> of_32_bits = [] {
    std::vector<TileShape> halved = of_16_bits;
    for (TileShape& tile : halved) tile.depth /= 2;
    return halved;
  }();
  return element_bytes == 2 ? of_16_bits : of_32_bits;
}

int tensor_core_shared_bytes(const TileShape& tile, int element_bytes) {
  return (tile.pixels + tile.filters) * tile.depth * element_bytes * tile.stages;
}

// A slice takes as long as the busiest of: tensor cores, issue slots, shared memory, and L2.
Candidate rate_tensor_core(const TileShape& tile, const ProductSize& size, int element_bytes,
                           const Device& device) {
  const int warps = tile.warps_m * tile.warps_n, steps = tile.depth * element_bytes / 32;
  const int m = tile.pixels / tile.warps_m / 16, n = tile.filters / tile.warps_n / 8;
  const int hmma = m * n * steps, ldmatrix = (m + n / 2) * steps;  // of a warp
  const int bytes = (tile.pixels + tile.filters) * tile.depth * element_bytes;
  const double copies = static_cast<double>(bytes) / 16 / tile.threads();  // of a thread
  // Copies come with their addresses and bit tests; 30 instructions run the loop.
  const double instructions = hmma + ldmatrix + 4 * copies + 30;
  const double clocks = std::max({
      hmma * warps * device.slots_per_hmma / 4,
      instructions * warps / 4,
      (ldmatrix * warps * 512.0 + bytes) / kSharedBytesPerClock,
      bytes / kL2BytesPerClock,
  });
  const int registers = std::min(m * n * 4 + 2 * (m * 4 + n * 2) + 60, 255);
  const int resident =
      resident_blocks(tile.threads(), registers, tensor_core_shared_bytes(tile, element_bytes), device);
  const double latency =
      1500 + 0.5 * tile.pixels * tile.filters / warps / 8;  // first slices' way, and the epilogue
  return rate(tile, size, resident, clocks, latency, device);
}

// ---------------------------------------------------------------------------------------------------------
// FFMA.

const std::vector<TileShape>& ffma_tiles() {
  static const std::vector<TileShape> tiles = {
      {128, 128, 8, 4, 2, 4}, {128, 64, 8, 4, 1, 4}, {64, 128, 8, 2, 2, 4},
      {64, 64, 8, 2, 1, 4},   {32, 64, 8, 1, 1, 4},
  };
  return tiles;
}

int ffma_shared_bytes(const TileShape& tile) {
  return (tile.pixels + tile.filters + 8) * tile.depth * 4 * tile.stages;
}

Candidate rate_ffma(const TileShape& tile, const ProductSize& size, const Device& device) {
  const double ffma = static_cast<double>(tile.pixels) * tile.filters * tile.depth;
  const double bytes = static_cast<double>(tile.pixels + tile.filters) * tile.depth * 4;
  // Every FFMA is issued too: four sub-partitions issue 128 lanes a clock, of which a quarter does something
  // else.
  const double clocks = std::max({ffma / device.ffma_per_clock, ffma * 1.3 / 128, bytes / kL2BytesPerClock});
  const int resident = resident_blocks(tile.threads(), 128, ffma_shared_bytes(tile), device);
  return rate(tile, size, resident, clocks, 1500, device);
}

// ---------------------------------------------------------------------------------------------------------
// Few channels.

const std::vector<TileShape>& few_channels_tiles() {
  static const std::vector<TileShape> tiles = {{128, 64, 0, 4, 1, 2}, {128, 32, 0, 4, 1, 2}};
  return tiles;
}

int64_t few_channels_shared_bytes(const Conv2dProblem& x, int filters) {
  const int64_t pixel = 4 * element_bytes(x.dtype), taps = 32 / pixel;
  const int64_t filter = (x.r * ceil_div(x.s, taps) * 2 | 1) * 16;
  const int64_t rows = 7 * x.stride_h + (x.r - 1) * x.dilation_h + 1;
  const int64_t columns = 15 * x.stride_w + (x.s - 1) * x.dilation_w + 1;
  const double bytes = static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(pixel);
  if (bytes > 1 << 24) return 1 << 26;  // more than any chip has
  return filters * filter + 2 * (ceil_div(rows * columns * pixel, 16) * 16);
}

Candidate rate_few_channels(const TileShape& tile, const Conv2dProblem& x, const Device& device) {
  const int bytes = element_bytes(x.dtype);
  const int64_t steps = x.r * ceil_div(x.s, 8 / bytes);
  const double hmma = 2.0 * tile.filters / 8 * static_cast<double>(steps);  // of a warp
  // Twice as many instructions in the loop, and some 150 for a patch's addresses and the epilogue.
  const double clocks = std::max(hmma * device.slots_per_hmma, hmma * 2 + 150);
  const int64_t shared = few_channels_shared_bytes(x, tile.filters);
  const int resident =
      shared > device.shared_per_block ? 0 : resident_blocks(128, 200, static_cast<int>(shared), device);
  const int64_t tiles = x.n * ceil_div(x.p(), 8) * ceil_div(x.q(), 16) * ceil_div(x.k, tile.filters);
  const int64_t slots = static_cast<int64_t>(device.sms) * std::max(resident, 1);
  Candidate candidate;
  candidate.tile = "8x16x" + std::to_string(tile.filters);
  candidate.blocks_per_sm = resident;
  candidate.waves = static_cast<double>(tiles) / static_cast<double>(slots);
  candidate.clocks = static_cast<double>(ceil_div(tiles, slots)) * resident * clocks;
  return candidate;
}

// ---------------------------------------------------------------------------------------------------------
// Depthwise.

int64_t depthwise_shared_bytes(const Conv2dProblem& x) {
  return std::min<int64_t>(x.r * x.s, 1 << 24) * kDepthwiseVectors * (16 / element_bytes(x.dtype)) * 4;
}

}  // namespace pyconvx
