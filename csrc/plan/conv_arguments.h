// A problem's sizes in the form that kernels take them in.
#pragma once

#include "../../kernels/cuda/conv/arguments.cuh"
#include "problem.h"

#include <string>

namespace pyconvx {

int element_bytes(DType);

// Why the sizes don't fit Conv2dArguments at all; empty if they do.
std::string size_limit(const Conv2dProblem&);

// All but the pointers and what depends on a tile. The problem must be valid and within size_limit.
Conv2dArguments conv2d_arguments(const Conv2dProblem&);

// For tiles of so many filters. Such a tile lies inside one group.
void set_filter_tiles(Conv2dArguments&, int filters_per_tile);

// For tiles of p x q output pixels.
void set_pixel_tiles(Conv2dArguments&, int p, int q);

TransposeArguments transpose_arguments(int64_t batches, int64_t rows, int64_t columns);

}  // namespace pyconvx
