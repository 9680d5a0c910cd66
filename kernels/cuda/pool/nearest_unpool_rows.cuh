// The gradient of nearest unpooling of planes (N C H W): the sums of nearest_unpool.cuh, to the bit, from
// rows in shared memory. A block owns rows of sums (bands.cuh); the gradients of their cells are a run.
#pragma once

#include "nearest_arguments.cuh"
#include "run.cuh"

namespace pyconvx {

template <class Element>
__global__ void __launch_bounds__(256)
    nearest_unpool_rows_backward(const __grid_constant__ NearestArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  using Number = Accumulator<Element>;
  const Band band(args.bands);
  const long long row = static_cast<long long>(band.image) * args.p + band.row;
  const long long first = row * args.scale_h * args.w;
  const Run<Bits<Element>> gradient(shared, args.from, first, band.rows * args.scale_h * args.w);
  gradient.load(first, static_cast<long long>(args.bands.all_rows) * args.scale_h * args.w);
  __syncthreads();
  const int count = band.rows * args.q;
  const Run<Bits<Element>> output(shared + args.bands.second, args.to, row * args.q, count);
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += 256) {
    const int line = args.bands.by_columns(i);
    const int corner = line * args.scale_h * args.w + (i - line * args.q) * args.scale_w;
    Number sum[1];
    for (int dh = 0; dh < args.scale_h; ++dh)
      for (int dw = 0; dw < args.scale_w; ++dw) {
        unsigned words[kWords<sizeof(Element)>];
        to_words(words, gradient[corner + dh * args.w + dw]);
        Number term[1];
        widen_words<Element>(term, words);
        sum[0] = dh + dw ? sum[0] + term[0] : term[0];
      }
    unsigned words[kWords<sizeof(Element)>];
    narrow_words<Element>(words, sum);
    output[i] = from_words<Bits<Element>>(words);
  }
  __syncthreads();
  output.store();
}

}  // namespace pyconvx
