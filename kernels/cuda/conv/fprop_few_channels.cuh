// Convolution of an input of 3 or 4 channels by a common window, the first layer of most networks, on tensor
// cores and without a gather. Other windows, dilations and channels: fprop_few_channels_any.cuh.
//
// A block copies the patch of input that its P x 16 output pixels see, once, and finds all operands in it; it
// keeps its filters, and walks over many tiles, the next patch on its way while one is multiplied.
//
// Patch. A pixel is 4 channels (a fourth of zeros if there are 3), and a unit is 16 bytes: U = 2 pixels of 16
// bits, or 1 of tf32. A row of the window is S neighbouring pixels, so it lies side by side in the patch, cut
// into chunks of one unit. Output pixel q begins STRIDE pixels to the right of pixel q - 1. If these are
// whole units, STEP = STRIDE / U of them, chunk c of pixel q is unit STEP q + c: what ldmatrix wants as a row
// is there as it stands, and the rows of neighbouring pixels overlap. If STRIDE is half a unit (an odd
// stride, U = 2), there are two copies of the patch, the second STRIDE pixels further on, in which the odd
// output pixels find theirs: chunk c of pixel q is unit STRIDE (q / 2) + c of copy q % 2. Then the 16 pixels
// of a matrix instruction are taken in the order 0 2 .. 14 1 3 .. 15, 8 of each copy.
//
// ldmatrix reads 8 units at a time, STEP apart. A row of the patch holds them by their remainder mod STEP:
// unit u at place u % STEP * PHASE + u / STEP. So they are 8 neighbours, 128 bytes, of all 32 banks, whatever
// the pixel and the chunk, with no swizzle and every offset a constant.
//
//   16 bits, stride 2, 7 x 7, pad 3: a row of the patch, a unit a column; the chunks of pixel 0 and of pixel
//   1
//
//     pixel -4 -3 | -2 -1 |  0  1 |  2  3 |  4  5 | ...
//     q = 0 [  c0 |   c1  |   c2  |   c3  ]
//     q = 1       [   c0  |   c1  |   c2  |  c3   ]
//
// If the pad is odd, the patch starts one pixel further left, FRONT = 1, so that units are aligned in global
// memory as well; the window's row then has a tap of zeros in front, where without it there is one behind: a
// matrix instruction takes 32 bytes, an even number of units. A tap of zeros meets pixels that are not the
// window's, and an infinity among these would make a NaN, so lanes put something else in their place: zeros,
// or in 16 bits a pixel whose first channel is 1. Then the tap's filter may be the bias, which so costs
// nothing.
//
// Row r of the window of output row p is row p STRIDE + r of the patch: that of p + 1 at r - STRIDE. A warp
// owns M rows of 16 pixels and takes r in the order 0, STRIDE, 2 STRIDE .. 1, STRIDE + 1 .. ; so each of
// these needs one row of operands that is not in registers yet.
//
// Filters. For each its R rows of whole matrix instructions, zeros where there is no tap or channel; the
// pitch of a filter is an odd multiple of 16 bytes, so that ldmatrix reads 8 of them from all banks.
//
// Order of summation: r in the order above, a row's chunks from left to right, two at a time. It depends on
// window, stride and pad alone. Bias is the filter of such a tap of row 0, or what sums start with in tf32;
// but comes last where there is a scale, a shift or a residual.
#pragma once

#include "fragments.cuh"
#include "gather.cuh"
#include "pixel_tiles.cuh"

namespace pyconvx {

// P_ output rows and FILTERS filters of a block; VECTOR: bytes by which global memory may be read.
template <class Element_, int P_, int FILTERS_, int R_, int S_, int STRIDE_, int C_, int FRONT_, int VECTOR_>
struct Stem {
  using Element = Element_;
  static constexpr int P = P_, Q = 16, FILTERS = FILTERS_, R = R_, S = S_, STRIDE = STRIDE_, C = C_;
  static constexpr int FRONT = FRONT_, VECTOR = VECTOR_, THREADS = 128;
  static constexpr int V = kVector<Element>, BYTES = sizeof(Element), PIXEL = 4 * BYTES;

