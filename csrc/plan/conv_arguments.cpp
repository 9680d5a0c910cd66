#include "plan/conv_arguments.h"

#include <algorithm>
#include <initializer_list>

namespace pyconvx {
namespace {

// A product in 31 bits, or the largest number of 31 bits. Kernels whose index arithmetic needs the product
// run only where it fits; the others don't look at it.
int saturated(std::initializer_list<int64_t> factors) {
  constexpr int64_t most = (int64_t{1} << 31) - 1;
  int64_t product = 1;
  for (int64_t factor : factors)
    if (__builtin_mul_overflow(product, factor, &product)) return most;
  return static_cast<int>(std::min(product, most));
}

}  // namespace

int element_bytes(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

std::string size_limit(const Conv2dProblem& x) {
  constexpr int64_t limit = int64_t{1} << 31;
  const int64_t height = x.h + x.pad_top + x.pad_bottom, width = x.w + x.pad_left + x.pad_right;
  for (int64_t size : {x.n, x.c, x.k, height, width})
    if (size >= limit)
      return "conv2d: the kernels count images, channels, filters, rows and columns in 31 bits, got " +
             x.str() + "; split the dimension that has 2^31 or more";
  return {};
}

Conv2dArguments conv2d_arguments(const Conv2dProblem& x) {
  const auto narrow = [](int64_t size) { return static_cast<int>(size); };
  Conv2dArguments args{};
  args.n = narrow(x.n), args.c = narrow(x.c), args.h = narrow(x.h), args.w = narrow(x.w);
  args.k = narrow(x.k), args.p = narrow(x.p()), args.q = narrow(x.q());
  args.r = narrow(x.r), args.s = narrow(x.s);
  args.stride_h = narrow(x.stride_h), args.stride_w = narrow(x.stride_w);
  args.pad_top = narrow(x.pad_top), args.pad_left = narrow(x.pad_left);
  args.dilation_h = narrow(x.dilation_h), args.dilation_w = narrow(x.dilation_w);
  args.group_channels = narrow(x.c / x.groups), args.group_filters = narrow(x.k / x.groups);
  args.relu = x.activation == Activation::relu;
  args.pixels = saturated({x.n, x.p(), x.q()});
  args.reduction = saturated({x.r, x.s, x.c / x.groups});
  args.row_step = saturated({x.dilation_h, x.w, x.c, element_bytes(x.dtype)});
  args.column_step = saturated({x.dilation_w, x.c, element_bytes(x.dtype)});
  args.by_image = division_by(saturated({x.p(), x.q()}));
  args.by_q = division_by(args.q);
  args.by_channels = division_by(args.group_channels);
  args.by_s = division_by(args.s);
  args.by_multiplier = division_by(args.group_filters);
  args.by_filter_tiles = args.by_group_tiles = division_by(1);
  return args;
}

void set_filter_tiles(Conv2dArguments& args, int filters_per_tile) {
  const unsigned tiles =
      static_cast<unsigned>((args.group_filters + filters_per_tile - 1) / filters_per_tile);
  args.by_group_tiles = division_by(tiles);
  args.by_filter_tiles = division_by(tiles * static_cast<unsigned>(args.k / args.group_filters));
}

void set_pixel_tiles(Conv2dArguments& args, int p, int q) {
  const int64_t across = (int64_t{args.q} + q - 1) / q, down = (int64_t{args.p} + p - 1) / p;
  args.by_tiles_of_row = division_by(saturated({across}));
  args.by_tiles_of_image = division_by(saturated({across, down}));
  args.tiles = saturated({args.n, across, down});
}

TransposeArguments transpose_arguments(int64_t batches, int64_t rows, int64_t columns) {
  TransposeArguments args{};
  args.rows = rows, args.columns = columns;
  args.row_tiles = (rows + 31) / 32, args.column_tiles = (columns + 31) / 32;
  args.tiles = batches * args.row_tiles * args.column_tiles;
  return args;
}

}  // namespace pyconvx
