// A patch of the input in shared memory, for windows that move by one pixel.
//
// Neighbouring output pixels see almost the same input. So a block that computes PIXELS neighbours brings all
// input that they see into shared memory once, channel block by channel block, and finds every tap there: tap
// (r, s) of any pixel lies
//
//   r dilation_h lines and s dilation_w columns
//
// behind its tap (0, 0), the same number of bytes for all pixels.
//
// Which pixels. An image's output is cut into bands of BAND columns, the last one of which may reach past Q;
// a band of one image is a strip, P rows of BAND pixels. All pixels of all strips in order, row by row, are
// numbered m, and a block owns PIXELS of them that follow each other:
//
//   m = (strip P + p) BAND + column,   strip = n bands + band,   q = band BAND + column
//
//   BAND 16, 128 pixels: a rectangle of 8 x 16          BAND = Q = 7, 64 pixels: a run over two images
//        . . . . . . . . . . . . . . . . . .                  . . . . . . . . .   image n, from row p on
//        . # # # # # # # # # # # # # # # # .                  . # # # # # # # .
//        . # # # # # # # # # # # # # # # # .                  . # # # # # # # .
//        ...            8 rows           ...                  . . . . . . . . .   its last halo line
//        . # # # # # # # # # # # # # # # # .                  . . . . . . . . .   image n + 1
//        . . . . . . . . . . . . . . . . . .                  . # # # # # # # .   ...
//
// The patch's lines are those input rows, (R - 1) dilation_h more of them than rows of output in every strip
// that the run touches, each of BAND + (S - 1) dilation_w columns. Line l of the first strip is input row p_0
// + l - pad_top; after its P - p_0 + (R - 1) dilation_h lines the next strip begins with its row -pad_top.
//
// Where a pixel lies. Its channels of a block, CHUNKS chunks of 16 bytes, are followed by one free chunk, so
// that pixels next to each other are an odd number of chunks apart: 8 of them, which ldmatrix reads at once,
// lie in 8 different groups of 4 banks, whatever the tap, and every address is a sum of a lane's own number,
// the tap's and a constant. A run wraps from the end of a row of output to the start of the next line; so
// that the 8 groups differ there, too, the line's pitch is BAND (CHUNKS + 1) modulo 8 chunks, and `skip` does
// the same from strip to strip. (Rows that are multiples of 8 pixels need neither.)
//
//   CHUNKS = 4   pixel 0  0 1 2 3 -     group of banks of its chunks: a pixel is 5 chunks
//                pixel 1  5 6 7 0 -
//                pixel 2  2 3 4 5 -     chunk 0 of 8 neighbours: 0 5 2 7 4 1 6 3
//
// The table. What a thread must copy is worked out once: for each pixel of the patch that may lie in an
// image, its number, counted from the first image's first, or NOWHERE if it doesn't or nobody needs it, and
// the byte where it goes. What is never copied to is zero from the beginning. Line by line, of which the
// first strip has those from row p_0 - pad_top on, or from 0 if that is negative, and each further one all H.
//
// A gradient that a ReLU masks (mask.cuh). A thread has places of its own for the outputs of the ReLU that
// belong to what it copies with one tap and with the next, at the end of shared memory. What it copied with a
// tap has arrived a tap later, and is masked then, before the barrier at the end of that one; so a patch is
// masked when its first tap is. The outputs that belong to the first patch stand in the second one's place.
#pragma once

#include "gather.cuh"
#include "mask.cuh"

namespace pyconvx {

// A block computes PIXELS x FILTERS outputs, tap by tap of a channel block; the filters of STAGES taps are in
// flight or in use. Warps share the work in pixels, in filters and, if SLICES is not 1, in channels.
template <int PIXELS_, int FILTERS_, int CHUNKS_, int WARPS_M_, int WARPS_N_, int SLICES_, int STAGES_>
struct PatchTile {
  static constexpr int PIXELS = PIXELS_, FILTERS = FILTERS_, CHUNKS = CHUNKS_, STAGES = STAGES_;
  static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, SLICES = SLICES_;
  static constexpr int THREADS = 32 * WARPS_M * WARPS_N * SLICES;

