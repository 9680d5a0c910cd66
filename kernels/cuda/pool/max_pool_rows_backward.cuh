// The gradient of max pooling of planes (N C H W): the results of max_pool_backward.cuh, to the bit, from
// rows in shared memory.
//
// A block owns rows of pixels (bands.cuh), and needs the rows of windows that reach them: gradients and
// indices are a run each. Where the window is a constant, a thread owns a block of STRIDE x STRIDE pixels, of
// which block (m, n) begins where window (m, n) does: it looks at the windows (m - i, n - j), 0 <= i, j <=
// REACH, once, and bands are rows of such blocks. For any other window it owns one pixel. Neighbouring
// threads have neighbouring windows and pixels `STRIDE` elements apart: in the 16-bit formats in different
// banks.
#pragma once

#include "arguments.cuh"
#include "gradient_sum.cuh"
#include "run.cuh"
#include "winners.cuh"

namespace pyconvx {

template <class Element, class Index, bool RELU>
class MaxPoolRowsBackward {
  static constexpr bool FLAT = kIndexBytes<Index> == 8;
  static constexpr int BYTES = sizeof(Element);
  static constexpr unsigned NOWHERE = ~0u;  // no tap is there
  using IndexBits = typename BitsOf<kIndexBytes<Index>>::type;
  using Pixels = Run<Bits<Element>>;
  using Indices = Run<IndexBits>;

public:
  __device__ MaxPoolRowsBackward(const MaxPoolArguments& args, unsigned char* shared)
      : args_(args), band_(args.bands), shared_(shared) {}

  // R x R taps without holes, the same stride in both directions; 0, 0: any window.
  template <int R, int STRIDE>
  __device__ void run() const {
    const int step = STRIDE ? STRIDE : 1, pad = STRIDE ? args_.pad_top : 0;
    const int top = clipped(band_.row * step - pad, args_.h);
    const int bottom = clipped((band_.last_row + 1) * step - pad, args_.h);
    const int extent = (args_.r - 1) * args_.dilation_h + 1;
    const int first_p = clipped(first_window(top + args_.pad_top, extent, args_.by_stride_h), args_.p);
    const int end_p = end_window(bottom - 1 + args_.pad_top, args_.by_stride_h, args_.p);
    const RowSpan windows = band_.span(first_p, end_p, args_.p), rows = band_.span(top, bottom, args_.h);

    const long long first = windows.first * args_.q;
    const long long all = static_cast<long long>(args_.bands.images) * args_.p * args_.q;
    const Pixels gradient(shared_, args_.from, first, windows.count * args_.q);
    const Indices indices(shared_ + args_.bands.second, args_.indices, first, windows.count * args_.q);
    const Pixels pooled(shared_ + args_.bands.third, args_.pooled, first, RELU ? windows.count * args_.q : 0);
    gradient.load(first, all);
    indices.load(first, all);
    if constexpr (RELU) pooled.load(first, all);
    __syncthreads();

    const Pixels pixels(shared_ + (RELU ? args_.bands.fourth : args_.bands.third), args_.to,
                        rows.first * args_.w, rows.count * args_.w);
    const int count = band_.rows * static_cast<int>(args_.bands.by_columns.divisor);
#pragma unroll 1
    for (int i = threadIdx.x; i < count; i += 256) {
      const int line = args_.bands.by_columns(i);
      const int column = i - line * static_cast<int>(args_.bands.by_columns.divisor);
      const int plane = args_.bands.by_rows(band_.row + line);
      const int row = band_.row + line - plane * static_cast<int>(args_.bands.by_rows.divisor);
      const int window = (plane * args_.p - first_p) * args_.q, pixel = (plane * args_.h - top) * args_.w;
      if constexpr (STRIDE > 0)
        gather<R, STRIDE>(pixels, gradient, indices, pooled, row, column, window, pixel);
      else
        gather_any(pixels, gradient, indices, pooled, row, column, window, pixel);
    }
    __syncthreads();
    pixels.store();
  }

private:
  // Block (m, n) of a plane whose windows and pixels begin so far from the runs' first elements.
  template <int R, int STRIDE>
  __device__ void gather(const Pixels& pixels, const Pixels& gradient, const Indices& indices,
                         const Pixels& pooled, int m, int n, int window, int pixel) const {
    constexpr int REACH = (R - 1) / STRIDE;
    unsigned code[REACH + 1][REACH + 1][1], words[REACH + 1][REACH + 1][kWords<BYTES>];
#pragma unroll
    for (int i = 0; i <= REACH; ++i)
#pragma unroll
      for (int j = 0; j <= REACH; ++j) {
        const int p = m - i, q = n - j, at = window + p * args_.q + q;
        const bool here = p >= 0 && p < args_.p && q >= 0 && q < args_.q;
        code[i][j][0] = NOWHERE;
        to_words(words[i][j], Bits<Element>(0));
        if (here && !closed(pooled, at)) code[i][j][0] = static_cast<unsigned>(indices[at]);
        if (here) to_words(words[i][j], gradient[at]);
      }
#pragma unroll
    for (int dh = 0; dh < STRIDE; ++dh)
#pragma unroll
      for (int dw = 0; dw < STRIDE; ++dw) {
        const int h = m * STRIDE - args_.pad_top + dh, w = n * STRIDE - args_.pad_left + dw;
        GradientSum<Element, BYTES, REACH == 0> sum;
        sum.clear();
#pragma unroll
        for (int i = REACH; i >= 0; --i)
#pragma unroll
          for (int j = REACH; j >= 0; --j) {
            const int r = dh + i * STRIDE, s = dw + j * STRIDE;
            if (r < R && s < R) sum.add(words[i][j], code[i][j], FLAT ? h * args_.w + w : r * R + s);
          }
        unsigned out[kWords<BYTES>];
        sum.read(out);
        if (static_cast<unsigned>(h) < static_cast<unsigned>(args_.h) &&
            static_cast<unsigned>(w) < static_cast<unsigned>(args_.w))
          pixels[pixel + h * args_.w + w] = from_words<Bits<Element>>(out);
      }
  }