  static constexpr int U = 16 / PIXEL;
  static constexpr int COPIES = STRIDE % U == 0 ? 1 : 2;
  static constexpr int STEP = STRIDE * COPIES / U;
  static constexpr int STEPS = (FRONT + S + 2 * U - 1) / (2 * U);    // matrix instructions for a window's row
  static constexpr int UNITS = STEP * (Q / COPIES - 1) + 2 * STEPS;  // of a row of a copy
  static constexpr int PHASE = (UNITS + STEP - 1) / STEP;
  static constexpr int COPY = STEP * PHASE, ROW = COPIES * COPY;  // units, in shared memory
  static constexpr int ROWS = (P - 1) * STRIDE + R;
  static_assert(STEP == 1 || STEP % 2 == 0, "a lane's two chunks are in different phases, or side by side");

  // Who copies what: a thread one column of units, or pairs of pixels, of every ROWS_AT_ONCE-th row.
  static constexpr bool WIDENS = C == 3 && BYTES == 2;  // through registers, where 3 channels become 4
  static constexpr int COLUMNS = WIDENS ? ((COPIES - 1) * STRIDE + U * UNITS + 1) / 2 : COPIES * UNITS;
  static constexpr int ROWS_AT_ONCE = THREADS / COLUMNS;
  static constexpr int PASSES = (ROWS + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
  static_assert(ROWS_AT_ONCE > 0);

  // Sizes that the plan computes as well: Stem in csrc/plan/conv/fprop_few_channels.cpp.
  static constexpr int PATCH_BYTES = PASSES * ROWS_AT_ONCE * ROW * 16;
  static constexpr int FILTER_PITCH = (R * STEPS * 2 | 1) * 16;

  static constexpr int M = P / 4, N = FILTERS / 8;  // matrix instructions of a warp
};

template <class Shape>
class StemProduct : Shape {
  using Shape::BYTES, Shape::C, Shape::COLUMNS, Shape::COPIES, Shape::COPY, Shape::FILTER_PITCH,
      Shape::FILTERS;
  using Shape::FRONT, Shape::M, Shape::N, Shape::P, Shape::PASSES, Shape::PATCH_BYTES, Shape::PHASE,
      Shape::PIXEL;
  using Shape::Q, Shape::R, Shape::ROW, Shape::ROWS, Shape::ROWS_AT_ONCE, Shape::S, Shape::STEP, Shape::STEPS;
  using Shape::STRIDE, Shape::THREADS, Shape::U, Shape::UNITS, Shape::V, Shape::VECTOR, Shape::WIDENS;
  using typename Shape::Element;

  static constexpr int PHASES = STRIDE < R ? STRIDE : R;
  // Passes that are fetched before the first phase. Where pixels wait in registers, which are few, the others
  // are fetched behind it.
  static constexpr int HALF = WIDENS && PHASES > 1 ? (PASSES + 1) / 2 : PASSES;
  static constexpr int VECTORS = FILTERS / (4 * V);  // of outputs that a lane has of a pixel

  // In 16 bits a row of the window has a chunk that is half a tap, half none: which is then a tap of ones.
  static constexpr bool ONE_TAP = U == 2;
  static_assert(!ONE_TAP || S % 2 == 1);

public:
  __device__ StemProduct(const Conv2dArguments& args, unsigned shared) : args_(args), filters_(shared) {
    first_filter_ = blockIdx.x % args.by_filter_tiles.divisor * FILTERS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    patches_ = filters_ + FILTERS * FILTER_PITCH;
    filters_from_ = filters_ + (lane / 16 * 8 + lane % 8) * FILTER_PITCH + lane / 8 % 2 * 16;
    const int pixel = lane % 16, chunk = lane / 16;
    const int place = COPIES == 1 ? pixel : pixel / 8 * COPY + pixel % 8;
    pixels_from_ = (warp * M * STRIDE * ROW + place + chunk * (STEP == 1 ? 1 : PHASE)) * 16;
    second_of_two_ = lane % 4 >= 2 ? ~0u : 0u;
    const unsigned one = one_and_zero(Element{});
    one_if_first_ = lane % 4 == 0 ? one : 0u;
    one_if_second_ = lane % 4 == 2 ? one : 0u;
    row_ = threadIdx.x / COLUMNS;
    column_ = threadIdx.x % COLUMNS;
  }

