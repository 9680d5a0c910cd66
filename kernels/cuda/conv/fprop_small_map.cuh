// Convolution with stride 1 of small maps on tensor cores: 7 x 7, 14 x 14. There are few pixels, so tiles are
// small, runs of pixels over several images (patch.cuh); and a small tile whose warps share its pixels and
// filters would read too much of shared memory for each multiplication.
//
// So warps share its channels instead. Each of SLICES = 4 warps (or groups of warps) sums up 64 x 64 outputs
// (or 64 x 32) over its own 32 bytes of each block of 128 bytes of channels (patch_product.cuh), with as few
// reads for each multiplication as in a tile of 128 x 128. In the end the slices' sums are added:
//
//   ((slice 0 + slice 1) + slice 2) + slice 3
//
// Slice i adds up rows 16 i .. 16 i + 15 of its group's 64 pixels, which the others hand over through shared
// memory in the order of registers, one fragment of 16 bytes by each lane, and stores them.
//
// A long reduction is split besides, into runs of channel blocks that blocks of their own compute. How many
// follows from the filter and the map. Each writes its sums to a workspace; sum_splits adds them, in the
// order of channels, and ends as every convolution does (epilogue.cuh). The workspace has for each pixel and
// split its filters' sums, V neighbours in fragments of 4 floats: fragment j of vector x of each 4 vectors
// stands at place 4 j + x, so that the lanes of a pixel write 64 bytes that lie together, and read them
// again.
#pragma once

#include "epilogue.cuh"
#include "known_problem.cuh"
#include "patch_product.cuh"

namespace pyconvx {

// The workspace's fragments of a vector of filters, the first of which is `filter` of the group.
template <class Element>
__device__ inline float4* partial_sums(const Conv2dArguments& args, long long pixel, int split, int group,
                                       int filter) {
  constexpr int V = kVector<Element>;
  const long long row = pixel * args.patch.by_splits.divisor + split;
  const int group_pitch = args.patch.partial_pitch / (args.k / args.group_filters);
  const int vector = filter / V % 4, four_vectors = filter - filter % (4 * V);
  return reinterpret_cast<float4*>(args.partial + row * args.patch.partial_pitch + group * group_pitch +
                                   four_vectors) +
         vector;
}

// What a warp has of all slices' sums: 16 pixels by all its filters.
template <class Warp, class Tile>
__device__ inline void add_slices(const Warp& warp, float (&total)[Warp::N][4], unsigned shared) {
  static_assert(Warp::M == Tile::SLICES, "each slice adds up one of the rows of matrices");
  constexpr int WARPS = Tile::WARPS_M * Tile::WARPS_N, SLICE = WARPS * Warp::N * 512;
  const int slice = Warp::warp_slice();
  const unsigned mine = shared + threadIdx.x / 32 % WARPS * (Warp::N * 512) + threadIdx.x % 32 * 16;
#pragma unroll
  for (int i = 0; i < Warp::M; ++i) {
    // In turns: those of two rows before have been read when all have passed the last row's barrier.
    const unsigned place = mine + i % 2 * Tile::SLICES * SLICE;
#pragma unroll
    for (int j = 0; j < Warp::N; ++j) ptx::store_shared(place + slice * SLICE + j * 512, warp.sum[i][j]);
    __syncthreads();
    if (slice != i) continue;
#pragma unroll
    for (int j = 0; j < Warp::N; ++j) {
      ptx::load_shared(total[j], place + j * 512);
#pragma unroll
      for (int other = 1; other < Tile::SLICES; ++other) {
        float added[4];
        ptx::load_shared(added, place + other * SLICE + j * 512);
#pragma unroll
        for (int x = 0; x < 4; ++x) total[j][x] += added[x];
      }
    }
  }
}

template <class Element, class Tile, int ROUND, int COPIES, int VECTOR, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS)
    fprop_small_map(const __grid_constant__ Conv2dArguments arguments) {
  using Warp = WarpProduct<Element, Tile>;
  constexpr int V = kVector<Element>, DEPTH = Tile::CHUNKS * V;
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  const int pixels_and_split = args.by_filter_tiles(blockIdx.x);
  const int pixel_tile = args.patch.by_splits(pixels_and_split);
  const int split = pixels_and_split - pixel_tile * args.patch.by_splits.divisor;
  const int filter_tile = blockIdx.x - pixels_and_split * args.by_filter_tiles.divisor;
  const int group = args.by_group_tiles(filter_tile);
  const int tile_filter = (filter_tile - group * args.by_group_tiles.divisor) * Tile::FILTERS;
  const int first = split * args.patch.blocks * DEPTH, next = first + args.patch.blocks * DEPTH;
  PatchProduct<Element, Tile, ROUND, COPIES, VECTOR, MASKED> product(
      args, pixel_tile * Tile::PIXELS, group, tile_filter, first,
      next < args.group_channels ? next : args.group_channels, ptx::shared_address(shared));
  product.multiply_all();
  __syncthreads();  // copies of zeros past the end have arrived
  float total[Warp::N][4];
  add_slices<Warp, Tile>(product.warp, total, ptx::shared_address(shared));

  const int first_pixel = pixel_tile * Tile::PIXELS + Warp::warp_slice() * 16;
#pragma unroll
  for (int vector = 0; vector < Warp::VECTORS; ++vector) {
    const int filter = tile_filter + Warp::filter(vector);
    const Epilogue<Element> epilogue(args, group * args.group_filters + filter, args.group_filters - filter);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const long long pixel = product.pixels().output(first_pixel + Warp::pixel(i));
      if (pixel < 0) continue;
      float x[V];
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] = total[vector * V / 2 + v / 2][i * 2 + v % 2];
      if (!args.partial) {
        epilogue.store(pixel, x);
      } else if (filter < args.group_filters) {
        float4* to = partial_sums<Element>(args, pixel, split, group, filter);
#pragma unroll
        for (int j = 0; j < V / 4; ++j) to[4 * j] = {x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]};
      }
    }
  }
}

// One vector of filters of one pixel at a time.
template <class Element>
__global__ void __launch_bounds__(256) sum_splits(const __grid_constant__ Conv2dArguments arguments) {
  constexpr int V = kVector<Element>;
  const Conv2dArguments& args = known(arguments);
  const Division by_vectors = args.patch.by_vectors, by_groups = args.patch.by_groups;
  const unsigned all = args.pixels * by_groups.divisor * by_vectors.divisor;  // in 31 bits
  for (unsigned i = blockIdx.x * 256 + threadIdx.x; i < all; i += gridDim.x * 256) {
    const unsigned row = by_vectors(i), pixel = by_groups(row);
    const int filter = (i - row * by_vectors.divisor) * V, group = row - pixel * by_groups.divisor;
    float x[V] = {};
    for (int split = 0; split < static_cast<int>(args.patch.by_splits.divisor); ++split) {
      const float4* from = partial_sums<Element>(args, pixel, split, group, filter);
#pragma unroll
      for (int j = 0; j < V / 4; ++j) {
        const float4 part = from[4 * j];
        x[4 * j] += part.x;
        x[4 * j + 1] += part.y;
        x[4 * j + 2] += part.z;
        x[4 * j + 3] += part.w;
      }
    }
    const Epilogue<Element> epilogue(args, group * args.group_filters + filter, args.group_filters - filter);
    epilogue.store(pixel, x);
  }
}

}  // namespace pyconvx
