// Max pooling:
//
//   output[n][p][q][c] = max over r, s of input[n][h][w][c],   h = p stride_h - pad_top + r dilation_h
//   index[n][p][q][c]  = where it stood                        w = q stride_w - pad_left + s dilation_w
//
// An index is the winner's offset in its window, r S + s (uint8, int32), or its position in the plane, h W +
// w (int64); of a window without a tap inside the image it is -1, and the output -inf.
//
// With RELU, input stands for relu(input): what is not above 0 becomes +0 as it is read. A window of nothing
// else is won by its first tap inside, like any window of equals.
//
// A thread owns V neighbouring channels, BYTES of them, and of those windows that neighbour each other; lanes
// own neighbouring channels. The time goes into moving bytes, so where windows overlap and their size is a
// constant, a thread reads what they share once:
//
//   - COLUMNS windows of a row, that is (COLUMNS - 1) STRIDE + S pixels of each of their rows;
//   - `rows` windows down. It walks down the image and keeps a contest open for each window that has begun. A
//   row
//     is first settled within itself, for each of the windows' columns; its winners then meet the best of the
//     rows above. That is the order of taps in the window, row after row, and a third of the comparisons less
//     for 3 x 3.
//
// A row or column outside the image is one of -inf, which beats nothing; who is the first tap inside wins
// whatever it is, and that is the one in row or column 0, or r = 0, or s = 0.
#pragma once

#include "winners.cuh"

namespace pyconvx {

// What both kernels have: a thread's place, and the results of WINDOWS windows from it on.
template <class Element, class Index, int BYTES, int WINDOWS, class Code>
class MaxPoolResults {
public:
  static constexpr int V = BYTES / sizeof(Element);
  static constexpr bool CODED = kIndexBytes<Index> != 0;
  using Windows = Contest<Element, V, Code, CODED>[WINDOWS];

  __device__ explicit MaxPoolResults(const MaxPoolArguments& args)
      : args_(args), at_(place_of(args.sweep, blockIdx.x * blockDim.x + threadIdx.x)) {}

  __device__ const Place& at() const { return at_; }

  // The thread's channels of row h, column 0.
  __device__ const char* row(int h) const {
    return static_cast<const char*>(args_.from) +
           (static_cast<long long>(at_.image) * args_.h + h) * args_.w * args_.c *
               static_cast<int>(sizeof(Element)) +
           at_.chunk * BYTES;
  }

  // Stores windows q, q + 1 ... of row p; codes as they are less `down`. All lanes of a warp call it.
  __device__ void store(const Windows& windows, int p, int q, Code down) const {
    const int count = at_.exists && p < args_.p ? args_.q - q : 0;
    const long long place =
        ((static_cast<long long>(at_.image) * args_.p + p) * args_.q + q) * args_.c + at_.chunk * V;
#pragma unroll
    for (int j = 0; j < WINDOWS; ++j) {
      unsigned words[kWords<BYTES>];
      elements_of<Element>(windows[j].best, words);
      if (j < count)
        store_words<BYTES>(static_cast<Element*>(args_.to) + place + static_cast<long long>(j) * args_.c,
                           words);
    }
    if constexpr (CODED) {
      Code code[WINDOWS][V];
#pragma unroll
      for (int j = 0; j < WINDOWS; ++j)
#pragma unroll
        for (int v = 0; v < V; ++v) code[j][v] = windows[j].code[v] - down;
      Winners<Index, V, BYTES, WINDOWS>::store(code, static_cast<Index*>(args_.indices) + place, args_.c,
                                               count, args_.exchange_indices);
    }
  }

private:
  const MaxPoolArguments& args_;
  Place at_;
};

// As many windows as have their indices exchanged, and at least two.
template <class Element, class Index, int BYTES>
inline constexpr int kPoolColumns = kExchanged<BYTES, BYTES / int(sizeof(Element)) * kIndexBytes<Index>> > 2
                                        ? kExchanged<BYTES, BYTES / int(sizeof(Element)) * kIndexBytes<Index>>
                                        : 2;

// R x S taps, the same stride in both directions, no dilation, all known when compiled.
template <class Element, class Index, int BYTES, int R, int S, int STRIDE, bool RELU>
class MaxPool {
  static constexpr int COLUMNS = kPoolColumns<Element, Index, BYTES>;
  static constexpr int PIXELS = (COLUMNS - 1) * STRIDE + S;
  static constexpr int OPEN = (R + STRIDE - 1) / STRIDE;      // windows open at a time
  static constexpr int SHARED = R > STRIDE ? R - STRIDE : 0;  // rows that a window shares with the one below
  static constexpr bool FLAT = sizeof(Index) == 8;            // are indices positions?
  using Results = MaxPoolResults<Element, Index, BYTES, COLUMNS, int>;
  static constexpr int V = Results::V;

public:
  __device__ explicit MaxPool(const MaxPoolArguments& args) : args_(args), results_(args) {
    const Place& at = results_.at();
    p_ = at.row * args.rows, q_ = at.column * COLUMNS;
    top_ = p_ * STRIDE - args.pad_top, left_ = q_ * STRIDE - args.pad_left;
  }