  // One patch is multiplied while the next one is on its way. BARE: there is nothing to add at the end, and
  // outputs are whole vectors.
  template <bool BARE>
  __device__ void run() {
    const int step = gridDim.x / args_.by_filter_tiles.divisor;
    int tile = blockIdx.x / args_.by_filter_tiles.divisor;
    if (tile >= args_.tiles) return;
    clear();
    __syncthreads();
    copy_filters();
    start();
    unsigned patch = patches_, next = patches_ + PATCH_BYTES;
    PixelTile at = pixel_tile<P, Q>(args_, tile);
    fetch<0, HALF>(patch, at);
    widen_into<0, HALF>(patch);
    fetch<HALF, PASSES>(patch, at);
    widen_into<HALF, PASSES>(patch);
#pragma unroll 1
    while (true) {
      ptx::cp_async_wait<0>();
      __syncthreads();
      tile += step;
      const bool more = tile < args_.tiles;
      const PixelTile after = pixel_tile<P, Q>(args_, more ? tile : 0);
      if (more) fetch<0, HALF>(next, after);
      multiply_patch<0, 1>(patch);
      if (more) {
        widen_into<0, HALF>(next);
        fetch<HALF, PASSES>(next, after);
      }
      multiply_patch<1, PHASES>(patch);
      if (more) widen_into<HALF, PASSES>(next);
      if constexpr (BARE)
        store_bare(at);
      else
        store(at);
      if (!more) break;
      at = after;
      const unsigned done = patch;
      patch = next;
      next = done;
    }
  }

private:
  // The zeros of filters, and of a fourth channel that copies pass by.
  __device__ void clear() const {
    for (int i = threadIdx.x; i < (FILTERS * FILTER_PITCH + 2 * PATCH_BYTES) / 16; i += THREADS)
      ptx::store_shared(filters_ + i * 16, uint4{});
  }

  // A warp copies filters, 32 elements of one at a time.
  __device__ void copy_filters() const {
    const bool biased = ONE_TAP && args_.bias && bias_is_first(args_);
#pragma unroll 1
    for (int row = threadIdx.x / 32; row < FILTERS; row += THREADS / 32) {
      const int filter = first_filter_ + filter_of_row<V>(row);
      if (filter >= args_.k) continue;
      const Element* from =
          static_cast<const Element*>(args_.filter) + static_cast<long long>(filter) * R * S * C;
      const unsigned to = filters_ + row * FILTER_PITCH;
#pragma unroll
      for (int first = 0; first < R * S * C; first += 32) {
        const int j = first + threadIdx.x % 32, tap = j / C, r = tap / S, s = tap - r * S;
        if (j < R * S * C)
          copy<BYTES>(to + r * STEPS * 32 + (FRONT + s) * PIXEL + j % C * BYTES, from + j, true);
      }
      if (biased && threadIdx.x % 32 == 0)
        copy<BYTES>(to + (FRONT ? 0 : S * PIXEL), static_cast<const Element*>(args_.bias) + filter, true);
    }
    ptx::cp_async_commit();
  }

  // What sums begin with, in the places where a matrix instruction has them.
  __device__ void start() {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int filter = first_filter_ + j / (V / 2) * 4 * V + threadIdx.x % 4 * V + j % (V / 2) * 2 + e;
        const bool biased = !ONE_TAP && args_.bias && bias_is_first(args_) && filter < args_.k;
        start_[j][e] = start_[j][e + 2] =
            biased ? widen(static_cast<const Element*>(args_.bias)[filter]) : 0.0f;
      }
  }

  // Where unit u of a copy's row stands in it.
  __device__ static constexpr int place_of(int u) { return u % STEP * PHASE + u / STEP; }

  // Some passes of a tile's patch: to shared memory, or to registers where it must be widened.
  template <int FIRST, int LAST>
  __device__ void fetch(unsigned patch, const PixelTile& at) {
    if (FIRST == LAST) return;
    if (row_ < ROWS_AT_ONCE) {
      const int copy = WIDENS ? 0 : column_ / UNITS, unit = column_ - copy * UNITS;
      const int h = at.p * STRIDE - args_.pad_top + row_;
      const int w = at.q * STRIDE - args_.pad_left - FRONT + copy * STRIDE + unit * U;
      const char* from = static_cast<const char*>(args_.input) +
                         ((static_cast<long long>(at.n) * args_.h + h) * args_.w + w) * (C * BYTES);
      const long long step = static_cast<long long>(args_.w) * (ROWS_AT_ONCE * C * BYTES);
      const unsigned to = patch + (row_ * ROW + copy * COPY + place_of(unit)) * 16;
      from += step * FIRST;
#pragma unroll
      for (int i = FIRST; i < LAST; ++i, from += step) {
        bool inside = static_cast<unsigned>(h + i * ROWS_AT_ONCE) < static_cast<unsigned>(args_.h);
        if ((i + 1) * ROWS_AT_ONCE > ROWS) inside = inside && row_ < ROWS - i * ROWS_AT_ONCE;
        if constexpr (WIDENS)
          read_pair(pairs_[i - FIRST], from, w, inside);
        else
          copy_unit(to + i * ROWS_AT_ONCE * ROW * 16, from, w, inside);
      }
    }
    ptx::cp_async_commit();
  }

