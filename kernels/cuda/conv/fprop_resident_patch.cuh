// Convolution with stride 1 and a window of more than one tap: input is brought into shared memory once for
// all taps. Where it lies and how it gets there: patch.cuh. The loop: patch_product.cuh.
//
// A gather copies R S elements for each pixel and channel, a patch little more than one; what it costs is
// that the block has to have room for two of them.
#pragma once

#include "epilogue.cuh"
#include "known_problem.cuh"
#include "patch_product.cuh"

namespace pyconvx {

// ROUND taps make up the loop's body; COPIES pieces of the next patch go with each tap; VECTOR is the number
// of bytes that global memory can be read by: 16, 8 or 4, or 2 for 16-bit elements.
template <class Element, class Tile, int ROUND, int COPIES, int VECTOR, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS)
    fprop_resident_patch(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  using Warp = WarpProduct<Element, Tile>;
  extern __shared__ __align__(128) unsigned char shared[];
  const BlockTile<Tile> tile(args);
  PatchProduct<Element, Tile, ROUND, COPIES, VECTOR, MASKED> product(
      args, tile.pixel, tile.group, tile.filter, 0, args.group_channels, ptx::shared_address(shared));
  product.multiply_all();

#pragma unroll
  for (int vector = 0; vector < Warp::VECTORS; ++vector) {
    const int filter = tile.filter + Warp::filter(vector);
    const Epilogue<Element> epilogue(args, tile.group * args.group_filters + filter,
                                     args.group_filters - filter);
#pragma unroll
    for (int i = 0; i < Warp::PIXELS; ++i) {
      const long long pixel = product.pixels().output(tile.pixel + Warp::pixel(i));
      if (pixel < 0) continue;
      float x[kVector<Element>];
      product.warp.get(x, i, vector);
      epilogue.store(pixel, x);
    }
  }
}

}  // namespace pyconvx
