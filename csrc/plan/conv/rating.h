// The model that rates tiles: what a block takes of an SM, and how long a chip needs for all blocks.
#pragma once

#include "plan/conv/fprop.h"

namespace pyconvx {

// Sizes of the matrix product that a convolution is.
struct ProductSize {
  int64_t pixels, filters, groups, reduction;  // filters and reduction of one group
};
ProductSize product_size(const Conv2dProblem&);

constexpr double kSharedBytesPerClock = 128;  // of an SM
constexpr double kL2BytesPerClock = 48;       // of an SM, when all read

int resident_blocks(int threads, int registers, int shared, const Device&);

// A tile of which a block works through ceil(reduction / depth) slices, each in slice_clocks.
Candidate rate(const TileShape&, const ProductSize&, int resident, double slice_clocks, double latency,
               const Device&);

}  // namespace pyconvx