  // Bytes from row to row of a channel block, in the patch (pixels) and in filter slices.
  static constexpr int PITCH = (CHUNKS + 1) * 16;
  static_assert(CHUNKS == 4 || CHUNKS == 8);

  // All threads together copy so many rows at a time; this one a chunk of one of them. 8 neighbouring threads
  // write to 8 different groups of banks: to all chunks of a row, or to those of rows x and x + 4.
  static constexpr int ROWS_AT_ONCE = THREADS / CHUNKS;
  __device__ static int chunk() { return threadIdx.x % CHUNKS; }
  __device__ static int row() {
    return CHUNKS == 8 ? threadIdx.x / 8
                       : threadIdx.x / 32 * 8 + threadIdx.x / 8 % 4 + threadIdx.x / 4 % 2 * 4;
  }
};

// The pixels that a block owns, and the input that they see.
class PatchPixels {
public:
  static constexpr unsigned NOWHERE = 1u << 31;

  __device__ PatchPixels(const Conv2dArguments& args, int first_pixel, int pixels) : args_(args) {
    first_line_ = args.patch.by_band(first_pixel);
    first_strip_ = args.patch.by_rows(first_line_);
    first_row_ = first_line_ - first_strip_ * args.p;
    first_image_ = args.patch.by_bands(first_strip_);
    const int last = args.patch.by_band(first_pixel + pixels - 1);
    last_line_ = last - first_line_ + (args.patch.by_rows(last) - first_strip_ + 1) * halo();
  }

  __device__ int first_image() const { return first_image_; }

  // Where pixel m meets tap (0, 0), in bytes of the patch.
  __device__ int place(int m, int pixel_pitch) const {
    const int line = args_.patch.by_band(m), strip = args_.patch.by_rows(line) - first_strip_;
    const int column = m - line * args_.patch.by_band.divisor;
    return (line - first_line_ + halo() * strip) * args_.patch.line_pitch + strip * args_.patch.skip +
           column * pixel_pitch;
  }

  // Which pixel of the output m is, counted over all images; -1 if it is none.
  __device__ long long output(int m) const {
    const int line = args_.patch.by_band(m), strip = args_.patch.by_rows(line);
    const int n = args_.patch.by_bands(strip), band = strip - n * args_.patch.by_bands.divisor;
    const int p = line - strip * args_.p;
    const int q = m + (band - line) * args_.patch.by_band.divisor;
    if (n >= args_.n || q >= args_.q) return -1;
    return (static_cast<long long>(n) * args_.p + p) * args_.q + q;
  }

  // Entry i of the table: the input pixel or NOWHERE, and the byte of the patch where it goes.
  __device__ uint2 entry(int i, int pixel_pitch) const {
    const int j = args_.patch.by_columns(i), column = i - j * args_.patch.by_columns.divisor;
    const int above = first_row_ < args_.pad_top ? args_.pad_top - first_row_ : 0;
    int row = first_row_ + above + j, strip = 0;  // row: of the patch's lines of a strip
    // None, if the run begins below the image: by more lines than one, where the bottom's padding is wide.
    const int image_lines = args_.h - (row - j - args_.pad_top);
    const int image_lines_left = image_lines > 0 ? image_lines : 0;
    if (j >= image_lines_left) {
      const int others = j - image_lines_left;
      strip = args_.patch.by_image_lines(others) + 1;
      row = others - (strip - 1) * args_.h + args_.pad_top;
    }
    const int line = strip * (args_.p + halo()) + row - first_row_;
    const int n = args_.patch.by_bands(first_strip_ + strip);
    const int band = first_strip_ + strip - n * args_.patch.by_bands.divisor;
    const int h = row - args_.pad_top, patch_column = args_.patch.left + column;
    const int w = band * args_.patch.by_band.divisor - args_.pad_left + patch_column;
    const bool copied =
        column < args_.patch.columns && line <= last_line_ && n < args_.n && w >= 0 && w < args_.w;
    if (!copied) return {NOWHERE, 0};
    const int pixel = ((n - first_image_) * args_.h + h) * args_.w + w;
    const int to = line * args_.patch.line_pitch + strip * args_.patch.skip + patch_column * pixel_pitch;
    return {static_cast<unsigned>(pixel), static_cast<unsigned>(to)};
  }

private:
  __device__ int halo() const { return (args_.r - 1) * args_.dilation_h; }