  __device__ bool column_inside(int w) const {
    return static_cast<unsigned>(w) < static_cast<unsigned>(args_.w);
  }

  __device__ void copy_unit(unsigned to, const char* from, int w, bool inside) const {
#pragma unroll
    for (int pixel = 0; pixel < U; ++pixel) {
      const bool there = inside && column_inside(w + pixel);
      if constexpr (VECTOR == 16) {  // pixels of a unit are inside together
        if (pixel == 0) copy<16>(to, from, there);
      } else {
#pragma unroll
        for (int byte = 0; byte < C * BYTES; byte += VECTOR)
          copy<VECTOR>(to + pixel * PIXEL + byte, from + pixel * C * BYTES + byte, there);
      }
    }
  }

  // Two pixels of three channels: 12 bytes, by 4 if they are inside together, else by 2.
  __device__ void read_pair(unsigned (&pair)[3], const char* from, int w, bool inside) const {
    if constexpr (VECTOR >= 4) {
      const bool there = inside && column_inside(w);
#pragma unroll
      for (int i = 0; i < 3; ++i) pair[i] = there ? reinterpret_cast<const unsigned*>(from)[i] : 0;
    } else {
      unsigned x[6];
#pragma unroll
      for (int i = 0; i < 6; ++i) {
        const bool there = inside && column_inside(w + i / 3);
        x[i] = there ? reinterpret_cast<const unsigned short*>(from)[i] : 0;
      }
#pragma unroll
      for (int i = 0; i < 3; ++i) pair[i] = x[2 * i] | x[2 * i + 1] << 16;
    }
  }

  // What fetch left in registers, to shared memory.
  template <int FIRST, int LAST>
  __device__ void widen_into(unsigned patch) const {
    if constexpr (WIDENS) {
      if (row_ >= ROWS_AT_ONCE) return;
#pragma unroll
      for (int i = FIRST; i < LAST; ++i) {
        const unsigned row = patch + (row_ + i * ROWS_AT_ONCE) * ROW * 16;
        const unsigned* x = pairs_[i - FIRST];
        const uint4 unit = {x[0], x[1] & 0xffff, ptx::funnel_shift_right(x[1], x[2], 16), x[2] >> 16};
        if constexpr (COPIES == 1) {
          ptx::store_shared(row + place_of(column_) * 16, unit);
        } else {
          if (column_ < UNITS) ptx::store_shared(row + place_of(column_) * 16, unit);
          const int first = 2 * column_ - STRIDE, second = first + 1;  // columns of the second copy
          if (first >= 0 && first < U * UNITS)
            ptx::store_shared(row + (COPY + place_of(first / 2)) * 16 + 8, uint2{unit.x, unit.y});
          if (second >= 0 && second < U * UNITS)
            ptx::store_shared(row + (COPY + place_of(second / 2)) * 16, uint2{unit.z, unit.w});
        }
      }
    }
  }

  // Rows of the window whose remainder mod STRIDE is in [FIRST, LAST).
  template <int FIRST, int LAST>
  __device__ void multiply_patch(unsigned patch) {
    unsigned pixels[M][STEPS][4];
    bool first = FIRST == 0;
#pragma unroll
    for (int phase = FIRST; phase < LAST; ++phase)
#pragma unroll
      for (int r = phase; r < R; r += STRIDE) {
#pragma unroll
        for (int i = 0; i < M; ++i) {
          const bool known = r >= STRIDE && i + 1 < M;
#pragma unroll
          for (int step = 0; step < STEPS; ++step) {
            if (!known) {
              load_pixels(pixels[i][step], patch, i * STRIDE + r, step);
            } else {
#pragma unroll
              for (int x = 0; x < 4; ++x) pixels[i][step][x] = pixels[i + 1][step][x];
            }
          }
        }
#pragma unroll
        for (int step = 0; step < STEPS; ++step, first = false) {
          unsigned filters[N / 2][4];
#pragma unroll
          for (int j = 0; j < N / 2; ++j)
            ptx::ldmatrix_x4(filters[j], filters_from_ + j * 16 * FILTER_PITCH + (r * STEPS + step) * 32);
#pragma unroll
          for (int i = 0; i < M; ++i)
#pragma unroll
            for (int j = 0; j < N; ++j)
              multiply(sum_[i][j], pixels[i][step], filters[j / 2][j % 2 * 2], filters[j / 2][j % 2 * 2 + 1],
                       first ? start_[j] : sum_[i][j], Element{});
        }
      }
  }

