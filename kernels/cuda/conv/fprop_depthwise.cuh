// Depthwise convolution by a common window: every channel has its own filter, and output channel k sees input
// channel k alone. Other windows, filters per channel and vectors: fprop_depthwise_any.cuh.
//
//   output[n][p][q][k] = sum over r, s of input[n][p STRIDE - pad_top + r][q STRIDE - pad_left + s][k] *
//   filter[k][r][s]
//
// There is no matrix product in it: an input element meets one filter only, and the time goes into moving
// bytes. So a block brings the patch of input that its P x Q outputs see into shared memory, once, by 16-byte
// copies, and every input byte is read from global memory a little more than once: by (P STRIDE + R - STRIDE)
// (Q STRIDE + S - STRIDE) / (P Q STRIDE^2).
//
// A block owns VECTORS vectors of V channels. A thread owns one vector of 2 x 4 outputs, whose sums it keeps
// in registers while it walks down the rows of the patch that they see: a vector of input is read and widened
// once, and multiplied with all taps that it is under, those of both rows of outputs: patch row i is under
// filter row r of output row j where i = j STRIDE + r, and likewise columns.
//
// Shared memory: pixels of VECTORS x 16 bytes, in rows of a pitch that is chosen such that 8 neighbouring
// threads read all 32 banks. With 8 vectors or more they read one pixel, 128 bytes. With 4 they read two, of
// threads one above the other: 2 STRIDE rows apart, which the pitch makes 64 bytes modulo 128. Filters are
// put in front of it at the start, widened, as [r][s][channel of the block].
//
// Order of summation: one fused multiply-add after another over r, s, from the bias on, unless there is a
// scale, a shift or a residual; then the bias comes last. Taps outside the image add 0 * filter.
#pragma once

#include "gather.cuh"
#include "mask.cuh"
#include "pixel_tiles.cuh"

namespace pyconvx {

template <class Element_, int P_, int Q_, int VECTORS_, int R_, int S_, int STRIDE_>
struct DepthwiseTile {
  using Element = Element_;
  static constexpr int P = P_, Q = Q_, VECTORS = VECTORS_, R = R_, S = S_, STRIDE = STRIDE_;
  static constexpr int V = kVector<Element>, BYTES = sizeof(Element), CHANNELS = VECTORS * V;
  static constexpr int TP = 2, TQ = 4;  // outputs of a thread
  static constexpr int THREADS = P / TP * (Q / TQ) * VECTORS, PLACES = THREADS / VECTORS;
  static constexpr int ROWS = (P - 1) * STRIDE + R;
  static constexpr int COLUMNS = ((Q - 1) * STRIDE + S + 1) / 2 * 2;  // even: 8 copies at once are of one row
  // Sizes that the plan computes as well: patch_bytes in csrc/plan/conv/fprop_depthwise.cpp.
  static constexpr int PITCH = COLUMNS * VECTORS * 16 + (VECTORS == 4 ? 32 / STRIDE : 0);
  static constexpr int PATCH_BYTES = ROWS * PITCH;
  static_assert(VECTORS == 4 || VECTORS % 8 == 0);
  static_assert(THREADS % 32 == 0 && STRIDE <= 2);

  // Who copies what: one of every WIDTH columns, in every HEIGHT-th row; and every PLACES-th pixel of the
  // OTHERS, the columns that are left.
  __device__ static constexpr int power_of_two(int most) {
    int power = 2;
    while (power * 2 <= most) power *= 2;
    return power;
  }
  // Of an SM, that registers are for: the columns of wider windows need more of them.
  static constexpr int BLOCKS = (STRIDE == 1 && R == 3 ? 384 : 256) / THREADS;
  static constexpr int WIDTH = power_of_two(COLUMNS < PLACES ? COLUMNS : PLACES), HEIGHT = PLACES / WIDTH;
  static constexpr int OTHERS = COLUMNS % WIDTH, OTHER_PASSES = (ROWS * OTHERS + PLACES - 1) / PLACES;
};

template <class Tile, bool MASKED>
class Depthwise : Tile {
  using Tile::BYTES, Tile::CHANNELS, Tile::COLUMNS, Tile::HEIGHT, Tile::OTHERS, Tile::OTHER_PASSES, Tile::P,
      Tile::PATCH_BYTES, Tile::PITCH;
  using Tile::PLACES, Tile::Q, Tile::R, Tile::ROWS, Tile::S, Tile::STRIDE, Tile::THREADS, Tile::TP, Tile::TQ;
  using Tile::V, Tile::VECTORS, Tile::WIDTH;
  using typename Tile::Element;

public:
  __device__ Depthwise(const Conv2dArguments& args, float* filters) : args_(args), filters_(filters) {
    patches_ = ptx::shared_address(filters + (R * S + 1) * CHANNELS);
    first_ = blockIdx.x % args.by_filter_tiles.divisor * CHANNELS;
    vector_ = threadIdx.x % VECTORS;
    place_ = threadIdx.x / VECTORS;
    k_ = first_ + vector_ * V;
    p_ = place_ % (P / TP) * TP;
    q_ = place_ / (P / TP) * TQ;
    output_ =
        static_cast<char*>(args.output) + ((static_cast<long long>(p_) * args.q + q_) * args.k + k_) * BYTES;
    width_ = k_ < args.k ? args.w : 0;
    input_ = at_of_patch(place_ / WIDTH, place_ % WIDTH);
    if constexpr (MASKED) to_outputs_ = way_to_outputs(args.input, args.relu_output);
  }

