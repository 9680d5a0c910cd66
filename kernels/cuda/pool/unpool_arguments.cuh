// What a kernel of max unpooling is given, by value. Shared by host and device.
//
// Pooled values are N P Q C, planes N H W C; in NCHW there are N C images of one channel. Sizes fit 31 bits,
// and so does where windows end in the plane; tensors may be larger.
#pragma once

#include "bands.cuh"
#include "sweep.cuh"

namespace pyconvx {

struct UnpoolArguments {
  const void* from;  // forward: pooled values; backward: the gradient of the plane
  const void* indices;
  void* to;    // forward: the plane; backward: the gradient of the pooled values
  void* last;  // for each place of the plane, 1 + the last pooled position that names it, or 0

  // 0, or ~(the place in memory of the first index that points outside its plane)
  unsigned long long* bad_index;

  int p, q, h, w, c;
  int r, s;
  int stride_h, stride_w;
  int pad_top, pad_left;
  int dilation_h, dilation_w;
  int reach_h, reach_w;  // how many windows may lie over one row, or column
  Division by_s, by_dilation_h, by_dilation_w;
  Bands bands;  // where a block has rows of planes, instead of the sweep
  Sweep sweep;
};

struct FillArguments {
  void* to;           // zeros
  long long vectors;  // of 16 bytes
};

}  // namespace pyconvx