  // Chunks 2 step and 2 step + 1 of 16 pixels, with zeros for what is no tap.
  __device__ void load_pixels(unsigned (&to)[4], unsigned patch, int row, int step) const {
    ptx::ldmatrix_x4(to, patch + pixels_from_ + (row * ROW + place_of(2 * step)) * 16);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int tap = (2 * step + half) * U - FRONT;
      const bool first = tap >= 0 && tap < S, second = tap + U - 1 >= 0 && tap + U - 1 < S;
      if (first && second) continue;
      const unsigned mask = first ? ~second_of_two_ : second ? second_of_two_ : 0u;
      const unsigned ones = first ? one_if_second_ : second ? one_if_first_ : 0u;
      to[2 * half] = to[2 * half] & mask | ones;
      to[2 * half + 1] = to[2 * half + 1] & mask | ones;
    }
  }

  // Column, in a tile, of the pixel that a lane's sums of one half of a matrix instruction belong to.
  __device__ static int column_of(int half) {
    const int row = threadIdx.x % 32 / 4;
    return COPIES == 1 ? row + half * 8 : row * 2 + half;
  }

  __device__ void store_bare(const PixelTile& at) const {
    const int filter = first_filter_ + threadIdx.x % 4 * V, p = at.p + threadIdx.x / 32 * M;
    const long long pixel = (static_cast<long long>(at.n) * args_.p + p) * args_.q + at.q + column_of(0);
    char* row = static_cast<char*>(args_.output) + (pixel * args_.k + filter) * BYTES;
    const long long pitch = static_cast<long long>(args_.q) * args_.k * BYTES;
    const long long across = static_cast<long long>(args_.k) * ((column_of(1) - column_of(0)) * BYTES);
    const Floor<Element> floor(args_.relu);
    int rows[2][VECTORS];  // of the warp's, that exist in the lane's columns and filters
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int vector = 0; vector < VECTORS; ++vector) {
        const bool exists = at.q + column_of(half) < args_.q && filter + vector * 4 * V < args_.k;
        rows[half][vector] = exists ? args_.p - p : 0;
      }
#pragma unroll
    for (int i = 0; i < M; ++i, row += pitch)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int vector = 0; vector < VECTORS; ++vector) {
          float x[V];
#pragma unroll
          for (int v = 0; v < V; ++v) x[v] = sum_[i][vector * V / 2 + v / 2][half * 2 + v % 2];
          ptx::store_global(row + half * across + vector * 64, floor.pack(x), i < rows[half][vector]);
        }
  }

  __device__ void store(const PixelTile& at) const {
    store_rows<Element>(args_, at, threadIdx.x / 32 * M, first_filter_ + threadIdx.x % 4 * V, sum_,
                        bias_is_first(args_), column_of);
  }

  const Conv2dArguments& args_;
  int first_filter_;
  unsigned filters_, patches_;  // in shared memory
  unsigned filters_from_, pixels_from_;
  // Of a unit's two pixels a lane has elements of one: all bits if it is the second, and a 1 in the first
  // channel of either.
  unsigned second_of_two_, one_if_first_, one_if_second_;
  int row_, column_;  // of the patch, that this thread copies first
  unsigned pairs_[WIDENS ? (HALF > PASSES - HALF ? HALF : PASSES - HALF) : 1][3];
  float start_[N][4];
  float sum_[M][N][4];
};

template <class Shape>
__global__ void __launch_bounds__(128, 2)
    fprop_few_channels(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  StemProduct<Shape> product(args, ptx::shared_address(shared));
  if (args.vector_output && bias_is_first(args))
    product.template run<true>();
  else
    product.template run<false>();
}

}  // namespace pyconvx