  // A block keeps its channels and walks over a run of tiles of pixels, the next patch on its way while one
  // is multiplied. BARE: nothing but ReLU follows the sums.
  template <bool BARE>
  __device__ void run() {
    const int blocks = gridDim.x / args_.by_filter_tiles.divisor, run = (args_.tiles + blocks - 1) / blocks;
    const int first = blockIdx.x / args_.by_filter_tiles.divisor * run;
    int tiles = args_.tiles - first < run ? args_.tiles - first : run;
    if (tiles <= 0) return;
    unsigned patch = patches_, next = patches_ + PATCH_BYTES;
    PixelTile at = pixel_tile<P, Q>(args_, first);
    copy_patch(patch, at);
    copy_filters();
    const unsigned from = p_ * STRIDE * PITCH + (q_ * STRIDE * VECTORS + vector_) * 16;
#pragma unroll 1
    while (true) {
      ptx::cp_async_wait<0>();
      if constexpr (MASKED) mask_patch(patch);
      __syncthreads();
      const PixelTile after = behind(at);
      --tiles;
      if (tiles) copy_patch(next, after);
      const int p_left = args_.p - at.p - p_, q_left = args_.q - at.q - q_;
      if (p_left > 0 && q_left > 0 && width_ > 0) {
        start();
        multiply_patch(patch + from);
        if constexpr (BARE)
          store_bare(at, p_left, q_left);
        else
          store(at, p_left, q_left);
      }
      if (!tiles) break;
      at = after;
      const unsigned done = patch;
      patch = next;
      next = done;
    }
  }

private:
  __device__ PixelTile behind(PixelTile at) const {
    at.q += Q;
    if (at.q >= args_.q) at.q = 0, at.p += P;
    if (at.p >= args_.p) at.p = 0, at.n += 1;
    return at;
  }

  // Where the thread's channels of a pixel of the first tile's patch are, if they are in the image.
  __device__ const char* at_of_patch(int row, int column) const {
    const long long pixel = static_cast<long long>(row - args_.pad_top) * args_.w + column - args_.pad_left;
    return static_cast<const char*>(args_.input) + (pixel * args_.c + k_) * BYTES;
  }

  __device__ int other_row(int pass) const { return (pass * PLACES + place_) / (OTHERS + !OTHERS); }
  __device__ int other_column(int pass) const {
    return COLUMNS - OTHERS + (pass * PLACES + place_) % (OTHERS + !OTHERS);
  }