  const Conv2dArguments& args_;
  int first_line_, first_strip_, first_row_, first_image_;  // of output
  int last_line_;                                           // of the patch
};

// Copies patches, channel block by channel block, alternately to two places. COPIES of a thread go with each
// tap, so that the next patch is there when the present one has been used up. The table ends with as many
// entries as go with a round, for which there is nothing to copy; they are used once the others are.
template <class Element, class Tile, int ROUND, int COPIES, int VECTOR, bool MASKED>
class PatchCopies {
  static constexpr int BYTES = sizeof(Element), V = kVector<Element>, DEPTH = Tile::CHUNKS * V;
  static constexpr int ENTRY = 8, PASS = Tile::ROWS_AT_ONCE * ENTRY;  // bytes of the table
  static constexpr int OUTPUTS = Tile::THREADS * 16;                  // of a ReLU, that go with a copy
  static_assert(!MASKED || Tile::STAGES == 3, "what goes with a tap has arrived one tap later");

public:
  // Channels [first, end) of the input's, `shared` for both patches and the table.
  __device__ PatchCopies(const Conv2dArguments& args, const PatchPixels& pixels, int first, int end,
                         unsigned shared)
      : pixel_bytes_(static_cast<unsigned>(args.c) * BYTES) {
    const unsigned table = shared + 2 * args.patch.bytes;
    next_ = first_ = ptx::keep(table + Tile::row() * ENTRY);
    last_ = ptx::keep(first_ + (args.patch.passes - ROUND * COPIES) * PASS);
    left_ = end - first - Tile::chunk() * V;
    const long long image = static_cast<long long>(pixels.first_image()) * args.h * args.w;
    from_ = static_cast<const char*>(args.input) + image * pixel_bytes_ +
            static_cast<long long>(first + Tile::chunk() * V) * BYTES;
    to_ = ptx::keep(shared + Tile::chunk() * 16);
    for (int i = threadIdx.x; i < args.patch.passes * Tile::ROWS_AT_ONCE; i += Tile::THREADS)
      ptx::store_shared(table + i * ENTRY, pixels.entry(i, Tile::PITCH));
    for (int byte = threadIdx.x * 16; byte < 2 * args.patch.bytes; byte += Tile::THREADS * 16)
      ptx::store_shared(shared + byte, uint4{});
    if constexpr (MASKED) {
      to_outputs_ = way_to_outputs(args.input, args.relu_output);
      outputs_ = ptx::keep(table + args.patch.passes * PASS + threadIdx.x * 16);
      second_patch_ = args.patch.bytes;
#pragma unroll
      for (int j = 0; j < COPIES; ++j) {
        masked_next_[j] = outputs_ + (COPIES + j) * OUTPUTS;  // nothing yet
        for (int turn = 0; turn < 2; ++turn)
          ptx::store_shared(outputs_ + (turn * COPIES + j) * OUTPUTS, uint4{});
      }
    }
  }

  // The whole first patch. Everyone's part of the table must be there.
  __device__ void copy_first(int passes) {
    for (int i = 0; i < passes; ++i) {
      const uint2 entry = ptx::load_shared_pair(first_ + i * PASS);
      copy(entry, 0, to_ + second_patch_ + entry.y);
    }
    next_block();
    read_entries(0);
  }