  __device__ void run() {
#pragma unroll
    for (int i = 0; i < SHARED; ++i) meet_row(i, 0);
#pragma unroll 1
    for (int p = 0; p < args_.rows; ++p) {
#pragma unroll
      for (int i = SHARED; i < R; ++i) meet_row(i, p);
      results_.store(open_[0], p_ + p, q_, FLAT ? 0 : p * STRIDE * S);
#pragma unroll
      for (int k = 1; k < OPEN; ++k)
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) open_[k - 1][j] = open_[k][j];
    }
  }

private:
  // Row i of the thread's window p, counted from its first: settled within itself, then against the rows
  // above, in all windows that it belongs to.
  __device__ void meet_row(int i, int p) {
    const int h = top_ + p * STRIDE + i;
    typename Results::Windows row;
    settle(row, h, results_.at().exists && p_ + p < args_.p && h >= 0 && h < args_.h,
           FLAT ? h * args_.w + left_ : (p * STRIDE + i) * S);
#pragma unroll
    for (int k = 0; k < OPEN; ++k) {
      const int r = i - k * STRIDE;
      if (r < 0 || r >= R) continue;
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) {
        if (r == 0)
          open_[k][j] = row[j];
        else
          open_[k][j].offer(row[j], h == 0);
      }
    }
  }

  __device__ void settle(typename Results::Windows& row, int h, bool inside, int code) const {
    Rank<Element> lowest[V];
#pragma unroll
    for (int v = 0; v < V; ++v) lowest[v] = infinite_rank<Element>(true);
    unsigned pixel[PIXELS][kWords<BYTES>];
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) elements_of<Element>(lowest, pixel[i]);
    const char* from =
        results_.row(h) + static_cast<long long>(left_) * args_.c * static_cast<int>(sizeof(Element));
    const int step = args_.c * static_cast<int>(sizeof(Element));
#pragma unroll
    for (int i = 0; i < PIXELS; ++i)
      if (inside && holds(i)) load_words<BYTES>(pixel[i], from + static_cast<long long>(i) * step);
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
      for (int v = 0; v < V; ++v) {
        Rank<Element> x = rank_of<Element>(pixel[i], v);
        if constexpr (RELU)
          if (inside && holds(i)) x = relu_rank<Element>(x);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
          const int s = i - j * STRIDE;
          if (s < 0 || s >= S) continue;
          if (s == 0)
            row[j].open(v, x, code + (FLAT ? i : 0));
          else
            row[j].offer(v, x, code + (FLAT ? i : s), left_ + i == 0);
        }
      }
    }
  }

  __device__ bool holds(int i) const { return left_ + i >= 0 && left_ + i < args_.w; }

  const MaxPoolArguments& args_;
  Results results_;
  int p_, q_, top_, left_;
  typename Results::Windows open_[OPEN];
};

// Any window: a thread owns as many windows as lanes exchange indices, and reads the taps of one after the
// other. Code is an integer in which the plane's last position fits.
template <class Element, class Index, int BYTES, class Code>
class MaxPoolAny {
  static constexpr int COLUMNS = kPoolColumns<Element, Index, BYTES>;
  static constexpr bool FLAT = sizeof(Index) == 8;
  using Results = MaxPoolResults<Element, Index, BYTES, COLUMNS, Code>;
  static constexpr int V = Results::V;

public:
  __device__ explicit MaxPoolAny(const MaxPoolArguments& args) : args_(args), results_(args) {}

  __device__ void run() const {
    const int p = results_.at().row, q = results_.at().column * COLUMNS;
    typename Results::Windows windows;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      windows[j].open();
      if (results_.at().exists && q + j < args_.q)
        play(windows[j], p * args_.stride_h - args_.pad_top, (q + j) * args_.stride_w - args_.pad_left);
    }
    results_.store(windows, p, q, 0);
  }

private:
  __device__ void play(Contest<Element, V, Code, Results::CODED>& contest, int top, int left) const {
    const int first_r = first_tap(top, args_.by_dilation_h), first_s = first_tap(left, args_.by_dilation_w);
    const int step = args_.c * static_cast<int>(sizeof(Element));
#pragma unroll 1
    for (int r = first_r; r < args_.r; ++r) {
      const int h = top + r * args_.dilation_h;
      if (h >= args_.h) break;
      const char* row = results_.row(h);
#pragma unroll 1
      for (int s = first_s; s < args_.s; ++s) {
        const int w = left + s * args_.dilation_w;
        if (w >= args_.w) break;
        unsigned pixel[kWords<BYTES>];
        load_words<BYTES>(pixel, row + static_cast<long long>(w) * step);
        const Code code = FLAT ? static_cast<Code>(h) * args_.w + w : static_cast<Code>(r) * args_.s + s;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          Rank<Element> x = rank_of<Element>(pixel, v);
          if (args_.relu) x = relu_rank<Element>(x);
          contest.offer(v, x, code, (r == first_r) & (s == first_s));
        }
      }
    }
  }

  const MaxPoolArguments& args_;
  Results results_;
};

template <class Element, class Index, int BYTES, int R, int S, int STRIDE, bool RELU>
__global__ void __launch_bounds__(256) max_pool(const __grid_constant__ MaxPoolArguments args) {
  MaxPool<Element, Index, BYTES, R, S, STRIDE, RELU>(args).run();
}

template <class Element, class Index, int BYTES, class Code>
__global__ void __launch_bounds__(256) max_pool_any(const __grid_constant__ MaxPoolArguments args) {
  MaxPoolAny<Element, Index, BYTES, Code>(args).run();
}

}  // namespace pyconvx