  __device__ void copy_patch(unsigned patch, const PixelTile& at) const {
    const int top = at.p * STRIDE - args_.pad_top, left = at.q * STRIDE - args_.pad_left;
    const unsigned long long skip =
        static_cast<unsigned long long>(at.n * args_.h + at.p * STRIDE) * args_.row_step +
        static_cast<unsigned long long>(at.q * STRIDE) * args_.column_step;
    const unsigned long long step = static_cast<unsigned long long>(args_.row_step) * HEIGHT;
    const unsigned outputs = outputs_of(patch);
    patch += vector_ * 16;
    const int row = place_ / WIDTH;
#pragma unroll
    for (int first = 0; first < COLUMNS - OTHERS; first += WIDTH) {
      const int column = first + place_ % WIDTH;
      const bool inside = is_inside(left + column, width_) && is_needed(column);
      const char* from = input_ + skip + static_cast<unsigned long long>(args_.column_step) * first;
#pragma unroll
      for (int i = 0; i < ROWS; i += HEIGHT, from += step)
        if (i + HEIGHT <= ROWS || row < ROWS - i)
          copy_piece(patch + (row + i) * PITCH + column * VECTORS * 16, outputs, from,
                     inside && is_inside(top + row + i, args_.h));
    }
#pragma unroll(OTHER_PASSES <= 10 ? OTHER_PASSES : 1)
    for (int i = 0; i < OTHER_PASSES; ++i) {
      const int row = other_row(i), column = other_column(i);
      const unsigned offset =
          (row - place_ / WIDTH) * args_.row_step + (column - place_ % WIDTH) * args_.column_step;
      if ((i + 1) * PLACES <= ROWS * OTHERS || row < ROWS)
        copy_piece(patch + row * PITCH + column * VECTORS * 16, outputs,
                   input_ + skip + static_cast<int>(offset),
                   is_needed(column) && is_inside(top + row, args_.h) && is_inside(left + column, width_));
    }
    ptx::cp_async_commit();
  }

  // A gradient that is masked: the outputs of a ReLU for the patch that is on its way, or has just arrived,
  // stand behind both patches, so many bytes from it.
  __device__ unsigned outputs_of(unsigned patch) const { return patches_ + 2 * PATCH_BYTES - patch; }

  __device__ void copy_piece(unsigned to, unsigned outputs, const char* from, bool valid) const {
    copy<16>(to, from, valid);
    if constexpr (MASKED) copy<16>(to + outputs, from + to_outputs_, valid);
  }

  // What this thread has copied.
  __device__ void mask_patch(unsigned patch) const {
    const unsigned outputs = outputs_of(patch);
    const int row = place_ / WIDTH;
    patch += vector_ * 16;
#pragma unroll 1
    for (int column = place_ % WIDTH; column < COLUMNS - OTHERS; column += WIDTH)
#pragma unroll
      for (int i = 0; i < ROWS; i += HEIGHT)
        if (i + HEIGHT <= ROWS || row < ROWS - i) {
          const unsigned at = patch + (row + i) * PITCH + column * VECTORS * 16;
          mask_in_place(at, at + outputs, Element{});
        }
#pragma unroll 1
    for (int i = 0; i < OTHER_PASSES; ++i)
      if (other_row(i) < ROWS) {
        const unsigned at = patch + other_row(i) * PITCH + other_column(i) * VECTORS * 16;
        mask_in_place(at, at + outputs, Element{});
      }
  }

  // The last column may be there only to make their number even.
  __device__ static bool is_needed(int column) {
    return COLUMNS == (Q - 1) * STRIDE + S || column < COLUMNS - 1;
  }

  __device__ static bool is_inside(int x, int size) {
    return static_cast<unsigned>(x) < static_cast<unsigned>(size);
  }

  // Where channel v of a vector has its filter in those of a tap: four of each vector, then the other four.
  // So 8 threads read 128 bytes that lie side by side.
  __device__ static int place_of(int vector, int v) { return v / 4 * (VECTORS * 4) + vector * 4 + v % 4; }

  // The bias stands behind the taps.
  __device__ void copy_filters() const {
    for (int i = threadIdx.x; i < R * S * CHANNELS; i += THREADS) {
      const int channel = i / (R * S), tap = i % (R * S);
      const bool exists = first_ + channel < args_.k;
      const Element* from =
          static_cast<const Element*>(args_.filter) + static_cast<long long>(first_) * (R * S) + i;
      filters_[tap * CHANNELS + place_of(channel / V, channel % V)] = exists ? widen(*from) : 0.0f;
    }
    for (int channel = threadIdx.x; channel < CHANNELS; channel += THREADS) {
      const bool exists = args_.bias && bias_is_first(args_) && first_ + channel < args_.k;
      filters_[R * S * CHANNELS + place_of(channel / V, channel % V)] =
          exists ? widen(static_cast<const Element*>(args_.bias)[first_ + channel]) : 0.0f;
    }
  }

  __device__ void start() {
    float bias[V];
    load_filter(bias, R * S);
#pragma unroll
    for (int i = 0; i < TP; ++i)
#pragma unroll
      for (int j = 0; j < TQ; ++j)
#pragma unroll
        for (int v = 0; v < V; ++v) sum_[i][j][v] = bias[v];
  }