  __device__ void gather_any(const Pixels& pixels, const Pixels& gradient, const Indices& indices,
                             const Pixels& pooled, int h, int w, int window, int pixel) const {
    const int extent_h = (args_.r - 1) * args_.dilation_h + 1,
              extent_w = (args_.s - 1) * args_.dilation_w + 1;
    const int below = h + args_.pad_top, right = w + args_.pad_left;  // of the padded image's corner
    const int end_p = end_window(below, args_.by_stride_h, args_.p);
    const int end_q = end_window(right, args_.by_stride_w, args_.q);
    const int first_q = first_window(right, extent_w, args_.by_stride_w);
    GradientSum<Element, BYTES, false> sum;
    sum.clear();
#pragma unroll 1
    for (int p = first_window(below, extent_h, args_.by_stride_h); p < end_p; ++p) {
      const int down = below - p * args_.stride_h, r = args_.by_dilation_h(down);
      if (r * args_.dilation_h != down) continue;
#pragma unroll 1
      for (int q = first_q; q < end_q; ++q) {
        const int across = right - q * args_.stride_w, s = args_.by_dilation_w(across);
        if (s * args_.dilation_w != across) continue;
        const int at = window + p * args_.q + q;
        const unsigned code[1] = {closed(pooled, at) ? NOWHERE : static_cast<unsigned>(indices[at])};
        unsigned words[kWords<BYTES>];
        to_words(words, gradient[at]);
        sum.add(words, code, FLAT ? h * args_.w + w : r * args_.s + s);
      }
    }
    unsigned out[kWords<BYTES>];
    sum.read(out);
    pixels[pixel + h * args_.w + w] = from_words<Bits<Element>>(out);
  }

  // Does the ReLU before the pooling pass no gradient on?
  __device__ static bool closed(const Pixels& pooled, int at) {
    if constexpr (!RELU) return false;
    unsigned words[kWords<BYTES>];
    to_words(words, pooled[at]);
    return is_closed<Element>(rank_of<Element>(words, 0));
  }

  const MaxPoolArguments& args_;
  const Band band_;
  unsigned char* shared_;
};

template <class Element, class Index, int R, int STRIDE, bool RELU>
__global__ void __launch_bounds__(256) max_pool_rows_backward(const __grid_constant__ MaxPoolArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  MaxPoolRowsBackward<Element, Index, RELU>(args, shared).template run<R, STRIDE>();
}

}  // namespace pyconvx
