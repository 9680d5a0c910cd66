// Who computes what in a kernel of pooling: threads sweep over `rows` x `columns` places of each image, with
// so many `chunks` of channels in each.
//
//   thread = ((image rows + row) columns + column) chunks + chunk, less the lines before the launch's first
//
// so that neighbouring threads have neighbouring channels, and then neighbouring columns. A launch has fewer
// than 2^31 threads; the plan makes several where a tensor needs more. An image of NCHW is a plane: there are
// N C of them, of one channel.
//
// Shared by host and device.
#pragma once

#include "../division.cuh"

namespace pyconvx {

struct Sweep {
  unsigned threads;
  unsigned first_line;    // lines are rows, counted through all images of the launch
  Division by_line;       // columns chunks
  Division by_chunks;     // chunks
  Division by_rows;       // rows
  long long first_image;  // of the launch
};

struct Place {
  bool exists;  // threads past the last repeat it, to take part in what a warp does together
  int image;    // in the launch
  int row, column, chunk;
};

#ifdef __CUDACC__
__device__ inline Place place_of(const Sweep& sweep, unsigned thread) {
  Place place;
  place.exists = thread < sweep.threads;
  const unsigned t = place.exists ? thread : sweep.threads - 1;
  const unsigned line = sweep.by_line(t), in_line = t - line * sweep.by_line.divisor;
  place.column = sweep.by_chunks(in_line);
  place.chunk = in_line - place.column * sweep.by_chunks.divisor;
  place.image = sweep.by_rows(line + sweep.first_line);
  place.row = line + sweep.first_line - place.image * sweep.by_rows.divisor;
  return place;
}
#endif

}  // namespace pyconvx
