// Filters for dgrad, which is a set of convolutions of the output's gradient with stride 1.
//
//   grad_input[n][h][w][c] = sum over k and all taps (r, s) that lead from some output pixel (p, q) to (h,
//   w): h = p stride_h - pad_top + r dilation_h,  w likewise,  of grad_output[n][p][q][k] *
//   filter[k][r][s][c]
//
// Rows. Of the taps r that reach row h, one and the next are `apart` = stride / gcd(stride, dilation) rows
// apart, for r' = r + apart asks for p' = p - dilation / gcd. So the taps fall into classes r mod apart; a
// class reaches the rows h = first + i stride of the input, and there it is a convolution of stride 1, in
// which i + 1 sees p + 1, and whose taps are dilation / gcd rows of grad_output apart. Larger r is smaller p:
// its window runs backwards. Columns likewise; a class of both has R' x S' taps, and nothing is ever
// multiplied by the zeros between outputs. With stride 1 there is one class, of all taps.
//
// This kernel brings each class's filters into the form that the convolution wants, c being its filter and k
// its channel: rearranged[class][c][r'][s'][k], windows reversed. The classes follow each other in the order
// of their first tap (r0, s0); with A rows of filters in classes before r0's, and R' in its own, the class
// begins
//
//   (A S + R' B) C K/groups elements from the start, B being the columns before s0's.
//
// A block transposes tiles of 32 filters x 32 channels of one tap and one group through shared memory.
#pragma once

#include "arguments.cuh"

namespace pyconvx {

// How many of `taps` taps with step `apart` there are from `first` on, and in all classes before that one.
__device__ inline int taps_of_class(int taps, int apart, int first) {
  return (taps - first + apart - 1) / apart;
}
__device__ inline int taps_before_class(int taps, int apart, int first) {
  int before = 0;
  for (int i = 0; i < first; ++i) before += taps_of_class(taps, apart, i);
  return before;
}

// Bits is an unsigned integer as wide as the elements: nothing is computed with them.
template <class Bits>
__global__ void __launch_bounds__(256) dgrad_filter(const __grid_constant__ DgradFilterArguments args) {
  constexpr int TILE = 32, ROWS_AT_ONCE = 256 / TILE;
  __shared__ Bits tile[TILE][TILE + (sizeof(Bits) == 2 ? 2 : 1)];
  const Bits* filter = static_cast<const Bits*>(args.filter);
  Bits* rearranged = static_cast<Bits*>(args.rearranged);
  const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
  const long long per_tap = static_cast<long long>(args.groups) * args.filter_tiles * args.channel_tiles;
  const long long tiles = static_cast<long long>(args.r) * args.s * per_tap;

  for (long long i = blockIdx.x; i < tiles; i += gridDim.x) {
    const int tap = static_cast<int>(i / per_tap), r = tap / args.s, s = tap % args.s;
    const long long in_tap = i % per_tap, group = in_tap / (args.filter_tiles * args.channel_tiles);
    const int k0 = static_cast<int>(in_tap / args.channel_tiles % args.filter_tiles) * TILE;
    const int c0 = static_cast<int>(in_tap % args.channel_tiles) * TILE;
    const Bits* from = filter + group * args.group_filters * args.step_k + r * args.step_r + s * args.step_s;
#pragma unroll
    for (int j = y; j < TILE; j += ROWS_AT_ONCE)
      if (k0 + j < args.group_filters && c0 + x < args.group_channels)
        tile[j][x] = from[(k0 + j) * args.step_k + (c0 + x) * args.step_c];
    __syncthreads();

    const int r0 = r % args.apart_h, s0 = s % args.apart_w;
    const int rows = taps_of_class(args.r, args.apart_h, r0),
              columns = taps_of_class(args.s, args.apart_w, s0);
    const long long channels = static_cast<long long>(args.groups) * args.group_channels;
    const long long before = static_cast<long long>(taps_before_class(args.r, args.apart_h, r0)) * args.s +
                             static_cast<long long>(rows) * taps_before_class(args.s, args.apart_w, s0);
    const int place = (rows - 1 - r / args.apart_h) * columns + columns - 1 - s / args.apart_w;
    Bits* to = rearranged + before * channels * args.group_filters;
#pragma unroll
    for (int j = y; j < TILE; j += ROWS_AT_ONCE)
      if (c0 + j < args.group_channels && k0 + x < args.group_filters)
        to[((group * args.group_channels + c0 + j) * rows * columns + place) * args.group_filters + k0 + x] =
            tile[x][j];
    __syncthreads();
  }
}

}  // namespace pyconvx
