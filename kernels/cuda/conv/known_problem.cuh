// What a kernel that is compiled for one problem takes for granted.
//
// Ahead of time a kernel is compiled for all problems, and reads their sizes from its arguments. At run time
// it can be compiled for one: the plan's constants are then macros, which take the arguments' places. Nothing
// else depends on them, so both give the same bits.
#pragma once

#include "arguments.cuh"

namespace pyconvx {

#ifdef PYCONVX_C

__device__ inline Conv2dArguments known(Conv2dArguments args) {
  args.c = PYCONVX_C;
  args.k = PYCONVX_K;
  args.r = PYCONVX_R;
  args.s = PYCONVX_S;
  args.stride_h = PYCONVX_STRIDE_H;
  args.stride_w = PYCONVX_STRIDE_W;
  args.dilation_h = PYCONVX_DILATION_H;
  args.dilation_w = PYCONVX_DILATION_W;
  args.group_channels = PYCONVX_GROUP_CHANNELS;
  args.group_filters = PYCONVX_GROUP_FILTERS;
  args.reduction = PYCONVX_REDUCTION;
  args.by_channels = division_by(PYCONVX_GROUP_CHANNELS);
  args.by_multiplier = division_by(PYCONVX_GROUP_FILTERS);
  args.by_s = division_by(PYCONVX_S);
  return args;
}

#else

__device__ inline const Conv2dArguments& known(const Conv2dArguments& args) {
  return args;
}

#endif

}  // namespace pyconvx
