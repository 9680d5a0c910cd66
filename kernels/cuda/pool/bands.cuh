// Planes, row after row. In NCHW the rows of a plane follow each other without a gap, and so do the planes:
// any number of neighbouring rows, of one plane or of several, is one run of elements. A block owns `rows`
// rows of what it writes, counted through all planes of the launch. The rows that it needs of what it reads
// are a run as well, halo included. So both move in vectors of 16 bytes, whatever the width of a row:
//
//   run -> shared memory -> a thread for each place -> shared memory -> run
//
// A launch has fewer than 2^31 rows; the plan makes several where tensors have more. Shared by host and
// device.
#pragma once

#include "../division.cuh"

namespace pyconvx {

struct Bands {
  int rows;                      // that a block owns; the last may have fewer
  int all_rows;                  // of the launch
  int images;                    // planes of the launch
  long long first_image;         // of the launch
  int second, third, fourth;     // bytes in shared memory at which the second run begins, and so on
  Division by_rows, by_columns;  // of a plane of what is written
};

// Neighbouring rows of a plane: `first` and `count` of them, counted through all planes of the launch.
struct RowSpan {
  long long first;
  int count;
};

#ifdef __CUDACC__
__device__ inline int clipped(int x, int end) {
  return x < 0 ? 0 : x < end ? x : end;
}

// The rows that this block owns.
struct Band {
  int rows;        // how many
  int image, row;  // the first
  int last_image, last_row;

  __device__ explicit Band(const Bands& bands) {
    const int first = static_cast<int>(blockIdx.x) * bands.rows, left = bands.all_rows - first;
    rows = bands.rows < left ? bands.rows : left;
    image = bands.by_rows(first), row = first - image * static_cast<int>(bands.by_rows.divisor);
    last_image = bands.by_rows(first + rows - 1);
    last_row = first + rows - 1 - last_image * static_cast<int>(bands.by_rows.divisor);
  }

  // From row `begin` of the first image to before row `end` of the last one; images have so many rows.
  __device__ RowSpan span(int begin, int end, int image_rows) const {
    const int count = (last_image - image) * image_rows + end - begin;
    return {static_cast<long long>(image) * image_rows + begin, count < 0 ? 0 : count};
  }
};
#endif

}  // namespace pyconvx
