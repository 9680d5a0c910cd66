// Nearest unpooling: every value fills its cell of scale_h x scale_w outputs; and its gradient, the cell's
// sum.
//
//   output[n][h][w][c] = input[n][h / scale_h][w / scale_w][c]
//   grad_input[n][p][q][c] = sum over dh, dw of grad_output[n][p scale_h + dh][q scale_w + dw][c]
//
// Every element of either tensor is moved once. Channels last, a thread has 16 bytes of one cell's channels,
// so that neighbouring threads lie side by side on both sides. In NCHW an image is a plane of one channel;
// forward, threads there have 16 bytes of a row of outputs, which they write to all rows of the cells, and
// read a value for each: a few bytes, from a line of the cache that their neighbours read as well.
//
// Order of summation: one addition after another in row-major order, in the accumulator's type, rounded once.
#pragma once

#include "nearest_arguments.cuh"
#include "words.cuh"

namespace pyconvx {

template <class Value, int V>
__global__ void __launch_bounds__(256) nearest_unpool(const __grid_constant__ NearestArguments args) {
  constexpr int BYTES = V * sizeof(Value);
  const Place at = place_of(args.sweep, blockIdx.x * 256 + threadIdx.x);
  if (!at.exists) return;
  const long long row = static_cast<long long>(at.image) * args.p + at.row, h = row * args.scale_h;
  const int w = at.column * args.scale_w, c = at.chunk * V;
  unsigned value[kWords<BYTES>];
  load_words<BYTES>(value, static_cast<const Value*>(args.from) + (row * args.q + at.column) * args.c + c);
  for (int dh = 0; dh < args.scale_h; ++dh)
    for (int dw = 0; dw < args.scale_w; ++dw)
      store_words<BYTES>(static_cast<Value*>(args.to) + ((h + dh) * args.w + w + dw) * args.c + c, value);
}

// Of planes: a chunk is V neighbouring outputs.
template <class Value, int V>
__global__ void __launch_bounds__(256) nearest_unpool_rows(const __grid_constant__ NearestArguments args) {
  constexpr int BYTES = V * sizeof(Value);
  const Place at = place_of(args.sweep, blockIdx.x * 256 + threadIdx.x);
  if (!at.exists) return;
  const long long row = static_cast<long long>(at.image) * args.p + at.row, h = row * args.scale_h;
  const int w = at.column * V;
  const Value* from = static_cast<const Value*>(args.from) + row * args.q;
  unsigned out[kWords<BYTES>] = {};
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Value value = from[args.by_scale_w(w + v)];
    if constexpr (sizeof(Value) == 8)
      out[2 * v] = static_cast<unsigned>(value), out[2 * v + 1] = static_cast<unsigned>(value >> 32);
    else if constexpr (sizeof(Value) == 4)
      out[v] = value;
    else
      out[v / 2] |= static_cast<unsigned>(value) << 16 * (v % 2);
  }
  for (int dh = 0; dh < args.scale_h; ++dh)
    store_words<BYTES>(static_cast<Value*>(args.to) + (h + dh) * args.w + w, out);
}

template <class Element, int V>
__global__ void __launch_bounds__(256)
    nearest_unpool_backward(const __grid_constant__ NearestArguments args) {
  constexpr int BYTES = V * sizeof(Element);
  using Number = Accumulator<Element>;
  const Place at = place_of(args.sweep, blockIdx.x * 256 + threadIdx.x);
  if (!at.exists) return;
  const long long row = static_cast<long long>(at.image) * args.p + at.row, h = row * args.scale_h;
  const int w = at.column * args.scale_w, c = at.chunk * V;
  Number sum[V];
#pragma unroll 1
  for (int dh = 0; dh < args.scale_h; ++dh)
#pragma unroll 2  // by itself the compiler unrolls more than sm_80 has registers for
    for (int dw = 0; dw < args.scale_w; ++dw) {
      unsigned grad[kWords<BYTES>];
      load_words<BYTES>(grad,
                        static_cast<const Element*>(args.from) + ((h + dh) * args.w + w + dw) * args.c + c);
      Number term[V];
      widen_words<Element>(term, grad);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = dh + dw ? sum[v] + term[v] : term[v];
    }
  unsigned out[kWords<BYTES>];
  narrow_words<Element>(out, sum);
  store_words<BYTES>(static_cast<Element*>(args.to) + (row * args.q + at.column) * args.c + c, out);
}

}  // namespace pyconvx
