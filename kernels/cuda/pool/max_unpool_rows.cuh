// Max unpooling of planes (N C H W) by offsets, where windows do not overlap, and its gradient: the results
// of max_unpool.cuh and max_unpool_backward.cuh, to the bit, through rows in shared memory.
//
// Forward, a block owns rows of cells (bands.cuh), stride_h x stride_w outputs that begin where a window
// does. The windows' values and indices are a run each, and so are the cells' outputs, zeros included. A
// thread has a cell. Backward, a block owns rows of windows, and reads the rows of gradients under them; a
// thread has a window, and takes the gradient that its index names. Either way the thread of a window checks
// its index.
#pragma once

#include "run.cuh"
#include "unpool.cuh"

namespace pyconvx {

template <class Value, class Index>
class UnpoolingRows {
  static constexpr unsigned NOWHERE = ~0u;
  using Values = Run<Value>;
  using Indices = Run<typename BitsOf<sizeof(Index)>::type>;

public:
  __device__ UnpoolingRows(const UnpoolArguments& args, unsigned char* shared)
      : args_(args), band_(args.bands), shared_(shared) {}

  // R x S: cells of a size that is a constant, which their windows fill; 0 x 0: any.
  template <int R, int S>
  __device__ void run() const {
    const int first_p = clipped(band_.row, args_.p);
    const RowSpan windows = band_.span(first_p, clipped(band_.last_row + 1, args_.p), args_.p);
    const int top = clipped(band_.row * args_.stride_h - args_.pad_top, args_.h);
    const RowSpan rows =
        band_.span(top, clipped((band_.last_row + 1) * args_.stride_h - args_.pad_top, args_.h), args_.h);

    const long long first = windows.first * args_.q;
    const long long all = static_cast<long long>(args_.bands.images) * args_.p * args_.q;
    const Values values(shared_, args_.from, first, windows.count * args_.q);
    const Indices indices(shared_ + args_.bands.second, args_.indices, first, windows.count * args_.q);
    values.load(first, all);
    indices.load(first, all);
    __syncthreads();

    const Values output(shared_ + args_.bands.third, args_.to, rows.first * args_.w, rows.count * args_.w);
#pragma unroll 1
    for (Position at(*this); at.exists(); at.next()) {
      const int window = (at.plane * args_.p + at.row - first_p) * args_.q + at.column;
      Value value = 0;
      unsigned code = NOWHERE;
      if (at.row < args_.p && at.column < args_.q) {
        value = values[window];
        code = checked(static_cast<unsigned>(indices[window]), at.row, at.column, first + window);
      }
      const int h = at.row * args_.stride_h - args_.pad_top, w = at.column * args_.stride_w - args_.pad_left;
      const int corner = (at.plane * args_.h + h - top) * args_.w + w;
#pragma unroll(R ? R : 1)
      for (int dh = 0; dh < (R ? R : args_.stride_h); ++dh)
#pragma unroll(S ? S : 1)
        for (int dw = 0; dw < (S ? S : args_.stride_w); ++dw)
          if (inside(h + dh, w + dw))
            output[corner + dh * args_.w + dw] =
                code == (R ? dh * S + dw : tap_at(dh, dw)) ? value : Value(0);
    }
    __syncthreads();
    output.store();
  }

  __device__ void run_backward() const {
    const int extent = (args_.r - 1) * args_.dilation_h + 1;
    const int top = clipped(band_.row * args_.stride_h - args_.pad_top, args_.h);
    const RowSpan rows =
        band_.span(top, clipped(band_.last_row * args_.stride_h - args_.pad_top + extent, args_.h), args_.h);
    const long long place = (static_cast<long long>(band_.image) * args_.p + band_.row) * args_.q;
    const long long first = rows.first * args_.w;
    const Values gradient(shared_, args_.from, first, rows.count * args_.w);
    const Indices indices(shared_ + args_.bands.second, args_.indices, place, band_.rows * args_.q);
    gradient.load(first, static_cast<long long>(args_.bands.images) * args_.h * args_.w);
    indices.load(place, static_cast<long long>(args_.bands.images) * args_.p * args_.q);
    __syncthreads();

    const Values output(shared_ + args_.bands.third, args_.to, place, band_.rows * args_.q);
#pragma unroll 1
    for (Position at(*this); at.exists(); at.next()) {
      const unsigned code = checked(static_cast<unsigned>(indices[at.i]), at.row, at.column, place + at.i);
      Value value = 0;
      if (code != NOWHERE) {
        int h, w;
        tap(code, at.row, at.column, h, w);
        value = gradient[(at.plane * args_.h + h - top) * args_.w + w];
      }
      output[at.i] = value;
    }
    __syncthreads();
    output.store();
  }

private:
  // The cells or windows of a thread: those of the block's rows, one after the other.
  struct Position {
    const UnpoolingRows& of;
    int i, plane, row, column;

    __device__ explicit Position(const UnpoolingRows& rows) : of(rows), i(threadIdx.x) { decode(); }
    __device__ bool exists() const {
      return i < of.band_.rows * static_cast<int>(of.args_.bands.by_columns.divisor);
    }
    __device__ void next() { i += 256, decode(); }
    __device__ void decode() {
      const Bands& bands = of.args_.bands;
      const int line = bands.by_columns(i);
      column = i - line * static_cast<int>(bands.by_columns.divisor);
      plane = bands.by_rows(of.band_.row + line);
      row = of.band_.row + line - plane * static_cast<int>(bands.by_rows.divisor);
    }
  };

  __device__ bool inside(int h, int w) const {
    return static_cast<unsigned>(h) < static_cast<unsigned>(args_.h) &&
           static_cast<unsigned>(w) < static_cast<unsigned>(args_.w);
  }

  // Where offset `code` of window (p, q) leads.
  __device__ void tap(unsigned code, int p, int q, int& h, int& w) const {
    const int r = args_.by_s(code), s = code - r * args_.s;
    h = p * args_.stride_h - args_.pad_top + r * args_.dilation_h;
    w = q * args_.stride_w - args_.pad_left + s * args_.dilation_w;
  }

  // The offset, if it is good; else NOWHERE, and it is reported: index `place` of the launch.
  __device__ unsigned checked(unsigned code, int p, int q, long long place) const {
    if (code < static_cast<unsigned>(args_.r * args_.s)) {
      int h, w;
      tap(code, p, q, h, w);
      if (inside(h, w)) return code;
    }
    report_bad_index(args_, place + args_.bands.first_image * args_.p * args_.q);
    return NOWHERE;
  }

  // The offset of what lies so far below and to the right of a window's first tap.
  __device__ unsigned tap_at(int down, int across) const {
    const int r = args_.by_dilation_h(down), s = args_.by_dilation_w(across);
    const bool on_tap = r * args_.dilation_h == down && s * args_.dilation_w == across;
    return on_tap && r < args_.r && s < args_.s ? r * args_.s + s : NOWHERE - 1;
  }

  const UnpoolArguments& args_;
  const Band band_;
  unsigned char* shared_;
};

template <class Value, class Index, int R, int S>
__global__ void __launch_bounds__(256) max_unpool_rows(const __grid_constant__ UnpoolArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  UnpoolingRows<Value, Index>(args, shared).template run<R, S>();
}

template <class Value, class Index>
__global__ void __launch_bounds__(256)
    max_unpool_rows_backward(const __grid_constant__ UnpoolArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  UnpoolingRows<Value, Index>(args, shared).run_backward();
}

}  // namespace pyconvx
