// What a convolution kernel is given, by value. Shared by host and device: plain sizes, no torch, no CUDA
// types.
//
// Activations are N H W C, filters K R S C/groups, outputs N P Q K. Every size fits 31 bits, and so do N P Q,
// R S C/groups and a window's bytes: the plan refuses or splits what does not. Tensors themselves may be
// larger: kernels form 64-bit addresses of pixels and filters, and add 31-bit offsets within a window to
// them. fprop_plain.cuh alone needs none of the products to fit.
#pragma once

#include "../division.cuh"

namespace pyconvx {

// How the patches of input lie that blocks keep in shared memory: patch.cuh.
struct PatchArguments {
  Division by_band;         // columns of output in a band
  Division by_rows;         // P
  Division by_bands;        // bands of an image
  Division by_image_lines;  // H
  Division by_columns;      // the table's entries for a line: its columns, rounded up
  int columns, left;        // of a line, how many may lie in an image, from which one on
  int passes, busy_passes;  // of all threads through the table; those that may have something to copy
  int line_pitch, skip;     // bytes from line to line, and besides that from strip to strip
  int bytes;                // of a patch
  int tap_step;             // bytes from tap to tap in a line of the window: a row, or the only column
  int line_step;            // bytes from its last tap to the next line's first
  int taps_of_line;
  int blocks;                      // channel blocks, of a split
  Division by_splits;              // of the channels
  Division by_vectors, by_groups;  // vectors of a group's filters, groups: of a pixel's sums
  int partial_pitch;               // floats of a pixel and split
  unsigned one;                    // 1: x * one + pointer is one instruction, x + pointer would be two
};

struct Conv2dArguments {
  const void* input;
  const void* filter;
  void* output;
  const void* bias;      // one element per filter, or null
  const void* scale;     // one accumulator (f32, or f64 in f64) per filter, or null
  const void* shift;     // likewise
  const void* residual;  // laid out as the output, or null
  float* partial;        // sums of splits of the channels, or null

  // Of gradients: what a ReLU gave, laid out as the output's gradient, which counts where this is not <= 0 (a
  // NaN lets it pass). Kernels that are compiled to mask read it.
  const void* relu_output;

  int n, h, w, c;
  int k, p, q;
  int r, s;
  int stride_h, stride_w;
  int pad_top, pad_left;
  int dilation_h, dilation_w;
  int group_channels, group_filters;  // C / groups, K / groups
  int relu;
  int vector_output;  // may outputs, residuals and per-filter vectors be accessed by 16 bytes?

  // Where outputs go. Usually output pixel (n, p, q) is pixel (n, p, q) of the output tensor; if `spread`,
  // the tensor is larger, N x spread_h x spread_w, and it is its pixel (n, first_h + p step_h, first_w + q
  // step_w).
  int spread;
  int spread_h, spread_w, first_h, first_w, step_h, step_w;

  int pixels;            // N P Q
  int reduction;         // R S C/groups
  unsigned row_step;     // bytes from one tap to the one below it, and
  unsigned column_step;  // to the one on its right

  Division by_image;         // P Q
  Division by_q;             // Q
  Division by_channels;      // C / groups
  Division by_s;             // S
  Division by_multiplier;    // K / groups
  Division by_filter_tiles;  // tiles of filters, in all groups
  Division by_group_tiles;   // tiles of filters in one group

  // For kernels whose blocks own rectangles of output pixels.
  int tiles;  // in all images
  Division by_tiles_of_image;
  Division by_tiles_of_row;  // from an image's left to its right edge

  PatchArguments patch;  // for kernels whose blocks keep one
};

// Filters rearranged for dgrad: dgrad_filter.cuh.
struct DgradFilterArguments {
  const void* filter;
  void* rearranged;
  long long step_k, step_c, step_r, step_s;  // elements from one filter, channel, row or column to the next
  int group_filters, group_channels, groups;
  int r, s;
  int apart_h, apart_w;  // taps of one class are so many rows and columns apart
  int filter_tiles, channel_tiles;
};

// The gradient of a convolution's input, by dgrad_plain.cuh. Of `conv` filter, bias and relu_output are read,
// the latter being one element per channel of the input.
struct DgradArguments {
  Conv2dArguments conv;
  const void* grad_output;
  void* grad_input;
};

// The gradients of a convolution's filters and bias: wgrad.cuh. Of `conv` only the input, relu_output
// and sizes are used.
struct WgradArguments {
  Conv2dArguments conv;
  const void* grad_output;
  void*
      sums;  // accumulators: of each split K R S C/groups, then, after `split_size` of them, the next split's
  void* bias_sums;  // likewise K of each split, in the same steps; or null
  long long split_size;
  long long run;  // output pixels of a split, or tiles of them
  int splits;
  int vector_sums;           // may sums be written by two neighbours, and by four?
  Division by_tiles;         // tiles of the result, in all groups
  Division by_group_tiles;   // in one group
  Division by_column_tiles;  // tiles of a filter's elements
  Division by_dilation_h, by_dilation_w;
  Division by_row_columns;  // columns of a row of the window: wgrad.cuh
  int lead;                 // of them, how many are before the first

  // Bytes of a row of pixels, and of an image.
  int x_row;
  long long y_row, x_image;

  // For wgrad_patch.cuh: bytes from a tile of pixels to the one on its right, and how many more they are at
  // the end of a row of tiles, and, on top of that, at the end of an image.
  int rows_of_tiles;
  long long y_steps[3], x_steps[3];
};

// Partial sums added up: wgrad_sum.cuh.
struct WgradSumArguments {
  const void* sums;
  void* grad_weight;
  void* grad_bias;
  long long weights, biases;  // how many there are
  long long bias_at;          // where the sums of the biases begin in those of a split
  long long split_size;
  int splits;
};

struct TransposeArguments {
  const void* from;         // batches of rows x columns
  void* to;                 // batches of columns x rows
  const void* relu_output;  // as `from`, where that is a gradient to be masked
  long long rows, columns;
  long long row_tiles, column_tiles, tiles;  // of 32 x 32; those of all batches
};

}  // namespace pyconvx
