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

// Clocks of an SM that a block's slice takes of each of its parts.
struct SliceWork {
  double tensor = 0, issue = 0, shared = 0, l2 = 0;
};

struct BlockWork {
  int64_t slices;
  SliceWork slice;
  double latency;  // clocks of its start and its end
  int threads;
};

// Bytes of the tensors, each moved once.
double compulsory_bytes(const Conv2dProblem&);

Candidate rate(const std::string& tile, const BlockWork&, int64_t blocks, int resident, double dram_bytes,
               const Device&);

// A tile whose blocks work through a gathered matrix product.
Candidate rate(const TileShape&, const Conv2dProblem&, const SliceWork&, int resident, double latency,
               const Device&);

}  // namespace pyconvx