  // The same has arrived. The second patch will be copied over the outputs.
  __device__ void mask_first(int passes) const {
    for (int i = 0; i < passes; ++i) {
      const uint2 entry = ptx::load_shared_pair(first_ + i * PASS);
      const unsigned at = to_ + entry.y;
      if (static_cast<int>(entry.x) >= 0) mask_in_place(at, at + second_patch_, Element{});
    }
  }

  // Some more of the patch to byte `patch`. The entries were read one tap before.
  __device__ void copy_part(unsigned patch) {
#pragma unroll
    for (int j = 0; j < COPIES; ++j) copy(entry_[j], patch, outputs_ + turn_ + j * OUTPUTS);
    if constexpr (MASKED) {
      turn_ = COPIES * OUTPUTS - turn_;
#pragma unroll
      for (int j = 0; j < COPIES; ++j) {
        // Where there is nothing to copy, the outputs stand for it.
        const unsigned outputs = outputs_ + COPIES * OUTPUTS - turn_ + j * OUTPUTS;
        masked_now_[j] = masked_next_[j];
        masked_next_[j] = static_cast<int>(entry_[j].x) < 0 ? outputs : to_ + entry_[j].y + patch;
      }
    }
  }

  // What went with the tap before the present one has arrived.
  __device__ void mask_part() const {
#pragma unroll
    for (int j = 0; j < COPIES; ++j) mask_in_place(masked_now_[j], outputs_ + turn_ + j * OUTPUTS, Element{});
  }

  __device__ void next_block() {
    from_ += DEPTH * BYTES;
    left_ -= DEPTH;
    next_ = first_;
  }

  __device__ void next_round() {
    const unsigned next = next_ + ROUND * COPIES * PASS;
    next_ = next < last_ ? next : last_;
  }

  // For tap i of the round.
  __device__ void read_entries(int i) {
#pragma unroll
    for (int j = 0; j < COPIES; ++j) entry_[j] = ptx::load_shared_pair(next_ + (i * COPIES + j) * PASS);
  }

private:
  __device__ void copy(uint2 entry, unsigned patch, unsigned outputs) {
    const char* from = from_ + static_cast<unsigned long long>(entry.x) * pixel_bytes_;
    const int pixel = static_cast<int>(entry.x);  // negative: NOWHERE
#pragma unroll
    for (int byte = 0; byte < 16; byte += VECTOR) {
      const unsigned to = to_ + entry.y + patch + byte;
      const bool exists = byte / BYTES < left_;
      copy_if_not_negative(pixel, to, from + byte, exists);
      if constexpr (MASKED) copy_if_not_negative(pixel, outputs + byte, from + to_outputs_ + byte, exists);
    }
  }

  __device__ static void copy_if_not_negative(int pixel, unsigned to, const char* from, bool exists) {
    if constexpr (VECTOR >= 4)
      ptx::cp_async_if_not_negative<VECTOR>(pixel, to, from, exists);
    else if (pixel >= 0)
      pyconvx::copy<VECTOR>(to, from, exists);
  }

  const unsigned pixel_bytes_;
  unsigned first_, next_, last_;  // this thread's first entry of all, of the round and of the last round
  uint2 entry_[COPIES];           // of the next tap
  const char* from_;              // this thread's chunk of the first image's first pixel,
  unsigned to_;                   // and of the first patch's first place
  int left_;                      // channels from its first on

  // Of a mask: where its outputs are, from the gradient on; where this thread has those that go with a copy,
  // and in which of two turns; what is to be masked at the end of the present tap, and of the next one.
  long long to_outputs_;
  unsigned outputs_ = 0, second_patch_ = 0, turn_ = 0;
  unsigned masked_now_[COPIES], masked_next_[COPIES];
};

}  // namespace pyconvx
