// Max pooling of planes (N C H W): the results of max_pool.cuh, to the bit, from rows in shared memory.
//
//   output[image][p][q] = max over r, s of input[image][h][w],   h = p stride_h - pad_top + r dilation_h
//   index[image][p][q]  = where it stood                         w = q stride_w - pad_left + s dilation_w
//
// A block owns rows of outputs (bands.cuh): from row p of one plane to row p' of the same or a later one. The
// input that they need is the run of rows from h(p, r = 0) to h(p', r = R - 1), inside the planes. So a row
// that several windows share is read once a block. Neighbouring threads have neighbouring outputs, whose taps
// lie `stride_w` elements apart: in the 16-bit formats and strides of 1 or 2, in different banks.
#pragma once

#include "arguments.cuh"
#include "contest.cuh"
#include "run.cuh"
#include "winners.cuh"

namespace pyconvx {

template <class Element, class Index, bool RELU>
class MaxPoolRows {
  static constexpr bool CODED = kIndexBytes<Index> != 0, FLAT = kIndexBytes<Index> == 8;
  using Image = Run<Bits<Element>>;
  using Outcome = Contest<Element, 1, int, CODED>;

public:
  __device__ MaxPoolRows(const MaxPoolArguments& args, unsigned char* shared)
      : args_(args), band_(args.bands), shared_(shared) {}

  // R x S taps without holes, a constant; 0 x 0: any window.
  template <int R, int S>
  __device__ void run() const {
    const int extent = (args_.r - 1) * args_.dilation_h + 1;
    const int top = clipped(band_.row * args_.stride_h - args_.pad_top, args_.h);
    const RowSpan rows =
        band_.span(top, clipped(band_.last_row * args_.stride_h - args_.pad_top + extent, args_.h), args_.h);
    const long long first = rows.first * args_.w;
    const Image image(shared_, args_.from, first, rows.count * args_.w);
    image.load(first, static_cast<long long>(args_.bands.images) * args_.h * args_.w);
    __syncthreads();

    const long long place = (static_cast<long long>(band_.image) * args_.p + band_.row) * args_.q;
    const int count = band_.rows * args_.q;
    const Image output(shared_ + args_.bands.second, args_.to, place, count);
    using IndexBits = typename BitsOf<CODED ? kIndexBytes<Index> : 1>::type;
    const Run<IndexBits> indices(shared_ + args_.bands.third, args_.indices, place, count);
#pragma unroll 1
    for (int i = threadIdx.x; i < count; i += 256) {
      const int line = args_.bands.by_columns(i), q = i - line * args_.q;
      const int plane = args_.bands.by_rows(band_.row + line), p = band_.row + line - plane * args_.p;
      const int h = p * args_.stride_h - args_.pad_top, w = q * args_.stride_w - args_.pad_left;
      const int corner = (plane * args_.h + h - top) * args_.w + w;
      const Outcome outcome =
          R ? play_constant<R ? R : 1, S ? S : 1>(image, corner, h, w) : play_any(image, corner, h, w);
      unsigned words[kWords<sizeof(Element)>];
      elements_of<Element>(outcome.best, words);
      output[i] = from_words<Bits<Element>>(words);
      if constexpr (CODED) indices[i] = static_cast<IndexBits>(outcome.code[0]);
    }
    __syncthreads();
    output.store();
    if constexpr (CODED) indices.store();
  }

private:
  // The window at (h, w), whose corner lies so far from the run's first element. Each row is settled within
  // itself, and its winner meets the best of those above, as in max_pool.cuh.
  template <int R, int S>
  __device__ Outcome play_constant(const Image& image, int corner, int h, int w) const {
    Outcome best;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const bool inside = static_cast<unsigned>(h + r) < static_cast<unsigned>(args_.h);
      Outcome row;
#pragma unroll
      for (int s = 0; s < S; ++s) {
        Rank<Element> x = infinite_rank<Element>(true);
        if (inside && static_cast<unsigned>(w + s) < static_cast<unsigned>(args_.w))
          x = read(image, corner + r * args_.w + s);
        const int code = FLAT ? (h + r) * args_.w + w + s : r * S + s;
        if (s == 0)
          row.open(0, x, code);
        else
          row.offer(0, x, code, w + s == 0);
      }
      if (r == 0)
        best = row;
      else
        best.offer(row, h + r == 0);
    }
    return best;
  }

  __device__ Outcome play_any(const Image& image, int corner, int h, int w) const {
    const int first_r = first_tap(h, args_.by_dilation_h), first_s = first_tap(w, args_.by_dilation_w);
    Outcome best;
    best.open();
#pragma unroll 1
    for (int r = first_r; r < args_.r && h + r * args_.dilation_h < args_.h; ++r) {
      const int row = r * args_.dilation_h * args_.w;
#pragma unroll 1
      for (int s = first_s; s < args_.s && w + s * args_.dilation_w < args_.w; ++s) {
        const int at = row + s * args_.dilation_w;
        best.offer(0, read(image, corner + at), FLAT ? h * args_.w + w + at : r * args_.s + s,
                   (r == first_r) & (s == first_s));
      }
    }
    return best;
  }

  __device__ static Rank<Element> read(const Image& image, int i) {
    unsigned words[kWords<sizeof(Element)>];
    to_words(words, image[i]);
    const Rank<Element> x = rank_of<Element>(words, 0);
    return RELU ? relu_rank<Element>(x) : x;
  }

  const MaxPoolArguments& args_;
  const Band band_;
  unsigned char* shared_;
};

template <class Element, class Index, int R, int S, bool RELU>
__global__ void __launch_bounds__(256) max_pool_rows(const __grid_constant__ MaxPoolArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  MaxPoolRows<Element, Index, RELU>(args, shared).template run<R, S>();
}

}  // namespace pyconvx
