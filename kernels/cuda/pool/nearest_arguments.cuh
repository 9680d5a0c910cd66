// What a kernel of nearest unpooling is given, by value. Shared by host and device.
#pragma once

#include "bands.cuh"
#include "sweep.cuh"

namespace pyconvx {

struct NearestArguments {
  const void* from;
  void* to;
  int p, q, w, c;  // of the small image; and the width of the large one
  int scale_h, scale_w;
  Division by_scale_w;
  Bands bands;  // where a block has rows of planes, instead of the sweep
  Sweep sweep;
};

}  // namespace pyconvx