  // Row by row of the patch: the first are under a filter row of the upper outputs alone, the last of the
  // lower. For windows larger than 3 x 3 the others are a loop: else they are thousands of instructions, of
  // which the compiler moves so many ahead that registers don't suffice.
  __device__ void multiply_patch(unsigned from) {
#pragma unroll
    for (int row = 0; row < STRIDE; ++row) multiply_row<0, 1>(from, row);
#pragma unroll(R == 3 ? R : 1)
    for (int row = STRIDE; row < R; ++row) multiply_row<0, TP>(from, row);
#pragma unroll
    for (int row = R; row < R + STRIDE; ++row) multiply_row<1, TP>(from, row);
  }

  // Outputs FIRST .. LAST - 1, tap by tap. The filters of one column of the window are in registers, and the
  // columns of input that it meets. The next column of the window meets them again, but for the first.
  template <int FIRST, int LAST>
  __device__ void multiply_row(unsigned from, int row) {
    float x[(TQ - 1) * STRIDE + S][V];
#pragma unroll
    for (int s = 0; s < S; ++s) {
      float filter[TP][V];
#pragma unroll
      for (int i = FIRST; i < LAST; ++i) load_filter(filter[i], (row - i * STRIDE) * S + s);
#pragma unroll
      for (int j = 0; j < TQ; ++j) {
        const int column = j * STRIDE + s;
        if (s < STRIDE || j == TQ - 1)
          unpack(ptx::load_shared_16(from + row * PITCH + column * VECTORS * 16), x[column], Element{});
#pragma unroll
        for (int i = FIRST; i < LAST; ++i)
#pragma unroll
          for (int v = 0; v < V; ++v) sum_[i][j][v] = multiply_add(x[column][v], filter[i][v], sum_[i][j][v]);
      }
    }
  }

  __device__ void load_filter(float (&filter)[V], int tap) const {
    const float* from = filters_ + tap * CHANNELS;
#pragma unroll
    for (int v = 0; v < V; v += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + place_of(vector_, v));
      filter[v] = four.x;
      filter[v + 1] = four.y;
      filter[v + 2] = four.z;
      filter[v + 3] = four.w;
    }
  }

  // The pixel of a tile's first output.
  __device__ unsigned pixel_of(const PixelTile& at) const { return (at.n * args_.p + at.p) * args_.q + at.q; }

  __device__ void store_bare(const PixelTile& at, int p_left, int q_left) {
    const unsigned pixel_bytes = args_.k * BYTES;
    char* output = output_ + static_cast<unsigned long long>(pixel_of(at)) * pixel_bytes;
    const Floor<Element> floor(args_.relu);
#pragma unroll
    for (int i = 0; i < TP; ++i, output += static_cast<unsigned long long>(args_.q) * pixel_bytes)
#pragma unroll
      for (int j = 0; j < TQ; ++j)
        ptx::store_global(output + static_cast<unsigned long long>(pixel_bytes) * j, floor.pack(sum_[i][j]),
                          j < q_left && i < p_left);
  }

  __device__ void store(const PixelTile& at, int p_left, int q_left) {
    const Epilogue<Element> epilogue(args_, k_, args_.k - k_, bias_is_first(args_));
#pragma unroll
    for (int i = 0; i < TP; ++i)
#pragma unroll
      for (int j = 0; j < TQ; ++j)
        if (i < p_left && j < q_left)
          epilogue.store(pixel_of(at) + static_cast<long long>(p_ + i) * args_.q + q_ + j, sum_[i][j]);
  }

  const Conv2dArguments& args_;
  float* filters_;
  unsigned patches_;    // in shared memory
  int first_;           // filter of the block
  int vector_, place_;  // the thread's among the block's vectors of channels, and in its tile
  int k_, p_, q_;       // its filter, and its outputs in a tile
  int width_;           // W, or 0 if its filter is past the last
  const char* input_;   // what it copies first of the first tile's patch
  long long to_outputs_;
  char* output_;  // its outputs of the first tile
  float sum_[TP][TQ][V];
};

template <class Tile, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    fprop_depthwise(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  Depthwise<Tile, MASKED> depthwise(args, reinterpret_cast<float*>(shared));
  if (bias_is_first(args))
    depthwise.template run<true>();
  else
    depthwise.template run<false>();
}

}  // namespace pyconvx
