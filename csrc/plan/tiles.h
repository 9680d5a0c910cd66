// The tiles of each kernel family, and a model of the time that a problem takes with each.
#pragma once

#include "plan/plan.h"
#include "problem.h"

namespace pyconvx {

// A block's share: pixels x filters outputs, depth elements of the reduction at a time, stages slices in
// shared memory, warps_m x warps_n warps.
struct TileShape {
  int pixels, filters, depth;
  int warps_m, warps_n, stages;

  int threads() const { return 32 * warps_m * warps_n; }
  std::string name() const;  // "128x128x32"
};

// Sizes of the matrix product that a convolution is.
struct ProductSize {
  int64_t pixels, filters, groups, reduction;  // filters and reduction of one group
};

const std::vector<TileShape>& tensor_core_tiles(int element_bytes);
int tensor_core_shared_bytes(const TileShape&, int element_bytes);
Candidate rate_tensor_core(const TileShape&, const ProductSize&, int element_bytes, const Device&);

const std::vector<TileShape>& ffma_tiles();
int ffma_shared_bytes(const TileShape&);
Candidate rate_ffma(const TileShape&, const ProductSize&, const Device&);

// Blocks of 8 x 16 pixels; the depth is the whole reduction.
const std::vector<TileShape>& few_channels_tiles();
int64_t few_channels_shared_bytes(const Conv2dProblem&, int filters);
Candidate rate_few_channels(const TileShape&, const Conv2dProblem&, const Device&);

// A block of the depthwise kernel: 256 threads, each with a vector of channels of 4 pixels in a row.
constexpr int kDepthwiseVectors = 4, kDepthwiseRun = 4, kDepthwiseThreads = 256;
int64_t depthwise_shared_bytes(const Conv2dProblem&);

}  // namespace pyconvx
