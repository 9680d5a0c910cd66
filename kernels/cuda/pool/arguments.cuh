// What a kernel of max pooling is given, by value. Shared by host and device.
//
// Images are N H W C, windows N P Q C; in NCHW there are N C images of one channel. Sizes fit 31 bits, and so
// do the padded image and a window's extent; tensors may be larger.
#pragma once

#include "bands.cuh"
#include "sweep.cuh"

namespace pyconvx {

struct MaxPoolArguments {
  const void* from;  // forward, gather: the image; backward: the gradient of the output
  // Backward, where a ReLU came before the pooling: its output. Windows whose output is not above 0 pass no
  // gradient on. Null where there was none.
  const void* pooled;
  void* indices;  // written by the forward pass, read by the others
  void* to;       // forward, gather: the output; backward: the gradient of the image

  int h, w, c;
  int p, q;
  int r, s;
  int stride_h, stride_w;
  int pad_top, pad_left;
  int dilation_h, dilation_w;
  Division by_dilation_h, by_dilation_w, by_stride_h, by_stride_w;
  Division by_s;

  int relu;              // any window: is there a ReLU before the pooling?
  int rows;              // of windows that a thread walks down
  int exchange_indices;  // do neighbouring lanes, whose indices make up vectors, lie in one pixel?
  Bands bands;           // where a block has rows of planes, instead of the sweep
  Sweep sweep;
};

}  // namespace pyconvx
