// Transposes a batch of matrices: to[b][column][row] = from[b][row][column].
//
// This is how NCHW tensors become NHWC and back, and KCRS filters KRSC, for kernels that want channels last:
// NCHW is N matrices of C x HW, and so are KCRS filters K matrices of C x RS.
//
// A block moves tiles of 32 x 32 through shared memory: 32 neighbouring threads read 32 neighbouring columns
// of a row and write 32 neighbouring rows of a column. The tile's pitch is an odd number of words of 4 bytes
// (of 8 bytes, where elements have as many), so that the elements of a column lie in different banks.
#pragma once

#include "arguments.cuh"
#include "mask.cuh"

namespace pyconvx {

// Bits is an unsigned integer as wide as the elements: nothing is computed with them. A gradient may be
// masked by the output of a ReLU on the way (mask.cuh), whose elements are then known.
template <class Bits, class Element = Bits, bool MASKED = false>
__global__ void __launch_bounds__(256) transpose(const TransposeArguments args) {
  constexpr int TILE = 32, ROWS_AT_ONCE = 256 / TILE;
  __shared__ Bits tile[TILE][TILE + (sizeof(Bits) == 2 ? 2 : 1)];
  const Bits* from = static_cast<const Bits*>(args.from);
  Bits* to = static_cast<Bits*>(args.to);
  const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;

  for (long long i = blockIdx.x; i < args.tiles; i += gridDim.x) {
    const long long column = i % args.column_tiles * TILE, i_row = i / args.column_tiles;
    const long long row = i_row % args.row_tiles * TILE,
                    matrix = i_row / args.row_tiles * args.rows * args.columns;
#pragma unroll
    for (int j = y; j < TILE; j += ROWS_AT_ONCE)
      if (row + j < args.rows && column + x < args.columns)
        tile[j][x] = passes<Element, MASKED>(args.relu_output, matrix + (row + j) * args.columns + column + x)
                         ? from[matrix + (row + j) * args.columns + column + x]
                         : Bits(0);
    __syncthreads();
#pragma unroll
    for (int j = y; j < TILE; j += ROWS_AT_ONCE)
      if (column + j < args.columns && row + x < args.rows)
        to[matrix + (column + j) * args.rows + row + x] = tile[x][j];
    __syncthreads();
  }
}

}  // namespace pyconvx
